"""Pools of which only the gradient is wanted. None keeps its input: a maximum pool keeps where its maxima were, and an
average pool the mask of a clamp behind it."""

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from phosphene.engine.clamp import UNCLAMPED, clamp_, masked
from phosphene.engine.layout import channels_last, is_for_kernels, needs_pytorch, unread

MOST_SPOTS = 256
"""Places of a window that can be numbered in a byte."""


class FrozenMaximum(nn.Module):
    """A maximum pool."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        window = (_pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding), _pair(pool.dilation))
        self.settings = (*window, pool.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        """Pool `[batch, channels, rows, columns]`."""
        y: Tensor = _Largest.apply(x, self.settings)
        return y


class FrozenMean(nn.Module):
    """An average pool, the `shift` [channels] that is added behind it, and the clamp behind both.

    `compiled`: whether our own kernel may compute it, where each place has a window and divides by the same.
    """

    shift: Tensor | None

    def __init__(self, pool: nn.AvgPool2d, shift: Tensor | None, low: float, high: float, compiled: bool) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.size, self.padding = _pair(pool.kernel_size), _pair(pool.padding)
        window = (self.size, _pair(pool.stride), self.padding)
        self.settings = (*window, pool.ceil_mode, pool.count_include_pad, pool.divisor_override)
        is_plain = _pair(pool.stride) == (1, 1) and pool.count_include_pad and not pool.divisor_override
        self.compiled = compiled and is_plain
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Pool `[batch, channels, rows, columns]`."""
        y: Tensor = _Mean.apply(x, self)
        return y

    @property
    def clamps(self) -> bool:
        """Whether anything is clamped."""
        return (self.low, self.high) != UNCLAMPED

    def takes_kernel(self, x: Tensor) -> bool:
        """Whether our own kernel computes it for `x`, or for a gradient."""
        return self.compiled and x.ndim == 4 and not needs_pytorch(x)


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Any) -> Tensor:
        ctx.settings, ctx.shape = settings, x.shape
        *window, _ = settings
        if is_for_kernels(x) and prod(window[0]) <= MOST_SPOTS:
            from phosphene.engine.cpu import loops as kernels

            y = unread(x, _pooled(F.max_pool2d, x.shape, settings))
            spots = torch.empty_like(y, dtype=torch.uint8)
            kernels.largest(channels_last(x), kernels.Window(*window), channels_last(y), channels_last(spots))
        else:
            y, places = torch.ops.aten.max_pool2d_with_indices(x, *settings)
            spots = places.int()
        ctx.save_for_backward(spots)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (spots,) = ctx.saved_tensors
        x = unread(slope, ctx.shape)
        if spots.dtype != torch.uint8:
            return torch.ops.aten.max_pool2d_with_indices_backward(slope, x, *ctx.settings, spots.long()), None
        from phosphene.engine.cpu import loops as kernels

        *window, _ = ctx.settings
        kernels.largest_back(channels_last(slope), channels_last(spots), kernels.Window(*window), channels_last(x))
        return x, None


@cache
def _pooled(pool: Callable[..., Tensor], shape: torch.Size, settings: Any) -> torch.Size:
    """Return the shape of what a pool makes of one of `shape`."""
    return pool(torch.empty(shape, device="meta"), *settings).shape


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: FrozenMean) -> Tensor:
        ctx.pool, ctx.shape, mask = pool, x.shape, None
        if pool.takes_kernel(x):
            from phosphene.engine.cpu import loops as kernels

            y = unread(x, _pooled(F.avg_pool2d, x.shape, pool.settings))
            mask = torch.empty_like(y, dtype=torch.bool) if pool.clamps else None
            kernels.mean(x, None, pool.size, pool.padding, pool.shift, pool.low, pool.high, y, mask)
        else:
            y = F.avg_pool2d(x, *pool.settings)
            y = y if pool.shift is None else y.add_(pool.shift[:, None, None])
            if pool.clamps:
                y, mask = clamp_(y, pool.low, pool.high)
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        pool, (mask,) = ctx.pool, ctx.saved_tensors
        x = unread(slope, ctx.shape)
        if pool.takes_kernel(slope):
            from phosphene.engine.cpu import loops as kernels

            rest = tuple(taps - 1 - pad for taps, pad in zip(pool.size, pool.padding, strict=True))
            kernels.mean(slope, mask, pool.size, rest, None, *UNCLAMPED, x, None)
            return x, None
        slope = slope if mask is None else masked(slope, mask, overwrite=False)
        return torch.ops.aten.avg_pool2d_backward(slope, x, *pool.settings), None
