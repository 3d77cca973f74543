"""Pools of which only the gradient is wanted. None keeps its input, and a maximum pool keeps where its maxima were."""

from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from phosphene.models.tensors import channels_last, is_for_kernels, unread

MOST_SPOTS = 256
"""Places of a window that can be numbered in a byte."""


class FrozenPool(nn.Module):
    """A maximum or an average pool."""

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.operation: type[torch.autograd.Function]
        self.settings: tuple[Any, ...]
        window = (_pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding))
        if isinstance(pool, nn.MaxPool2d):
            self.operation, self.settings = _Largest, (*window, _pair(pool.dilation), pool.ceil_mode)
        else:
            self.operation = _Mean
            self.settings = (*window, pool.ceil_mode, pool.count_include_pad, pool.divisor_override)

    def forward(self, x: Tensor) -> Tensor:
        """Pool `[batch, channels, rows, columns]`."""
        y: Tensor = self.operation.apply(x, self.settings)
        return y


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Any) -> Tensor:
        ctx.settings, ctx.shape = settings, x.shape
        *window, _ = settings
        if is_for_kernels(x) and prod(window[0]) <= MOST_SPOTS:
            from phosphene.models import kernels

            y = unread(x, _pooled(x.shape, settings))
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
        from phosphene.models import kernels

        *window, _ = ctx.settings
        kernels.largest_back(channels_last(slope), channels_last(spots), kernels.Window(*window), channels_last(x))
        return x, None


@cache
def _pooled(shape: torch.Size, settings: Any) -> torch.Size:
    """Return the shape of what a maximum pool makes of one of `shape`."""
    y, _ = torch.ops.aten.max_pool2d_with_indices(torch.empty(shape, device="meta"), *settings)
    return torch.Size(y.shape)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Any) -> Tensor:
        ctx.settings, ctx.shape = settings, x.shape
        return F.avg_pool2d(x, *settings)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.avg_pool2d_backward(slope, unread(slope, ctx.shape), *ctx.settings), None
