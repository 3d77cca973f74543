"""Pictures larger than memory, from top to bottom.

libvips decodes PNG and JPEG in strips; a TIFF's pieces are decoded into a file that is mapped; and everything else is
decoded as `read` does, into memory. What the samples mean is found out as `read` does too, so a picture is the same
picture whatever its size.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phosphene import apart
from phosphene.errors import StoreError, UsageError
from phosphene.imagefile import checksum, headers
from phosphene.imagefile.colour import STRIP, colours_of, srgb_parts
from phosphene.imagefile.decode import decode, kind_of, shape_of, upright
from phosphene.imagefile.headers import Said
from phosphene.imagefile.opening import IMAGE, check_decoded, check_shape, locate, opened, refuse_no_picture
from phosphene.imagefile.raw import Array, Mapped, Raw, let_go
from phosphene.types import Size

TURNED = {2: "fliphor", 3: "rot180", 4: "flipver", 5: "rot90 fliphor", 6: "rot90", 7: "rot90 flipver", 8: "rot270"}
"""EXIF's orientations -> libvips's operations that undo them."""


@dataclass(frozen=True)
class Streamed:
    """A picture file that is not decoded yet: its size upright, whether it has alpha, and the SHA-256 of its bytes."""

    path: Path
    size: Size
    has_alpha: bool
    sha256: str

    def parts(self, scratch: Path, notes: list[str]) -> Iterator[tuple[slice, Array, Array | None]]:
        """Yield rows, sRGB colour [rows, columns, 3] and alpha [rows, columns] or None, float32 in 0..1.

        `scratch` is a folder with room for a TIFF's samples. Raises ImageError.
        """
        if apart.is_on():
            yield from self._parts_apart(scratch, notes)
            return
        with opened(self.path, limited=False) as file:
            kind = kind_of(file)
            said = {"PNG": headers.png_said, "JPEG": headers.jpeg_said}.get(kind)
            shallow = kind == "PNG" or (kind == "JPEG" and _is_common(file.read()))
            if said is not None and shallow:
                yield from _by_libvips(self.path, self.size, said(file), notes)
            else:
                raw = decode(file, self.path.name, notes, lambda shape, dtype: mapped(scratch, shape, dtype))
                height, width = upright(raw.samples, raw.orientation).shape[:2]
                check_decoded((height, width), self.size, self.path)
                for part in srgb_parts(raw, self.path.name, notes):
                    yield part
                    let_go(raw.samples)

    def _parts_apart(self, scratch: Path, notes: list[str]) -> Iterator[tuple[slice, Array, Array | None]]:
        mapped = IMAGE * self.size[0] * self.size[1]
        for told in apart.answers(_told_parts, self.path, self, scratch, mapped=mapped):
            notes[:] = told["notes"]
            yield slice(*told["rows"]), told["colour"], told["alpha"]


def _told_parts(path: Path, streamed: Streamed, scratch: Path) -> Iterator[apart.Answer]:
    notes = list[str]()
    for rows, colour, alpha in streamed.parts(scratch, notes):
        yield {"rows": (rows.start, rows.stop), "colour": colour, "alpha": alpha, "notes": notes}


def look(source: str | Path, room: int | None = None) -> Streamed:
    """Read the header of a picture file or sample, which may take `room` bytes to decode, or else what is free.

    Raises ImageError where it is no picture that can be read.
    """
    if apart.is_on():
        told = apart.answer(_told_header, source, room)
        height, width = told["size"]
        return Streamed(locate(str(source)), (height, width), told["has_alpha"], told["sha256"])
    path = locate(str(source))
    with opened(path, limited=False) as file:
        refuse_no_picture(file, path)
        shape, kind = shape_of(file), kind_of(file)
        in_parts = kind == "TIFF" or (kind in ("PNG", "JPEG") and shape.scans == 1)
        check_shape(shape, path, 0 if in_parts else 2 * shape.pixel, room, float("inf"))
    return Streamed(path, shape.size, shape.alpha, checksum(path))


def _told_header(source: str | Path, room: int | None) -> Iterator[apart.Answer]:
    streamed = look(source, room)
    yield {"size": streamed.size, "has_alpha": streamed.has_alpha, "sha256": streamed.sha256}


def mapped(scratch: Path, shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array in a file of a folder, which goes with the array. StoreError where there is no room for it."""
    length = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            if sys.platform != "darwin":  # a disk that fills up later would kill the process
                os.posix_fallocate(file.fileno(), 0, length)
            return Mapped(file, dtype, "w+", shape=shape)
    except OSError as error:
        raise StoreError(f"{scratch} could not be written: {error}") from error


def vips() -> Any:
    """libvips. Raises UsageError where it is not installed."""
    os.environ.setdefault("VIPS_DISC_THRESHOLD", "10m")  # a pyramid's levels above it wait in a file, not in memory
    try:
        import pyvips
    except ImportError:
        raise UsageError("images larger than memory need libvips: pip install 'phosphene[disk]'") from None
    pyvips.cache_set_max(0)  # what it remembers of a file keeps it open, and on disk, once it is removed
    return pyvips


def _by_libvips(path: Path, size: Size, said: Said, notes: list[str]) -> Iterator[tuple[slice, Array, Array | None]]:
    access = "sequential" if said.orientation not in TURNED else "random"
    picture = vips().Image.new_from_file(str(path), access=access, fail_on="error")
    for turn in TURNED.get(said.orientation, "").split():
        picture = getattr(picture, turn)()
    check_decoded((picture.height, picture.width), size, path)
    dtype, bands = (np.uint16 if picture.format == "ushort" else np.uint8), picture.bands
    alpha = bands == 2 or (bands == 4 and picture.interpretation != "cmyk")
    colours = colours_of(Raw(np.empty((0, 0, bands), dtype), np.iinfo(dtype).max, alpha, said.icc), path.name, notes)
    region = vips().Region.new(picture)
    for top in range(0, picture.height, STRIP):
        count = min(STRIP, picture.height - top)
        samples = np.frombuffer(region.fetch(0, top, picture.width, count), dtype)
        yield slice(top, top + count), *colours(samples.reshape(count, picture.width, bands))


def _is_common(data: bytes) -> bool:
    """Whether a JPEG has 8 bits and is coded with losses, as libvips wants it."""
    marker, bits, _ = headers.jpeg_frame(data)
    return bits == 8 and marker != 0xC3
