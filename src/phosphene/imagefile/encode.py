"""An `Image` to bytes, with the recipe inside."""

import struct
import zlib
from io import BytesIO
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import PIL.Image
import torch

from phosphene.imagefile import formats
from phosphene.imagefile.colour import srgb_icc
from phosphene.imagefile.formats import Format
from phosphene.imagefile.headers import PNG
from phosphene.imagefile.raw import Array
from phosphene.types import Image, Plane

_RECIPE = "{urn:phosphene:}recipe"


def quantise(image: Image, alpha: Plane | None, kind: Format, bits: int) -> Array:
    """[height, width, 3 or 4], uint8 or uint16, rounded; laid on white where the format has no alpha."""
    pixels = image.detach().float().cpu().clamp(0, 1)
    if alpha is not None:
        opacity = alpha.detach().float().cpu().clamp(0, 1)
        pixels = 1 - opacity * (1 - pixels) if not kind.alpha else torch.cat([pixels, opacity[None]])
    levels: Array = (pixels * (2**bits - 1)).round().permute(1, 2, 0).contiguous().numpy()
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def encode_as(pixels: Array, kind: Format, recipe: str) -> bytes:
    """Encode samples as `quantise` makes them, in a format."""
    if kind is formats.PNG:
        return encode_png(pixels, recipe)
    xmp = xmp_of(recipe) if recipe else b""
    if kind is formats.TIFF:
        return _encode_tiff(pixels, xmp)
    out = BytesIO()
    PIL.Image.fromarray(pixels).save(out, kind.name, icc_profile=srgb_icc(), xmp=xmp, **(kind.whole or {}))
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
