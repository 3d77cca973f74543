"""Bytes to samples. Pillow holds colours in 8 bits, so tifffile and imagecodecs decode what is deeper."""

import struct
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from phosphene.imagefile import opening

Array = NDArray[Any]

PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Raw:
    """What a decoder found: arrays of uint8, or of float32 in 0..1 where the file is deeper.

    `colour` is [height, width, channels]: 1 is grey, 3 is RGB, 4 is CMYK. `alpha` is [height, width].
    """

    colour: Array
    alpha: Array | None
    icc: bytes | None
    orientation: int


def decode(file: BufferedReader, name: str, notes: list[str]) -> Raw:
    """Decode what Pillow opens, with 16 bits where a PNG has them."""
    file.seek(0)
    with PIL.Image.open(file) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format in ("GIF", "PNG", "WEBP", "AVIF"):
            notes.append(f"{name} is animated ({frames} frames): its first frame is dreamed")
        elif frames > 1 and picture.format == "TIFF":
            notes.append(f"{name} has {frames} pages: its first page is dreamed")
        picture.load()
        colour, alpha = _deep_png(file, name, notes) or _deep_grey(picture, name, notes) or _split(picture)
        return Raw(colour, alpha, picture.info.get("icc_profile"), _orientation(picture))


def _split(picture: PIL.Image.Image) -> tuple[Array, Array | None]:
    """Colour as grey, RGB or CMYK, and alpha, both uint8; colour under clear pixels is kept as it is."""
    grey, alpha = picture.mode in ("1", "L", "LA", "La"), None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = np.asarray(picture.getchannel("A"))
    colour = np.asarray(picture if picture.mode == "CMYK" else picture.convert("RGB"))
    return (colour[..., :1] if grey else colour), alpha


def _deep_grey(picture: PIL.Image.Image, name: str, notes: list[str]) -> tuple[Array, None] | None:
    """Pillow's modes of more than 8 bits, all grey; None for the others."""
    if not picture.mode.startswith(("I", "F")):
        return None
    samples = np.asarray(picture)[..., None]
    if picture.mode == "I":  # 32 bits wide, but what Pillow puts there has 16
        samples = samples.clip(0, 65535).astype(np.uint16)
    return _unit(samples, 16, name, notes), None


def _deep_png(file: BufferedReader, name: str, notes: list[str]) -> tuple[Array, Array | None] | None:
    """Colour and alpha of a PNG of 16 bits, which Pillow would cut to 8; None for other files."""
    file.seek(0)
    head = file.read(25)
    if head[:8] != PNG or head[24] != 16:
        return None
    from imagecodecs import png_decode

    samples = _unit(np.atleast_3d(png_decode(head + file.read())), 16, name, notes)
    if samples.shape[2] in (1, 3):
        return samples, None
    return samples[..., :-1], samples[..., -1]


def decode_deep_tiff(file: BufferedReader, name: str, notes: list[str]) -> Raw | None:
    """A grey or RGB TIFF of more than 8 bits, which Pillow would cut or refuse; None for other files."""
    if file.read(4) not in _TIFF:
        return None
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page, pages = tiff.pages.first, len(tiff.pages)
        if page.photometric not in (0, 1, 2) or page.dtype is None or page.dtype.itemsize == 1:
            return None
        if page.imagewidth * page.imagelength > opening.MAX_PIXELS:
            raise PIL.Image.DecompressionBombError
        samples = page.asarray()
    if pages > 1:
        notes.append(f"{name} has {pages} pages: its first page is dreamed")
    samples = np.moveaxis(samples, 0, -1) if page.axes.startswith("S") else samples
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    channels, extra = (3 if page.photometric == 2 else 1), page.extrasamples[:1]
    colour, alpha = _unit(samples[..., :channels], page.bitspersample, name, notes), None
    if extra in ((1,), (2,)):
        alpha = _unit(samples[..., channels], page.bitspersample, name, notes)
    if alpha is not None and extra == (1,):  # premultiplied
        colour = (colour / np.where(alpha > 0, alpha, 1)[..., None]).clip(0, 1)
    if page.photometric == 0:  # white is zero
        colour = 1 - colour
    return Raw(colour, alpha, page.iccprofile, page.tags.valueof(274, 1))


def _unit(samples: Array, bits: int, name: str, notes: list[str]) -> Array:
    """Samples as float32 in 0..1. Floats are there already, or else are divided by their greatest."""
    unit: Array = np.nan_to_num(samples.astype(np.float32), nan=0, posinf=0, neginf=0).clip(0)
    if samples.dtype.kind in "iu":
        unit /= 2 ** (bits - (samples.dtype.kind == "i")) - 1
        return unit
    greatest = float(unit.max())
    if greatest <= 1:
        return unit
    notes.append(f"{name} holds numbers up to {greatest:g} where 1 is white: they were divided by that")
    return unit / greatest


def scaled(samples: Array) -> Array:
    """Samples as float32 in 0..1, whether they are uint8 or that already."""
    return samples / np.float32(255) if samples.dtype == np.uint8 else samples


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(274, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):  # broken EXIF turns nothing
        return 1


def upright(plane: Array, orientation: int) -> Array:
    """Turn [height, width, ...] as EXIF orientations 2 to 8 ask; any other number turns nothing."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return plane
