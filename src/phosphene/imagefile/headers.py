"""What a picture file says of itself before a pixel is decoded: kind, size, colours, and how it is to be turned.

Only what carries pixels is handed on to a decoder. What else a file holds (texts, thumbnails, a camera's notes) is read
here, where something broken in it costs itself alone and not the picture.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO, NamedTuple

import PIL.Image

from phosphene.types import Size

PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"

_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT")
_JPEG_PIXELS = {0xE0, 0xEE, *range(0xC0, 0xD0), 0xDB, 0xDD}  # JFIF's and Adobe's notes say what the numbers mean
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Where a pass of an interlaced PNG begins, and its steps: left, top, across, down, in px."""
_MOST_FILTER = 4
_SRGB_GAMMA, _SRGB_PRIMARIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)

DEFLATE = 1032
"""Bytes that a byte can mean in DEFLATE: https://zlib.net/zlib_tech.html."""

LZW = 2730
"""Bytes that a byte can mean in LZW: the longest code means 4096, and has 12 bits."""

HUFFMAN = 512
"""Pixels that a byte can mean in a JPEG: a block of 8 x 8 takes a bit or more."""

FLAT = 100_000
"""Pixels that we let a byte mean where the format knows no bound: a flat picture takes almost nothing in WebP, AVIF and
JPEG XL. At 8000 x 8000 px a black lossless WebP has 25,600, and an AVIF of quality 30 has 62,400."""

MOST_ICC = 2**24
"""Bytes of a colour profile that are read; the largest in use, of presses, have about 3 MB."""


class UndevelopedError(Exception):
    """A camera's raw file."""


class Shape(NamedTuple):
    """What a file declares: its size in px, and the bytes of a pixel once decoded.

    `per_byte` is how many pixels a byte of the file can mean at most, and `scans` in how many passes it is decoded: one
    that is decoded in several cannot be read in strips.
    """

    width: int
    height: int
    pixel: int
    alpha: bool = False
    orientation: int = 1
    per_byte: float = FLAT
    scans: int = 1

    @property
    def size(self) -> Size:
        """Height and width once it is upright."""
        sides = self.height, self.width
        return sides[::-1] if self.orientation in (5, 6, 7, 8) else sides


@dataclass(frozen=True)
class Said:
    """What a PNG or JPEG says of its colours, and of how it is to be turned."""

    icc: bytes | None = None
    orientation: int = 1


def kind_of(head: bytes) -> str:
    """Name the kind of a file by its first bytes: PNG, JPEG, TIFF, JXL, HEIF, or OTHER for what Pillow knows."""
    if head.startswith(PNG):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(_TIFF):
        return "TIFF"
    if head.startswith((b"\xff\x0a", _JXL)):
        return "JXL"
    if head[4:8] == b"ftyp" and any(brand in _HEIF for brand in brands(head)):
        return "HEIF"
    return "OTHER"


def brands(head: bytes) -> list[bytes]:
    """The names by which a file of ISO's media container says what it is."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[at : at + 4] for at in (8, *range(16, end, 4))]


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the tag, place and length of a PNG's chunks, as far as the file goes."""
    at = len(PNG)
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, tag = struct.unpack(">I4s", head)
        yield tag, at + 8, length
        if tag == b"IEND":
            return
        at += 12 + length


