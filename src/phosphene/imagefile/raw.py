"""Samples as a decoder found them: what `decode` and `tiff` return."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Empty = Callable[..., Array]
"""As `numpy.empty`: where samples go, in memory or mapped from a file."""


class Mapped(np.memmap[Any, Any]):
    """An array in a file, of which no more is in memory than was just written."""

    def __setitem__(self, place: Any, values: Any) -> None:
        super().__setitem__(place, values)
        let_go(self)


def let_go(samples: Array) -> None:
    """Take samples that are mapped from a file out of this process's memory; they come back when they are read."""
    mapping = getattr(samples, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Raw:
    """Samples as a decoder found them, [height, width, channels]: colours (1 is grey, 3 RGB, 4 CMYK), then alpha.

    `white` is the sample that stands for 1. `palette` [numbers, 3] has the colours that single samples stand for, with
    65535 for 1. Where `inverted`, 0 is white. `orientation` is EXIF's, and still to be applied.
    """

    samples: Array
    white: float = 255
    alpha: bool = False
    icc: bytes | None = None
    orientation: int = 1
    premultiplied: bool = False
    inverted: bool = False
    palette: Array | None = None
