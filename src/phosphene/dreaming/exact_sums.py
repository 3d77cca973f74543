"""Sums over a picture that are the same to the last bit however the picture was cut into blocks.

A row's numbers are added in float64, always in the same order, over `SEGMENT` columns at a time; these sums are then
added exactly, by Python's `math.fsum` (Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic"), for which order
does not matter. Blocks have to begin at multiples of the segment's columns, and may have any rows.
"""

from collections.abc import Iterable, Sequence
from math import fsum

import torch
from jaxtyping import Float
from torch import Tensor

SEGMENT = 1024
"""Columns that are added up at a time, in a picture of full size."""

Rows = Float[Tensor, "channels rows columns"]
SegmentSums = Float[Tensor, " segments"]


def sums(numbers: Rows, columns: int = SEGMENT) -> SegmentSums:
    """Add up each row of each segment of `columns`."""
    return torch.cat(
        [part.contiguous().sum(2, dtype=_wide(part)).flatten() for part in torch.split(numbers, columns, dim=2)]
    )


def sums_of_absolutes(numbers: Rows, columns: int = SEGMENT) -> SegmentSums:
    """Add up the absolute values of each row of each segment."""
    return _norms(numbers, columns, 1)


def sums_of_squares(numbers: Rows, columns: int = SEGMENT) -> SegmentSums:
    """Add up the squares of each row of each segment."""
    return _norms(numbers, columns, 2).square()


def total(blocks: Iterable[Sequence[float]]) -> float:
    """Add up the sums of a picture's blocks, exactly."""
    return fsum(number for block in blocks for number in block)


def condensed(numbers: SegmentSums) -> list[float]:
    """Return a few numbers that add up to exactly what many do: their sum, what rounding it left over, and so on."""
    found = numbers.tolist()
    parts = [fsum(found)]
    while abs(rest := fsum([*found, *(-part for part in parts)])) > 0:
        parts.append(rest)
    return parts


def _norms(numbers: Rows, columns: int, order: int) -> SegmentSums:
    norm = torch.linalg.vector_norm
    parts = [part.contiguous() for part in torch.split(numbers, columns, dim=2)]
    return torch.cat([norm(part, ord=order, dim=2, dtype=_wide(part)).flatten() for part in parts])


def _wide(numbers: Tensor) -> torch.dtype:
    return torch.float32 if numbers.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
