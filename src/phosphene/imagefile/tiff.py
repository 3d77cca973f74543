"""TIFF: the largest picture of a file, in whatever way it is compressed."""

import math
import struct
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import tifffile
from imagecodecs import bitorder_decode

from phosphene.errors import ImageError
from phosphene.imagefile.headers import DEFLATE, FLAT, HUFFMAN, LZW, Shape, UndevelopedError
from phosphene.imagefile.raw import Array, Empty, Raw, let_go

MOST_PAGES, MOST_CHANNELS = 1000, 16
UNDEVELOPED = (32803, 34892)
"""Photometric interpretations of a camera's raw file: a colour filter's mosaic, and linear sensor values."""

PIECE = 2**24
"""Samples that are read at a time of a file that is not compressed."""

_OLD_JPEG, _JPEG = 6, 7
_PER_BYTE = {1: 8.0, _JPEG: HUFFMAN, 8: 8 * DEFLATE, 32946: 8 * DEFLATE, 32773: 8 * 64, 5: 8 * LZW}
"""Compression -> pixels of one bit that a byte means at most."""

_JPEGS, _SILENT = (_JPEG, 33007, 34892), (2, 3, 4, 22610, 34934)
"""Compressions whose decoders fill up what is cut short: JPEG with grey; fax with white, and JPEG XR with anything."""

_JPEGS_2000, _SIZ, _SIDES = (33003, 33004, 33005, 34712), b"\xff\x4f\xff\x51", struct.Struct(">II")
"""JPEG 2000: its compressions, how a codestream begins, and width and height 8 bytes on (ISO/IEC 15444-1, A.5.1)."""

_TAILS = (int("0010011010111" * 64, 2).to_bytes(104, "big"), int("1" + "0011010111" * 63 + "0", 2).to_bytes(79, "big"))
"""What no whole strip needs behind it: in a fax, runs of no white and 2 black pixels, in each of its two spellings."""


def shape(file: BinaryIO) -> Shape:
    """What the largest picture of a TIFF declares."""
    with tifffile.TiffFile(file) as tiff:
        page, _ = _largest(tiff)
        bits = 1 if page.compression == _JPEG else max(1, page.bitspersample * page.samplesperpixel)
        per_byte = max(1, _PER_BYTE.get(page.compression, FLAT) / bits)
        pixel = page.samplesperpixel * (page.dtype.itemsize if page.dtype else 1)
        alpha = _extra(page) in ((1,), (2,))
        return Shape(page.imagewidth, page.imagelength, pixel, alpha, _orientation(page), per_byte)


def decode(file: BinaryIO, name: str, notes: list[str], empty: Empty) -> Raw | None:
    """Decode the largest picture of a TIFF; None for colours that are left to Pillow.

    Raises UndevelopedError for a camera's raw file, and ImageError for what has more dimensions than a picture.
    """
    with tifffile.TiffFile(file) as tiff:
        page, note = _largest(tiff)
        palette = page.photometric == 3
        direct = page.photometric in (0, 1, 2, 3, 5) or (page.photometric == 6 and page.compression == _JPEG)
        if not direct or page.compression == _OLD_JPEG or page.dtype is None:
            if page is tiff.pages.first:
                return None
            raise ImageError(f"the largest picture in {name!r} is in colours that cannot be read: save it as RGB")
        _check(page, name)
        _check_ends(page)
        _check_codestreams(page)
        if note:
            notes.append(f"{name} has {note} is dreamed")
        samples = _planes_last(page, _read(page, empty(page.shape, page.dtype)))
    colours, extra = _colours(page), _extra(page)
    alpha = extra in ((1,), (2,))
    return Raw(
        samples[..., : colours + alpha],
        _white(page),
        alpha,
        page.iccprofile,
        _orientation(page),
        premultiplied=extra == (1,),
        inverted=page.photometric == 0,
        palette=_palette(page) if palette else None,
    )


def _colours(page: Any) -> int:
    return {2: 3, 5: 4, 6: 3}.get(page.photometric, 1)


def _extra(page: Any) -> tuple[int, ...]:
    """What the first channel beside the colours is: 1 is alpha that is multiplied in, 2 is alpha."""
    return tuple(page.extrasamples[:1]) if page.samplesperpixel > _colours(page) else ()


