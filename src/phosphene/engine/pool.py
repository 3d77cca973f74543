"""Pools that do not save their input: a max pool saves where its maxima lie, and an average pool the mask of the clamp
behind it."""

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from phosphene.engine import reference
from phosphene.engine.clamp import UNCLAMPED, Grad, clamp_, masked
from phosphene.engine.layout import empty_of_shape
from phosphene.engine.reference import Window
from phosphene.engine.tuning import Policy, needs_pytorch

MOST_TAPS = 256
"""Taps of a window that a byte can index."""


class FrozenMaxPool(nn.Module):
    """A max pool."""

    def __init__(self, pool: nn.MaxPool2d, policy: Policy) -> None:
        super().__init__()
        sides = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        self.window, self.ceil_mode, self.policy = Window(*map(_pair, sides)), pool.ceil_mode, policy

    def forward(self, x: Tensor) -> Tensor:
        """Pool `x` [batch, channels, rows, columns]."""
        y: Tensor = _MaxPool.apply(x, self)
        return y


class FrozenMeanPool(nn.Module):
    """An average pool, the `bias` [channels] that is added behind it, and the clamp behind both.

    Our own kernel computes it only if the stride is 1 and each output is divided by the size of the window.
    """

    bias: Tensor | None

    def __init__(self, pool: nn.AvgPool2d, bias: Tensor | None, low: float, high: float, policy: Policy) -> None:
        super().__init__()
        self.low, self.high, self.policy = low, high, policy
        self.size, self.padding = _pair(pool.kernel_size), _pair(pool.padding)
        window = (self.size, _pair(pool.stride), self.padding)
        self.settings = (*window, pool.ceil_mode, pool.count_include_pad, pool.divisor_override)
        is_plain = _pair(pool.stride) == (1, 1) and pool.count_include_pad and not pool.divisor_override
        self.compiled = policy.compiled and is_plain
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Pool `x` [batch, channels, rows, columns]."""
        y: Tensor = _MeanPool.apply(x, self)
        return y

    @property
    def clamps(self) -> bool:
        """Whether anything is clamped."""
        return (self.low, self.high) != UNCLAMPED

    def compiles(self, x: Tensor) -> bool:
        """Whether our own kernel takes `x`, an input or a gradient."""
        return self.compiled and x.ndim == 4 and not needs_pytorch(x)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: FrozenMaxPool) -> Tensor:
        ctx.pool, ctx.shape = pool, x.shape
        if pool.policy.compiles(x) and prod(pool.window.size) <= MOST_TAPS:
            from phosphene.engine.cpu import loops

            shape = _pooled_shape(F.max_pool2d, x.shape, (*pool.window, pool.ceil_mode))
            y, argmax = loops.max_pool(x, pool.window, shape)
        else:
            y, argmax = reference.max_pool(x, pool.window, pool.ceil_mode)
        ctx.save_for_backward(argmax)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (argmax,), pool = ctx.saved_tensors, ctx.pool
        if argmax.dtype != torch.uint8:
            return reference.max_pool_backward(grad, argmax, ctx.shape, pool.window, pool.ceil_mode), None
        from phosphene.engine.cpu import loops

        return loops.max_pool_backward(grad, argmax, ctx.shape, pool.window), None


@cache
def _pooled_shape(pool: Callable[..., Tensor], shape: torch.Size, settings: Any) -> torch.Size:
    """Return the shape of a pool's output for an input of `shape`."""
    return pool(torch.empty(shape, device="meta"), *settings).shape


class _MeanPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: FrozenMeanPool) -> Tensor:
        ctx.pool, ctx.shape, mask = pool, x.shape, None
        if pool.compiles(x):
            from phosphene.engine.cpu import loops

            y = empty_of_shape(x, _pooled_shape(F.avg_pool2d, x.shape, pool.settings))
            mask = torch.empty_like(y, dtype=torch.bool) if pool.clamps else None
            loops.mean_pool(x, None, pool.size, pool.padding, pool.bias, pool.low, pool.high, y, mask)
        else:
            y = F.avg_pool2d(x, *pool.settings)
            y = y if pool.bias is None else y.add_(pool.bias[:, None, None])
            if pool.clamps:
                y, mask = clamp_(y, pool.low, pool.high, pool.policy)
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        pool, (mask,) = ctx.pool, ctx.saved_tensors
        x = empty_of_shape(grad, ctx.shape)
        if pool.compiles(grad):
            from phosphene.engine.cpu import loops

            padding = tuple(taps - 1 - pad for taps, pad in zip(pool.size, pool.padding, strict=True))
            loops.mean_pool(grad, mask, pool.size, padding, None, *UNCLAMPED, x, None)
            return x, None
        grad = grad if mask is None else masked(Grad(grad, owned=False), mask, pool.policy)
        return torch.ops.aten.avg_pool2d_backward(grad, x, *pool.settings), None
