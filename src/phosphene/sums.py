"""Sums over a picture that are the same to the last bit however the picture was cut into strips of rows.

The numbers of a row are added in float64, always in the same order; the rows' sums are then added exactly, by Python's
`math.fsum` (Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic"), for which order does not matter.
"""

from collections.abc import Iterable
from math import fsum

import torch
from jaxtyping import Float
from torch import Tensor

Rows = Float[Tensor, "channels rows columns"]
RowSums = Float[Tensor, "channels rows"]


def row_sums(numbers: Rows) -> RowSums:
    """Add up each row."""
    return numbers.contiguous().sum(2, dtype=_wide(numbers))


def row_sums_of_absolutes(numbers: Rows) -> RowSums:
    """Add up the absolute values of each row."""
    return _norms(numbers, 1)


def row_sums_of_squares(numbers: Rows) -> RowSums:
    """Add up the squares of each row."""
    return _norms(numbers, 2).square()


def total(sums: Iterable[Tensor]) -> float:
    """Add up the rows of a picture's strips, exactly."""
    return fsum(number for rows in sums for number in rows.flatten().tolist())


def _norms(numbers: Rows, order: int) -> RowSums:
    norms: Tensor = torch.linalg.vector_norm(numbers.contiguous(), ord=order, dim=2, dtype=_wide(numbers))
    return norms


def _wide(numbers: Tensor) -> torch.dtype:
    return torch.float32 if numbers.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
