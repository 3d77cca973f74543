"""Picture files: a file becomes an `Image`, and an `Image` becomes a file. The only user of Pillow."""

import hashlib
import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

import PIL.Image
import torch
from torch.nn import functional as F

from phosphene.errors import ImageError, OutputExistsError
from phosphene.imagefile.colour import to_srgb
from phosphene.imagefile.decode import decode, decode_deep_tiff, scaled, upright
from phosphene.imagefile.encode import FORMATS, encode_as, format_of, quantise, recipe_in, write_atomically
from phosphene.imagefile.opening import MAX_PIXELS, SAMPLES, locate, opened
from phosphene.types import Image, Plane, Size

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SAMPLES",
    "Photo",
    "as_mask",
    "check_output",
    "check_place",
    "checksum",
    "encode",
    "is_image",
    "mask_of",
    "read",
    "read_recipe",
    "write",
    "write_atomically",
]

READABLE = {*FORMATS, ".gif", ".bmp"}


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


def read(source: str | Path) -> Photo:
    """Read a picture file, or with `sample:NAME` one of `SAMPLES`.

    The 16 bits of a PNG or TIFF are kept; the picture is turned as its EXIF orientation says, and converted
    from its colour profile to sRGB. Raises ImageError for what is not a readable picture of at most
    `MAX_PIXELS`, and UnknownNameError for an unknown sample.
    """
    path, notes = locate(str(source)), list[str]()
    with opened(path) as file:
        raw = decode_deep_tiff(file, path.name, notes) or decode(file, path.name, notes)
        colour = upright(to_srgb(raw, path.name, notes), raw.orientation)
        alpha = None if raw.alpha is None else upright(scaled(raw.alpha), raw.orientation)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    image = torch.from_numpy(colour.transpose(2, 0, 1).copy())
    plane = None if alpha is None else torch.from_numpy(alpha.copy())
    return Photo(image, plane, str(source), sha256, tuple(notes))


def is_image(path: Path) -> bool:
    """Whether a file's ending is one of a picture that `read` knows."""
    return path.is_file() and path.suffix.lower() in READABLE


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
    format_of(Path(path), bits, size)
    check_place(Path(path), overwrite)


def check_place(path: Path, overwrite: bool) -> None:
    """Raise what `check_output` does of a file's place, whatever its format."""
    if not path.parent.is_dir():
        raise ImageError(f"there is no folder {str(path.parent)!r} to write {path.name!r} in: make it first")
    if path.is_dir():
        raise ImageError(f"{str(path)!r} is a folder: give the name of a file to write")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"you may not write in {str(path.parent)!r}: choose another folder for {path.name!r}")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{str(path)!r} exists already: choose another name, or ask to overwrite it")


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
    try:
        write_atomically(path, encode_as(quantise(image, alpha, kind, bits), kind, recipe))
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)!r} could not be written: {error}") from error


def encode(image: Image, kind: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """The image (sRGB, 0..1, clamped) as the bytes of an 8 bit file, for notebooks and live views."""
    return encode_as(quantise(image, None, kind, 8), kind, "")


def read_recipe(path: str | Path) -> str:
    """Return the recipe of a picture of any size, or of a Deep Zoom pyramid's .dzi.

    Raises ImageError where there is none, or no picture.
    """
    path = Path(path)
    with opened(path, limited=False) as file:
        recipe = recipe_in(file.read()) if path.suffix.lower() == ".dzi" else _recipe_of(file)
    if not recipe:
        raise ImageError(f"{str(path)!r} carries no recipe: give a picture as Phosphene wrote it, not a copy")
    return str(recipe)


def _recipe_of(file: BufferedReader) -> str | None:
    with PIL.Image.open(file) as picture:
        return picture.info.get("phosphene") or recipe_in(picture.info.get("xmp", b""))
