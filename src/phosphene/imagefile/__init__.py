"""Picture files: a file becomes an `Image`, and an `Image` becomes a file. The only user of Pillow."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import PIL.Image
import torch
from torch.nn import functional as F

from phosphene import apart
from phosphene.errors import ImageError, OutputExistsError, SettingsError, UsageError
from phosphene.imagefile import headers, opening
from phosphene.imagefile.colour import srgb_parts
from phosphene.imagefile.decode import decode, kind_of, shape_of, upright
from phosphene.imagefile.encode import encode_as, quantise, recipe_in, xmp_of
from phosphene.imagefile.formats import FORMATS, JPEG, PNG, beside, endings, format_of
from phosphene.imagefile.headers import Shape
from phosphene.imagefile.moving import write_moving
from phosphene.imagefile.opening import (
    IMAGE,
    MAX_PIXELS,
    SAMPLES,
    check_decoded,
    check_shape,
    is_beside,
    locate,
    opened,
    refuse_no_picture,
)
from phosphene.imagefile.replacing import write_atomically
from phosphene.places import check_place, check_writable, kind_of_file
from phosphene.types import Image, Plane, Size

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SAMPLES",
    "Photo",
    "as_mask",
    "check_output",
    "check_place",
    "check_recipe",
    "checksum",
    "encode",
    "in_colours",
    "is_image",
    "look",
    "mask_of",
    "output_of",
    "read",
    "read_recipe",
    "reading_bytes",
    "write",
    "write_atomically",
    "write_moving",
]

READABLE = {*FORMATS} - {".dzi"} | {".gif", ".bmp", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".jfif", ".avif"}

PLAIN = ("1", "L", "RGB", "RGBA", "I", "I;16", "I;16B", "F")
"""Modes of Pillow's images whose numbers are colours."""


@dataclass(frozen=True)
class Photo:
    """A picture as it was read.

    `image` is upright, sRGB, 0..1, not premultiplied; `alpha` is 0 (clear) to 1 (opaque), or None where the
    file has none; `source` is what was asked for; `sha256` is of the file's bytes; `notes` are sentences for
    the user.
    """

    image: Image
    alpha: Plane | None
    source: str
    sha256: str
    notes: tuple[str, ...]

    @property
    def size(self) -> Size:
        """Height and width, in px."""
        return self.image.shape[1], self.image.shape[2]


def read(source: str | Path, room: int | None = None) -> Photo:
    """Read a picture file, or with `sample:NAME` one of `SAMPLES`.

    The bits of a channel are kept, however many; the picture is turned as its orientation says, and converted from
    its colour profile to sRGB. `room` is the bytes that it may take, or else what is free. Raises ImageError for what
    is not a readable picture of at most `MAX_PIXELS`, before it is decoded where its header tells, and
    UnknownNameError for an unknown sample.
    """
    if apart.is_on():
        told = apart.answer(_told_photo, source, room)
        alpha = None if told["alpha"] is None else torch.from_numpy(told["alpha"])
        return Photo(torch.from_numpy(told["image"]), alpha, str(source), told["sha256"], tuple(told["notes"]))
    path, notes = locate(str(source)), list[str]()
    with opened(path) as file:
        shape = declared(file, path)
        check_shape(shape, path, shape.pixel + IMAGE, room, opening.MAX_PIXELS)
        raw = decode(file, path.name, notes)
        height, width = upright(raw.samples, raw.orientation).shape[:2]
        size = height, width
        check_decoded(size, shape.size, path)
        image, alpha = torch.empty(3, *size), torch.empty(size) if raw.alpha else None
        for rows, colour, plane in srgb_parts(raw, path.name, notes):
            image[:, rows] = torch.from_numpy(colour.transpose(2, 0, 1).copy())
            if alpha is not None and plane is not None:
                alpha[rows] = torch.from_numpy(plane)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Photo(image, alpha, str(source), sha256, tuple(notes))


def _told_photo(source: str | Path, room: int | None) -> Iterator[apart.Answer]:
    photo = read(source, room)
    alpha = None if photo.alpha is None else photo.alpha.numpy()
    yield {"image": photo.image.numpy(), "alpha": alpha, "sha256": photo.sha256, "notes": photo.notes}


def look(source: str | Path) -> Shape:
    """Read from its header what a picture file or sample says of its size; ImageError where it is no picture."""
    if apart.is_on():
        return Shape(**apart.answer(_told_shape, source))
    path = locate(str(source))
    with opened(path, limited=False) as file:
        return declared(file, path)


def _told_shape(source: str | Path) -> Iterator[apart.Answer]:
    yield look(source)._asdict()


def reading_bytes(shape: Shape) -> int:
    """Return the bytes that `read` takes for a picture of a shape."""
    return (shape.pixel + IMAGE) * shape.width * shape.height


def declared(file: BufferedReader, path: Path) -> Shape:
    """Read what a picture file says of its size."""
    refuse_no_picture(file, path)
    return shape_of(file)


def is_image(path: Path) -> bool:
    """Whether a file's name is one of a picture that `read` knows, and not of what a Mac keeps beside one."""
    return path.is_file() and path.suffix.lower() in READABLE and not is_beside(path)


