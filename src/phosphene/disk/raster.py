"""A picture on disk: float32 in a file for each chunk, read and written by rows and columns.

    photograph/raster.json    shape, chunk, and mark
    photograph/c/2-0          the chunk in the third row and the first column: [channels, rows, columns], and its seal

A seal is a CRC-32 over what is written, its place, and the raster's mark. So a flipped bit is found out, two chunks
that changed places, and one that is left of an older raster under the same name.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imagecodecs import deflate_crc32  # three times as fast as zlib's
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.resample import wrapped
from phosphene.errors import StoreError
from phosphene.types import Shift, Size

STRIP = 128
"""Rows of a chunk, and of the strips in which pictures are worked on."""

CHUNK_COLUMNS = 256

HEADER = "raster.json"

SEAL = 4
"""Bytes of a seal, behind what it seals."""

Part = Float[Tensor, "channels rows columns"]
Block = tuple[slice, slice]
"""Rows and columns."""

Numbers = Float[np.ndarray[Any, Any], "channels rows columns"]


@dataclass(frozen=True)
class Raster:
    """A picture [channels, height, width] in a folder of its own; it travels between processes as the folder's name.

    `chunk` is how many rows and columns a chunk has. `mark` tells it from an older one under the same name.
    """

    path: Path
    shape: tuple[int, int, int]
    chunk: Size
    mark: str

    @property
    def size(self) -> Size:
        """Height and width, in px."""
        return self.shape[1], self.shape[2]

    def read(self, rows: slice, columns: slice = slice(None)) -> Part:
        """Read a part. `StoreError` where a chunk is missing or damaged."""
        down, across = range(self.shape[1])[rows], range(self.shape[2])[columns]
        numbers = np.empty((self.shape[0], len(down), len(across)), np.float32)
        with _as_store_error(self.path, "read"):
            for place, inside, part in self._chunks(down, across):
                numbers[:, *part] = self._chunk(place)[:, *inside]
        if np.isnan(numbers.max()):
            raise StoreError(
                f"{self.path} misses a chunk in rows {rows.start} to {rows.stop}; start the dream again from its input"
            )
        return torch.from_numpy(numbers)

    def write(self, numbers: Part, rows: slice, columns: slice = slice(None)) -> None:
        """Write a part. Parts that several processes write at a time must not share a chunk."""
        down, across = range(self.shape[1])[rows], range(self.shape[2])[columns]
        values = numbers.numpy(force=True)
        with _as_store_error(self.path, "write"):
            for place, inside, part in self._chunks(down, across):
                chunk = values[:, *part]
                if chunk.shape != self._shape(place):
                    chunk = self._chunk(place).copy()
                    chunk[:, *inside] = values[:, *part]
                _put(self._file(place), np.ascontiguousarray(chunk, np.float32).data.cast("B"), self._name(place))

    def read_rolled(self, rows: slice, columns: slice, shift: Shift) -> Part:
        """Read a part of this picture rolled by `shift`; the picture is not moved."""
        bands = [
            torch.cat([self.read(down, across) for across in wrapped(columns, shift[1], self.shape[2])], dim=2)
            for down in wrapped(rows, shift[0], self.shape[1])
        ]
        return torch.cat(bands, dim=1)

    def _chunks(self, rows: range, columns: range) -> Iterator[tuple[Size, Block, Block]]:
        """The places of chunks that a part meets, and where they meet: inside the chunk, and of the part."""
        for row, inside_rows, part_rows in _met(rows, self.chunk[0]):
            for column, inside_columns, part_columns in _met(columns, self.chunk[1]):
                yield (row, column), (inside_rows, inside_columns), (part_rows, part_columns)

    def _chunk(self, place: Size) -> Numbers:
        """Read a chunk; NaN where nothing was written."""
        try:
            data = _get(self._file(place), self._name(place))
        except FileNotFoundError:
            return np.full(self._shape(place), np.nan, np.float32)
        return np.frombuffer(data, np.float32).reshape(self._shape(place))

    def _shape(self, place: Size) -> tuple[int, int, int]:
        """The shape of a chunk, which is smaller at the lower and right edges."""
        lengths = zip(place, self.chunk, self.size, strict=True)
        rows, columns = (min(side, length - number * side) for number, side, length in lengths)
        return self.shape[0], rows, columns

    def _file(self, place: Size) -> Path:
        return self.path / "c" / "{}-{}".format(*place)

    def _name(self, place: Size) -> str:
        return "{}-{} of {}".format(*place, self.mark)


@dataclass(frozen=True)
class Rolled:
    """A raster as it is when it is rolled by `shift`; it is not moved."""

    raster: Raster
    shift: Shift

    def read(self, rows: slice, columns: slice) -> Part:
        """Read a part."""
        return self.raster.read_rolled(rows, columns, self.shift)

    def write(self, numbers: Part, rows: slice, columns: slice) -> None:
        """Refuse: the picture that is looked at stays as it is."""
        raise StoreError(f"{self.raster.path} is only read")


def create(path: Path, shape: tuple[int, int, int], chunk: Size = (STRIP, CHUNK_COLUMNS)) -> Raster:
    """Make a raster of which nothing is written yet, in place of any that is there."""
    raster = Raster(path, shape, chunk, secrets.token_hex(8))
    header = json.dumps({"shape": shape, "chunk": chunk, "mark": raster.mark})
    with _as_store_error(path, "write"):
        remove(path)
        (path / "c").mkdir(parents=True)
        _put(path / HEADER, header.encode(), HEADER)
    return raster


def reopen(path: Path) -> Raster:
    """Find the raster that is at `path`."""
    if path.parent.is_dir() and not (path / HEADER).exists():
        raise StoreError(f"{path / HEADER} was lost, and the dream cannot go on: remove {path.parent}, and begin again")
    with _as_store_error(path, "read"):
        header = json.loads(bytes(_get(path / HEADER, HEADER)))
    return Raster(path, tuple(header["shape"]), tuple(header["chunk"]), header["mark"])


def rename(picture: Raster, name: str) -> Raster:
    """Give a raster another name in its folder, in place of any that has it."""
    target = picture.path.with_name(name)
    remove(target)
    with _as_store_error(target, "write"):
        picture.path.rename(target)
    return replace(picture, path=target)


def remove(path: Path) -> None:
    """Remove a raster, if there is one."""
    if path.exists():
        shutil.rmtree(path)


def _met(part: range, side: int) -> Iterator[tuple[int, slice, slice]]:
    """The chunks of an axis that a part meets: number, where in the chunk, and where in the part."""
    for number in range(part.start // side, -(-part.stop // side)):
        begin, end = max(part.start, number * side), min(part.stop, (number + 1) * side)
        yield (
            number,
            slice(begin - number * side, end - number * side),
            slice(begin - part.start, end - part.start),
        )


def _put(path: Path, data: bytes | memoryview, name: str) -> None:
    """Write a file with its seal; whole or not at all, should the process be killed."""
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.write(_seal(data, name))
    aside.replace(path)


def _get(path: Path, name: str) -> memoryview:
    """Read what was written under a name. `ValueError` where it is not that."""
    whole = memoryview(path.read_bytes())
    if whole[-SEAL:] != _seal(whole[:-SEAL], name):
        raise ValueError(
            f"{path.name} is damaged or in a wrong place; the photograph is not touched: begin again from it"
        )
    return whole[:-SEAL]


def _seal(data: bytes | memoryview, name: str) -> bytes:
    crc: int = deflate_crc32(data, deflate_crc32(name.encode()))  # type: ignore[arg-type]  # any buffer will do
    return crc.to_bytes(SEAL, "big")


@contextmanager
def _as_store_error(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} could not be {verb.replace('write', 'written')}: {error}") from error
