"""Clamps (ReLU, ReLU6) of which only the gradient is wanted: a mask of what they let through is all that is kept."""

from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.engine.layout import in_order, is_for_kernels

UNCLAMPED = (-inf, inf)


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
        y, mask = clamp_(x.clone(), low, high) if other is None else clamped_sum(x, other, low, high)
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (mask,) = ctx.saved_tensors
        found = masked(slope, mask, False)
        return found, found if ctx.both else None, None, None


def clamp_(y: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp `y` where it lies. Returns it and a mask of what was let through, one byte an element."""
    if not is_for_kernels(y):
        mask = (y > low) & (y < high)
        return y.clamp_(low, high), mask
    from phosphene.engine.cpu import loops as kernels

    places = in_order(y)
    mask = torch.empty_like(places, dtype=torch.bool)
    kernels.clamp(places, mask, low, high)
    return places, mask


def clamped_sum(x: Tensor, other: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp the sum of two tensors, and return it and the mask."""
    if not (is_for_kernels(x) and is_for_kernels(other)):
        return clamp_(x + other, low, high)
    from phosphene.engine.cpu import loops as kernels

    x, other = in_order(x), in_order(other)
    total, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    kernels.clamp_sum(x, other, total, mask, low, high)
    return total, mask


def masked(slope: Tensor, mask: Tensor, overwrite: bool) -> Tensor:
    """Return `slope` with zeros where `mask` is false; it may be overwritten if nobody else reads it."""
    if not is_for_kernels(slope):
        return slope * mask
    from phosphene.engine.cpu import loops as kernels

    places, through = in_order(slope), in_order(mask)
    if overwrite or places is not slope:
        kernels.leave(places, through)
        return places
    left = torch.empty_like(places)
    kernels.let_through(places, through, left)
    return left