def as_mask(photo: Photo, size: Size) -> Plane:
    """Take a photograph as a mask of `size` (height, width): its Rec. 709 luma, times its alpha, 0..1.

    It is stretched to `size` with antialiased bilinear resampling.
    """
    mask = mask_of(photo.image, photo.alpha)
    return F.interpolate(mask[None, None], size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)


def mask_of(image: Image, alpha: Plane | None) -> Plane:
    """Return the Rec. 709 luma of a photograph, or of a part of it, times its alpha."""
    luma = 0.2126 * image[0] + 0.7152 * image[1] + 0.0722 * image[2]
    return luma if alpha is None else luma * alpha


def checksum(source: str | Path) -> str:
    """Return the SHA-256 of a picture file's bytes. Raises what `read` raises where there is no file."""
    with opened(locate(str(source))) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(path: str | Path, overwrite: bool, *, bits: Literal[8, 16] = 8, size: Size | None = None) -> None:
    """Raise now what `write` would raise later: to be called before the work starts.

    SettingsError for an ending that cannot be written, or cannot hold `bits` or a picture of `size`;
    OutputExistsError for a file that is there already, unless `overwrite`; ImageError for a folder that is
    missing or cannot be written to.
    """
    path = Path(path)
    format_of(path, bits, size)
    check_place(path, overwrite)
    for other in beside(Path(os.path.realpath(path))):
        if kind_of_file(other) != "a folder" or other.suffix == ".html":
            check_place(other, overwrite)
        elif not overwrite:
            raise OutputExistsError(
                f"{str(other)!r} exists already: choose another name, or --overwrite it (in Python overwrite=True)"
            )
        else:
            check_writable(other)


def check_recipe(path: str | Path, recipe: str) -> None:
    """Raise SettingsError where a file's format cannot hold a recipe, before the work starts."""
    path = Path(path)
    most, needed = format_of(path).recipe, len(xmp_of(recipe))
    if most and needed > most:
        raise SettingsError(
            f"{path.name!r} cannot hold a recipe of {needed / 1000:.0f} kB, only {most / 1000:.0f}: "
            f"use .png or .tif, or a shorter schedule"
        )


def output_of(path: str | Path | None, prepared: str | Path | None) -> Path:
    """Return where to write: at `path`, or else where it was prepared to be; UsageError where that is nowhere."""
    if path is None and prepared is None:
        raise UsageError("this dream was prepared without an output: save it under a name")
    return Path(path or prepared or "")


def write(
    path: str | Path,
    image: Image,
    *,
    alpha: Plane | None = None,
    recipe: str = "",
    bits: Literal[8, 16] = 8,
) -> None:
    """Write an sRGB image (0..1, clamped) in the format of its ending, whole or not at all.

    An existing file is replaced. PNG and TIFF are lossless and hold 8 or 16 bits; JPEG and WebP have quality
    95, AVIF 90. JPEG has no alpha: the picture is laid on white, as viewers show it. `recipe` is embedded for
    `read_recipe`; the photograph's own metadata (place, camera) is not passed on. Raises SettingsError for
    what the format cannot hold, ImageError where writing fails.
    """
    path = Path(path)
    kind = format_of(path, bits, (image.shape[1], image.shape[2]))
    check_recipe(path, recipe)
    if kind.whole is None:
        raise SettingsError(f"{path.name!r} is written in strips: its ending must be one of {endings(strips=False)}")
    try:
        write_atomically(path, encode_as(quantise(image, alpha, kind, bits), kind, recipe))
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)!r} could not be written: {error}") from error


def in_colours(given: Any) -> Any:
    """Return an image of Pillow's, whose numbers may stand for something else, in RGB; all else stays as it is."""
    stands_for_others = isinstance(given, PIL.Image.Image) and given.mode not in PLAIN
    return given.convert("RGB") if stands_for_others else given


def encode(image: Image, kind: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """The image (sRGB, 0..1, clamped) as the bytes of an 8 bit file, for notebooks and live views."""
    format = {"PNG": PNG, "JPEG": JPEG}[kind]
    return encode_as(quantise(image, None, format, 8), format, "")


def read_recipe(path: str | Path) -> str:
    """Return the recipe of a picture of any size, or of a Deep Zoom pyramid's .dzi.

    Raises ImageError where there is none, or no picture.
    """
    if apart.is_on():
        return str(apart.answer(_told_recipe, path)["recipe"])
    path = Path(path)
    with opened(path, limited=False) as file:
        recipe = recipe_in(file.read()) if path.suffix.lower() == ".dzi" else _recipe_of(file)
    if not recipe:
        raise ImageError(f"{str(path)!r} carries no recipe: give a picture as Phosphene wrote it, not a copy")
    return str(recipe)


def _told_recipe(path: str | Path) -> Iterator[apart.Answer]:
    yield {"recipe": read_recipe(path)}


def _recipe_of(file: BufferedReader) -> str | None:
    if kind_of(file) == "PNG":
        return headers.png_text(file, b"phosphene")
    with PIL.Image.open(file) as picture:
        return recipe_in(picture.info.get("xmp", b"")) or _comment(picture)


def _comment(picture: PIL.Image.Image) -> str | None:
    """A GIF has no other place for a recipe than its comment."""
    comment = picture.info.get("comment", b"") if picture.format == "GIF" else b""
    return comment.decode(errors="replace") if b"[made]" in comment else None
