"""Clamps (ReLU, ReLU6) of which only the gradient is wanted: a mask of what they let through is all that is kept."""

import sys
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.models.tensors import channels_last, needs_pytorch

UNCLAMPED = (-inf, inf)

LARGE = 2**20
"""Elements from which the compiled kernels are worth loading Numba for, which takes a second."""

KERNELS = "phosphene.models.kernels"
"""The module that loads Numba; it is not imported for its name."""


class FrozenClamp(nn.Module):
    """A clamp to `low`..`high`, of a tensor or of the sum of two."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Clamp `x`, or `x + other`, of any shape; one of the two may be a number."""
        if other is not None and not (isinstance(x, Tensor) and isinstance(other, Tensor) and x.shape == other.shape):
            x, other = x + other, None
        y: Tensor = _Clamped.apply(x, other, self.low, self.high)
        return y


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor | None, low: float, high: float) -> Tensor:
        ctx.both = other is not None
        y, mask = clamp_(x.clone(), low, high) if other is None else _clamped_sum(x, other, low, high)
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (mask,) = ctx.saved_tensors
        found = masked(slope, mask, False)
        return found, found if ctx.both else None, None, None


def make_ready(size: tuple[int, int]) -> None:
    """Load Numba for an image of `size`, if it is so large that memory may be short when it is needed.

    A process that runs out of memory while Numba is loaded may end there.
    """
    if size[0] * size[1] >= LARGE // 4:
        units = torch.zeros(1, 1, LARGE, 1)
        total, mask = _clamped_sum(units, units, 0, 1)
        masked(total, mask, overwrite=False)
        masked(*clamp_(total, 0, 1), overwrite=True)


def clamp_(y: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp `y` where it lies. Returns it and a mask of what was let through, one byte an element."""
    if not _is_for_kernels(y):
        mask = (y > low) & (y < high)
        return y.clamp_(low, high), mask
    from phosphene.models import kernels

    places = channels_last(y)
    mask = torch.empty_like(places, dtype=torch.bool)
    kernels.clamp(places, mask, low, high)
    return places.permute(0, 3, 1, 2), mask.permute(0, 3, 1, 2)


def _clamped_sum(x: Tensor, other: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp the sum of two tensors, and return it and the mask."""
    if not (_is_for_kernels(x) and _is_for_kernels(other)):
        return clamp_(x + other, low, high)
    from phosphene.models import kernels

    x, other = channels_last(x), channels_last(other)
    total, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    kernels.clamp_sum(x, other, total, mask, low, high)
    return total.permute(0, 3, 1, 2), mask.permute(0, 3, 1, 2)


def masked(slope: Tensor, mask: Tensor, overwrite: bool) -> Tensor:
    """Return `slope` with zeros where `mask` is false; it may be overwritten if nobody else reads it."""
    if not _is_for_kernels(slope):
        return slope * mask
    from phosphene.models import kernels

    places, through = channels_last(slope), channels_last(mask)
    if overwrite or not slope.is_contiguous(memory_format=torch.channels_last):
        kernels.leave(places, through)
        return places.permute(0, 3, 1, 2)
    left = torch.empty_like(places)
    kernels.let_through(places, through, left)
    return left.permute(0, 3, 1, 2)


def _is_for_kernels(x: Tensor) -> bool:
    """Whether a kernel is the faster way: always, once the kernels are loaded.

    The kernels put channels last, and PyTorch's passes leave them where they are. Smaller tensors are given to kernels
    only where that is the same, or else what a process did before could decide in which order numbers are added later.
    """
    if x.ndim != 4 or needs_pytorch(x):
        return False
    return x.numel() >= LARGE or (KERNELS in sys.modules and x.stride(1) == 1)
