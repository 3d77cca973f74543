"""Picture files of any size, to rasters and back, in strips; libvips decodes and encodes."""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from phosphene.disk import deepzoom
from phosphene.disk.raster import STRIP, Part, Raster
from phosphene.disk.strips import Block, cut
from phosphene.dreaming.exact_sums import SEGMENT
from phosphene.dreaming.tiling import round_up
from phosphene.errors import ImageError, SettingsError, StoreError, UsageError
from phosphene.imagefile import streaming
from phosphene.imagefile.colour import srgb_icc
from phosphene.imagefile.encode import xmp_of
from phosphene.imagefile.streaming import Streamed, vips

SAVERS: dict[str, dict[str, Any]] = {
    ".tif": {"compression": "deflate", "predictor": "horizontal", "tile": True, "pyramid": True, "bigtiff": True},
    ".png": {"compression": 6},
    ".jpg": {"Q": 95, "subsample_mode": "off"},
    ".dzi": {},
}
"""Endings that can be written, and libvips's options for them. A TIFF has its own pyramid; see `deepzoom` for .dzi."""
ALIASES = {".tiff": ".tif", ".jpeg": ".jpg"}
DEEP = (".tif", ".png")


def look(source: str | Path, room: int | None = None) -> Streamed:
    """Read the header of a picture file or sample, of which decoding may take `room` bytes, or else what is free.

    `ImageError` where it is no picture, or takes more; `UsageError` where it is a noise.
    """
    if str(source).startswith("noise:"):
        raise UsageError(
            f"{str(source)!r} is made in memory and cannot be streamed: allow more --memory, or give a file"
        )
    return streaming.look(source, room)


def decoded(photo: Streamed, scratch: Path) -> Iterator[tuple[Block, Part]]:
    """Decode from top to bottom: a block, and its colours and alpha [3 or 4, rows, columns], sRGB, 0..1.

    `scratch` is a folder with room for what cannot be decoded in that order. `StoreError` where it has none.
    """
    for rows, colour, alpha in photo.parts(scratch, []):
        samples = colour if alpha is None else np.concatenate([colour, alpha[..., None]], axis=2)
        for columns in cut(samples.shape[1], SEGMENT):
            part = np.ascontiguousarray(samples[:, columns].transpose(2, 0, 1))
            yield (rows, columns), torch.from_numpy(part)


def check_ending(path: Path, bits: int) -> str:
    """Return the kind of file that an ending means; `SettingsError` where it cannot be written in strips."""
    ending = ALIASES.get(path.suffix.lower(), path.suffix.lower())
    if ending not in SAVERS:
        known = ", ".join([*SAVERS, *ALIASES])
        raise SettingsError(f"{path.name!r} cannot be written in strips: its ending must be one of {known}")
    if bits == 16 and ending not in DEEP:
        raise SettingsError(f"{path.name!r} cannot hold 16 bits: use .png or .tif, or ask for 8 bits")
    return ending


def pack(parts: Iterable[Part], shape: tuple[int, int, int], bits: int, path: Path) -> None:
    """Round a picture [channels, height, width] to the levels of a file, in a TIFF that libvips reads piece by piece.

    `parts` are its `blocks`, in their order.
    """
    channels, height, width = shape
    kind = np.dtype(np.uint16 if bits == 16 else np.uint8)
    levels = ((part.clamp(0, 1) * (2**bits - 1)).round().permute(1, 2, 0).numpy().astype(kind) for part in parts)
    tifffile.imwrite(
        path,
        levels,
        shape=(height, width, channels),
        dtype=kind,
        tile=(min(STRIP, round_up(height, 16)), min(SEGMENT, round_up(width, 16))),
        photometric="rgb",
        extrasamples=["unassalpha"] * (channels - 3),
        bigtiff=True,
        metadata=None,
    )


def save(levels: Path, bits: int, path: Path, recipe: str) -> None:
    """Encode packed levels as the file's ending says, with the recipe inside; the file comes whole or not at all."""
    ending = check_ending(path, bits)
    with _as_image_error(path, "written"):
        packed = vips().Image.new_from_file(str(levels), access="sequential", revalidate=True)
        picture = _with_recipe(packed, recipe)
        if picture.bands == 4 and ending in (".jpg", ".dzi"):
            picture = picture.flatten(background=255)
        if ending == ".dzi":
            return deepzoom.save(picture, path, recipe, levels.parent)
        with _put_in_place(path) as temporary:
            savers = {".tif": picture.tiffsave, ".png": picture.pngsave, ".jpg": picture.jpegsave}
            savers[ending](str(temporary), **SAVERS[ending])


def thumbnail(path: Path, target: Path, side: int) -> None:
    """Write a picture's thumbnail, `side` px long at most; a pyramid's level is read where the file has one."""
    with _as_image_error(path), _put_in_place(target) as temporary:
        vips().Image.thumbnail(str(path), side, size="down").write_to_file(str(temporary))


def _with_recipe(picture: Any, recipe: str) -> Any:
    libvips, picture = vips(), picture.copy()
    picture.set_type(libvips.GValue.blob_type, "icc-profile-data", srgb_icc())
    picture.set_type(libvips.GValue.blob_type, "xmp-data", xmp_of(recipe))
    picture.set_type(libvips.GValue.gstr_type, "png-comment-0-phosphene", recipe)
    return picture


@contextmanager
def _put_in_place(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write under, and rename it when all went well."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".phosphene-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"{str(path)!r} could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_blocks(photo: Streamed, colours: Raster, alpha: Raster | None) -> None:
    """Decode a picture into rasters of its size."""
    for block, part in decoded(photo, colours.path.parent):
        colours.write(part[:3], *block)
        if alpha is not None:
            alpha.write(part[3:], *block)


@contextmanager
def _as_image_error(path: Path, verb: str = "read") -> Iterator[None]:
    try:
        yield
    except vips().Error as error:
        reason = " ".join(error.detail.split())
        raise ImageError(f"{str(path)!r} could not be {verb}; it may be broken or cut off: {reason}") from error
