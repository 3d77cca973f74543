"""Pools of which only the gradient is wanted. None keeps its input, and a maximum pool keeps where its maxima were."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from phosphene.models.tensors import unread


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
        y, places = torch.ops.aten.max_pool2d_with_indices(x, *settings)
        ctx.settings, ctx.shape = settings, x.shape
        ctx.save_for_backward(places.int())
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        x = unread(slope, ctx.shape)
        return torch.ops.aten.max_pool2d_with_indices_backward(slope, x, *ctx.settings, places.long()), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Any) -> Tensor:
        ctx.settings, ctx.shape = settings, x.shape
        return F.avg_pool2d(x, *settings)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.avg_pool2d_backward(slope, unread(slope, ctx.shape), *ctx.settings), None
