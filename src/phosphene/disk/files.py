"""Pictures of any size, to rasters and back, in strips; libvips encodes."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from phosphene.disk import deepzoom
from phosphene.disk.raster import STRIP, Block, Part, Raster
from phosphene.disk.strips import blocks, cut
from phosphene.dreaming.exact_sums import SEGMENT
from phosphene.dreaming.tiling import round_up
from phosphene.errors import ImageError, StoreError
from phosphene.imagefile import Photo
from phosphene.imagefile.colour import srgb_icc
from phosphene.imagefile.encode import xmp_of
from phosphene.imagefile.formats import DEEP_ZOOM, Format
from phosphene.imagefile.replacing import replacing
from phosphene.imagefile.streaming import Streamed, vips

logger = logging.getLogger(__name__)


def decoded(photo: Photo | Streamed, scratch: Path) -> Iterator[tuple[Block, Part]]:
    """Yield a block after the other, and its colours and alpha [3 or 4, rows, columns], sRGB, 0..1, from top to bottom.

    `scratch` is a folder with room for what cannot be decoded in that order. `StoreError` where it has none.
    """
    if isinstance(photo, Photo):
        planes = photo.image if photo.alpha is None else torch.cat([photo.image, photo.alpha[None]])
        yield from ((block, planes[:, block[0], block[1]]) for block in blocks(photo.size))
        return
    notes: list[str] = []
    for rows, colour, alpha in photo.parts(scratch, notes):
        samples = colour if alpha is None else np.concatenate([colour, alpha[..., None]], axis=2)
        for columns in cut(samples.shape[1], SEGMENT):
            part = np.ascontiguousarray(samples[:, columns].transpose(2, 0, 1))
            yield (rows, columns), torch.from_numpy(part)
    for note in notes:
        logger.warning("%s: %s", photo.path, note)


def pack(parts: Iterable[Part], shape: tuple[int, int, int], bits: int, path: Path) -> None:
    """Round a picture [channels, height, width] to the levels of a file, in a TIFF that libvips reads piece by piece.

    `parts` are its `blocks` of STRIP rows, in their order.
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


def save(levels: Path, kind: Format, path: Path, recipe: str) -> None:
    """Encode packed levels in a format, with the recipe inside; the file comes whole or not at all."""
    with _as_our_errors(path):
        packed = vips().Image.new_from_file(str(levels), access="sequential")
        picture = _with_recipe(packed, recipe)
        if picture.bands == 4 and not kind.alpha:
            picture = picture.flatten(background=255)
        if kind is DEEP_ZOOM:
            return deepzoom.save(picture, path, recipe)
        encode = getattr(picture, f"{kind.name.lower()}save")  # pngsave, tiffsave, ...
        with replacing(path) as temporary:
            encode(str(temporary), **(kind.strips or {}))


def _with_recipe(picture: Any, recipe: str) -> Any:
    libvips, picture = vips(), picture.copy()
    picture.set_type(libvips.GValue.blob_type, "icc-profile-data", srgb_icc())
    picture.set_type(libvips.GValue.blob_type, "xmp-data", xmp_of(recipe))
    picture.set_type(libvips.GValue.gstr_type, "png-comment-0-phosphene", recipe)
    return picture


def write_blocks(photo: Photo | Streamed, colours: Raster, alpha: Raster | None) -> None:
    """Decode a picture into rasters of its size."""
    for block, part in decoded(photo, colours.path.parent):
        colours.write(part[:3], *block)
        if alpha is not None:
            alpha.write(part[3:], *block)


@contextmanager
def _as_our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{str(path)!r} could not be written: {error}") from error
    except vips().Error as error:
        reason = " ".join(error.detail.split())
        raise ImageError(f"{str(path)!r} could not be written: {reason}") from error
