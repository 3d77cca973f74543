"""A picture on disk: float32 in a chunked zarr array, read and written by rows and columns."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.resample import wrapped
from phosphene.errors import StoreError
from phosphene.types import Shift, Size

STRIP = 128
"""Rows of a chunk, and of the strips in which pictures are worked on."""

CHUNK_COLUMNS = 256

Part = Float[Tensor, "channels rows columns"]


@dataclass(frozen=True)
class Raster:
    """A picture [channels, height, width] in a folder of its own; it travels between processes as the folder's name.

    `mark` tells it from an older one under the same name, which another process may still have open.
    """

    path: Path
    shape: tuple[int, int, int]
    mark: str

    @property
    def size(self) -> Size:
        """Height and width, in px."""
        return self.shape[1], self.shape[2]

    def read(self, rows: slice, columns: slice = slice(None)) -> Part:
        """Read a part. `StoreError` where a chunk is missing or damaged."""
        with _as_store_error(self.path, "read"):
            numbers = torch.from_numpy(_opened(self.path, self.mark)[:, rows, columns])
        if numbers.amax().isnan():
            raise StoreError(
                f"{self.path} misses a chunk in rows {rows.start} to {rows.stop}; start the dream again from its input"
            )
        return numbers

    def write(self, numbers: Part, rows: slice, columns: slice = slice(None)) -> None:
        """Write a part. Parts that several processes write at a time must not share a chunk."""
        with _as_store_error(self.path, "write"):
            _opened(self.path, self.mark)[:, rows, columns] = numbers.cpu().numpy()

    def read_rolled(self, rows: slice, columns: slice, shift: Shift) -> Part:
        """Read a part of this picture rolled by `shift`; the picture is not moved."""
        bands = [
            torch.cat([self.read(down, across) for across in wrapped(columns, shift[1], self.shape[2])], dim=2)
            for down in wrapped(rows, shift[0], self.shape[1])
        ]
        return torch.cat(bands, dim=1)


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
    """Make an empty raster, in place of any that is there.

    What was never written is NaN, so that a chunk that is lost is found out. Chunks carry a checksum that knows their
    place, and this array from any other.
    """
    import zarr

    from phosphene.disk.sealed import Sealed

    mark = secrets.token_hex(8)
    with _as_store_error(path, "write"):
        remove(path)
        zarr.create_array(
            Sealed(zarr.storage.LocalStore(path)),
            shape=shape,
            chunks=(shape[0], min(chunk[0], shape[1]), min(chunk[1], shape[2])),
            dtype="float32",
            fill_value=float("nan"),
            compressors=None,
            attributes={"mark": mark},
        )
    return Raster(path, shape, mark)


def reopen(path: Path) -> Raster:
    """Find the raster that is at `path`."""
    with _as_store_error(path, "read"):
        array = _open(path)
        return Raster(path, array.shape, str(array.attrs["mark"]))


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


@lru_cache(maxsize=64)
def _opened(path: Path, mark: str) -> Any:
    return _open(path, mark)


def _open(path: Path, mark: str = "") -> Any:
    import zarr

    from phosphene.disk.sealed import Sealed

    return zarr.open_array(Sealed(zarr.storage.LocalStore(path), mark), mode="r+")


@contextmanager
def _as_store_error(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise StoreError(f"{path} could not be {verb.replace('write', 'written')}: {error}") from error