def png_shape(file: BinaryIO) -> Shape:
    """Read a PNG's size."""
    file.seek(16)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    channels = {0: 1, 4: 2, 2: 3, 3: 4}.get(colour, 4)
    per_byte = DEFLATE * 8 / (depth * (1 if colour == 3 else channels))
    alpha = colour in (4, 6) or any(tag == b"tRNS" for tag, _, _ in png_chunks(file))
    turned = png_said(file).orientation
    return Shape(width, height, channels * max(1, depth // 8), alpha, turned, per_byte, 7 if interlaced else 1)


def png_pixels(file: BinaryIO) -> bytes:
    """A PNG without what carries no pixels."""
    kept = [_read_at(file, at - 8, length + 12) for tag, at, length in png_chunks(file) if tag in _PNG_PIXELS]
    return b"".join([PNG, *kept])


def _read_at(file: BinaryIO, place: int, length: int) -> bytes:
    file.seek(place)
    return file.read(length)


def check_png(file: BinaryIO) -> None:
    """Raise ValueError where a PNG has too few samples or an unknown filter: libpng ends there, and frees nothing."""
    file.seek(16)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [
        (rows, 1 + -(-columns * channels * depth // 8))
        for left, top, across, down in (_ADAM7 if interlaced else [(0, 0, 1, 1)])
        if (rows := -(-(height - top) // down)) > 0 and (columns := -(-(width - left) // across)) > 0
    ]
    packed = b"".join(_read_at(file, at, length) for tag, at, length in png_chunks(file) if tag == b"IDAT")
    samples, start = zlib.decompressobj().decompress(packed, sum(rows * length for rows, length in passes)), 0
    for rows, length in passes:
        filters = samples[start : start + rows * length : length]
        start += rows * length
        if len(samples) < start or max(filters) > _MOST_FILTER:
            raise ValueError("not enough image data, or a filter that there is not")


def png_said(file: BinaryIO) -> Said:
    """Read a PNG's colours and orientation; its standard puts a profile before sRGB, and that before gamma."""
    found: dict[bytes, bytes] = {}
    for tag, at, length in png_chunks(file):
        if tag in (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf") and length <= MOST_ICC:
            found.setdefault(tag, _read_at(file, at, length))
    file.seek(25)
    grey = file.read(1) in (b"\0", b"\4")
    return Said(_png_icc(found, grey), orientation_of(found.get(b"eXIf", b"")))


def png_text(file: BinaryIO, key: bytes) -> str | None:
    """Read a text that is not compressed out of a PNG's iTXt chunks."""
    for tag, at, length in png_chunks(file):
        file.seek(at)
        if tag == b"iTXt" and file.read(len(key) + 3) == key + bytes(3):
            rest = file.read(length - len(key) - 3)
            return rest.split(b"\0", 2)[2].decode("utf-8", "replace")
    return None


def _png_icc(found: dict[bytes, bytes], grey: bool) -> bytes | None:
    if packed := found.get(b"iCCP", b"").partition(b"\0")[2][1:]:
        try:
            return zlib.decompressobj().decompress(packed, MOST_ICC)
        except zlib.error:
            return b"broken"
    if b"sRGB" in found or len(found.get(b"gAMA", b"")) != 4:
        return None
    gamma = int.from_bytes(found[b"gAMA"], "big")
    primaries = struct.unpack(">8I", found[b"cHRM"]) if len(found.get(b"cHRM", b"")) == 32 else _SRGB_PRIMARIES
    return _icc_of_gamma(gamma, primaries, grey)


def _icc_of_gamma(gamma: int, primaries: tuple[int, ...], grey: bool) -> bytes | None:
    """Make the profile that gAMA and cHRM mean, in their unit of 1 / 100,000; None where they mean sRGB."""
    near = all(abs(one - other) <= 100 for one, other in zip(primaries, _SRGB_PRIMARIES, strict=True))
    if (abs(gamma - _SRGB_GAMMA) <= 500 and (near or grey)) or not 1000 <= gamma <= 1_000_000:
        return None
    from imagecodecs import CmsError, cms_profile

    white, *others = ([x / 1e5, y / 1e5, 1.0] for x, y in zip(primaries[::2], primaries[1::2], strict=True))
    try:
        if grey:
            return bytes(cms_profile("gray", whitepoint=white, gamma=1e5 / gamma))
        return bytes(cms_profile("rgb", whitepoint=white, primaries=[*chain(*others)], gamma=1e5 / gamma))
    except (CmsError, ValueError):
        return b"broken"


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of a JPEG's segments up to its first scan, whose marker (0xDA) ends them."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 if marker in (0x01, *range(0xD0, 0xD8)) else at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, end
        if marker == 0xDA:
            return
        at = max(end, at + 2)


def jpeg_frame(data: bytes) -> tuple[int, int, Shape]:
    """Read a JPEG's marker of its process, its bits a channel, and its size. ValueError where it has none."""
    for marker, at, _ in jpeg_segments(data):
        if marker in _SOF and len(data) >= at + 10:
            bits, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            scans = data.count(b"\xff\xda", at) if marker in (0xC2, 0xC6, 0xCA, 0xCE) else 1
            per_byte = HUFFMAN if marker < 0xC8 else FLAT  # those above are arithmetic codes, which take no whole bits
            return (
                marker,
                bits,
                Shape(width, height, channels * (1 if bits == 8 else 2), per_byte=per_byte, scans=scans),
            )
    raise ValueError("it has no frame")


def jpeg_shape(file: BinaryIO) -> Shape:
    """Read a JPEG's size."""
    file.seek(0)
    return jpeg_frame(file.read())[2]._replace(orientation=jpeg_said(file).orientation)


def jpeg_pixels(file: BinaryIO) -> bytes:
    """A JPEG without what carries no pixels."""
    file.seek(0)
    data = file.read()
    kept, last = [data[:2]], 2
    for marker, at, end in jpeg_segments(data):
        if marker in _JPEG_PIXELS:
            kept.append(data[at:end])
        last = at if marker == 0xDA else end
    return b"".join([*kept, data[last:]])


def jpeg_said(file: BinaryIO) -> Said:
    """Read a JPEG's colours and orientation."""
    file.seek(0)
    data = file.read()
    parts, exif = dict[int, bytes](), b""
    for marker, at, end in jpeg_segments(data):
        body = data[at + 4 : end]
        if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            parts.setdefault(body[12], body[14:])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif = exif or body[6:]
    return Said(b"".join(parts[number] for number in sorted(parts)) or None, orientation_of(exif))


def orientation_of(exif: bytes) -> int:
    """Read the orientation out of EXIF data; broken EXIF turns nothing."""
    try:
        exif_of = PIL.Image.Exif()
        exif_of.load(exif)
        return int(exif_of.get(274, 1))
    except Exception:  # whatever Pillow stumbles over in what cameras and editors leave behind
        return 1