def _largest(tiff: Any) -> tuple[Any, str]:
    """The page with the most pixels, the first of those, and what there is to say of it."""
    pages = list(islice(tiff.pages, MOST_PAGES))
    every = [picture for page in pages for picture in (page, *_within(page))]
    if not every:
        raise ValueError("it has no page")
    if any(page.photometric in UNDEVELOPED for page in every):
        raise UndevelopedError
    largest = max(every, key=lambda page: page.imagewidth * page.imagelength)  # the first of several
    if not (isinstance(largest.imagewidth, int) and isinstance(largest.imagelength, int)):
        raise ValueError("its size is no whole number")
    _check_pieces(largest)
    whole = [page for page in pages if not page.is_reduced]
    if largest is not every[0] and (len(whole) == 1 or largest not in whole):
        given = f"{largest.imagewidth} x {largest.imagelength} pixels"
        return largest, f"{len(every)} pictures: its largest, of {given},"
    if len(whole) < 2:
        return largest, ""
    number = whole.index(largest) + 1
    return largest, f"{len(whole)} pages: its {'first page' if number == 1 else f'largest, page {number},'}"


def _check_pieces(page: Any) -> None:
    """Raise ValueError where strips or tiles are missing. One of 0 bytes is black (a sparse file), but not all are."""
    if page.is_contiguous or page.compression == _OLD_JPEG:  # of which the whole has one offset
        return
    pieces, placed = math.prod(page.chunked), min(len(page.dataoffsets), len(page.databytecounts))
    if placed < pieces or not any(page.databytecounts):
        raise ValueError(f"{placed} of its {pieces} strips or tiles are there, with {sum(page.databytecounts)} bytes")


def _check_codestreams(page: Any) -> None:
    """Raise ValueError where a JPEG 2000 within a TIFF is larger than its strip or tile: it is decoded as a whole."""
    if page.compression not in _JPEGS_2000:
        return
    columns, rows = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.imagelength)
    for data, index in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
        at = (data or b"").find(_SIZ)
        width, height = _SIDES.unpack_from(data, at + 8) if at >= 0 else (0, 0)
        if width > columns or height > rows:
            raise ValueError(f"strip or tile {index + 1} of {len(page.dataoffsets)} is larger than {columns} x {rows}")


def _check_ends(page: Any) -> None:
    """Raise ValueError where a strip or tile is cut short whose decoder would not say so."""
    if page.compression not in (*_JPEGS, *_SILENT):
        return
    is_cut = _is_cut_jpeg if page.compression in _JPEGS else partial(_wants_more, page)
    for data, index in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
        if data and is_cut(data, index):
            raise ValueError(f"strip or tile {index + 1} of {len(page.dataoffsets)} is cut short")


def _is_cut_jpeg(data: bytes, index: int) -> bool:
    """Whether there is no end of image (FF D9) behind the last scan (FF DA)."""
    return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _wants_more(page: Any, data: bytes, index: int) -> bool:
    """Whether a piece is decoded to something else if there is more behind it."""
    found = page.decode(data, index)[0]
    tails = map(bitorder_decode, _TAILS) if page.fillorder == 2 else _TAILS
    return any(not np.array_equal(page.decode(data + tail, index)[0], found) for tail in tails)


def _within(page: Any) -> list[Any]:
    """The pictures within a page, if they can be read: one that cannot costs itself alone."""
    try:
        return list(page.pages or ())
    except Exception:
        return []


def _check(page: Any, name: str) -> None:
    if 0 in page.shape:
        raise ValueError(f"a size of {' x '.join(map(str, page.shape))}")
    if page.imagedepth > 1 or page.samplesperpixel > MOST_CHANNELS:
        given = f"{page.samplesperpixel} channels and a depth of {page.imagedepth}"
        raise ImageError(f"{name!r} has {given}: give a TIFF with grey or RGB")


def _read(page: Any, samples: Array) -> Array:
    """Read the samples of a page, piece by piece, so that not all are in memory where they are mapped from a file."""
    if not page.is_memmappable:
        page.asarray(out=samples)
        return samples
    source, target = page.asarray(out="memmap").reshape(-1), samples.reshape(-1)
    for begin in range(0, len(target), PIECE):
        target[begin : begin + PIECE] = source[begin : begin + PIECE]
        let_go(source)
    return samples


def _planes_last(page: Any, samples: Array) -> Array:
    samples = np.moveaxis(samples, 0, -1) if page.axes.startswith("S") else samples
    return samples.reshape(page.imagelength, page.imagewidth, -1)


def _white(page: Any) -> float:
    if page.dtype.kind in "iu":
        return float(2 ** (page.bitspersample - (page.dtype.kind == "i")) - 1)
    return 1


def _palette(page: Any) -> Array:
    """Colours [numbers, 3] with 65535 for 1; some writers put the 8 bits that they have into the upper half."""
    colours = np.asarray(page.colormap).T.astype(np.uint32)
    if not (colours % 256).any():
        colours = colours // 256 * 257
    return colours.astype(np.uint16)


def _orientation(page: Any) -> int:
    value = page.tags.valueof(274, 1)
    return value if isinstance(value, int) else 1
