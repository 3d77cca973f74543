"""An `Image` to bytes, with the recipe inside, and bytes to a file, whole or not at all."""

import os
import secrets
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image
import torch
from PIL import features

from phosphene.errors import SettingsError
from phosphene.imagefile.colour import srgb_icc
from phosphene.imagefile.headers import PNG
from phosphene.imagefile.raw import Array
from phosphene.types import Image, Plane, Size

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
"""Endings that can be written -> Pillow's name of the format."""
if features.check("avif"):
    FORMATS[".avif"] = "AVIF"

_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 65535}
_LOSSY: dict[str, dict[str, Any]] = {
    # Dreams are full of fine colour, so it keeps its full resolution; lossy WebP has no such choice.
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
}
_RECIPE = "{urn:phosphene:}recipe"


def format_of(path: Path, bits: int, size: Size | None) -> str:
    """Name the format of a file's ending; `SettingsError` where it cannot hold `bits`, or a picture of `size`."""
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise SettingsError(f"{path.name!r} cannot be written: its ending must be one of {', '.join(FORMATS)}")
    if bits == 16 and kind not in ("PNG", "TIFF"):
        raise SettingsError(f"{path.name!r} cannot hold 16 bits: use .png or .tif, or ask for 8 bits")
    longest = _LONGEST_SIDE.get(kind)
    if size and longest and max(size) > longest:
        given = f"{size[1]} x {size[0]} pixels"
        raise SettingsError(f"{path.name!r} cannot hold {given}, only {longest} a side: use .png or .tif")
    return kind


def quantise(image: Image, alpha: Plane | None, kind: str, bits: int) -> Array:
    """[height, width, 3 or 4], uint8 or uint16, rounded; laid on white where the format has no alpha."""
    pixels = image.detach().float().cpu().clamp(0, 1)
    if alpha is not None:
        opacity = alpha.detach().float().cpu().clamp(0, 1)
        pixels = 1 - opacity * (1 - pixels) if kind == "JPEG" else torch.cat([pixels, opacity[None]])
    levels: Array = (pixels * (2**bits - 1)).round().permute(1, 2, 0).contiguous().numpy()
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def encode_as(pixels: Array, kind: str, recipe: str) -> bytes:
    """Encode samples as `quantise` makes them, in a format by Pillow's name for it."""
    if kind == "PNG":
        return encode_png(pixels, recipe)
    xmp = xmp_of(recipe) if recipe else b""
    if kind == "TIFF":
        return _encode_tiff(pixels, xmp)
    out = BytesIO()
    PIL.Image.fromarray(pixels).save(out, kind, icc_profile=srgb_icc(), xmp=xmp, **_LOSSY[kind])
    return out.getvalue()


def encode_png(pixels: Array, recipe: str) -> bytes:
    """An 8 or 16 bit PNG, which Pillow cannot write in colour; rows are stored as differences (filter 1)."""
    height, width, channels = pixels.shape
    depth = pixels.dtype.itemsize
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    lines = np.concatenate([np.ones((height, 1), np.uint8), rows], axis=1)
    lines[:, 1 + depth * channels :] -= rows[:, : -depth * channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * depth, {3: 2, 4: 6}[channels], 0, 0, 0)
    text = [(b"iTXt", b"phosphene\0\0\0\0\0" + recipe.encode())] if recipe else []
    data = (b"IDAT", zlib.compress(lines.tobytes()))
    chunks = [(b"IHDR", header), (b"sRGB", b"\0"), *text, data, (b"IEND", b"")]
    return PNG + b"".join(
        struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in chunks
    )


def _encode_tiff(pixels: Array, xmp: bytes) -> bytes:
    import tifffile

    out = BytesIO()
    tifffile.imwrite(
        out,
        pixels,
        photometric="rgb",
        extrasamples=["unassalpha"] if pixels.shape[2] == 4 else None,
        compression="zlib",
        predictor=True,
        iccprofile=srgb_icc(),
        software="Phosphene",
        metadata=None,
        extratags=[(700, "B", len(xmp), xmp, True)] if xmp else [],  # 700 is the tag of XMP
    )
    return out.getvalue()


def xmp_of(recipe: str) -> bytes:
    """Spell an XMP packet that holds a recipe."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="">{xml_of(recipe)}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def xml_of(recipe: str) -> str:
    """Spell an XML element that holds a recipe."""
    text = escape(recipe, {"\r": "&#13;"})
    return f'<phosphene:recipe xmlns:phosphene="urn:phosphene:">{text}</phosphene:recipe>'


def recipe_in(xml: bytes) -> str | None:
    """Find the recipe in an XMP packet, or another XML text."""
    try:
        nodes = ElementTree.fromstring(xml).iter()
    except ElementTree.ParseError:
        return None
    # an editor that saves XMP again may turn the element into an attribute
    return next((text for node in nodes if (text := node.text if node.tag == _RECIPE else node.get(_RECIPE))), None)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, and rename it when it is whole; what was there is kept until then.

    A symbolic link stays, and what it points to is written.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".phosphene-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
