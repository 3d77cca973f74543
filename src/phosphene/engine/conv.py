"""Convolutions with frozen weights, for networks of which only the gradient of the image is wanted.

A frozen convolution is a linear map, and its gradient is the adjoint map: nothing but the shape of its input is needed
on the way back. The clamp that follows it (ReLU, ReLU6) is taken along, and all that is kept of it is a mask, one byte
a unit.

On the CPU, in float32, a convolution is computed in the way (`models.ways`) that was found fastest
(docs/performance.md): as a product of our own or PyTorch's where the kernel is a single pixel, by Winograd's filtering
where it is larger and reads channels enough, on the way back at least, by the pixels of a stride where it has a stride
and reads few channels, or else directly. The way depends on the network, the recipe and the kind of processor alone and
is never measured on the spot: a recipe must give the same bytes each time.
"""

import platform
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.engine.algorithms import (
    FEWEST,
    Convolution,
    Direct,
    FilteredStem,
    Pointwise,
    Product,
    Stem,
    Way,
    Winograd,
    every,
    pair,
)
from phosphene.engine.clamp import FrozenClamp
from phosphene.engine.cpu.toom_cook import can_filter
from phosphene.engine.layout import needs_pytorch


class FrozenConv(Convolution):
    """A convolution whose weights are never trained, and the clamp that follows it, or that follows its sum with
    another tensor, if it is pointwise.

    `compiled`: whether our own kernels may compute it. `passes_on`: the input is returned too, for others to read, so
    that their gradient is added while this one's is computed.
    """

    def __init__(self, conv: nn.Conv2d, low: float = -inf, high: float = inf, compiled: bool = True) -> None:
        super().__init__(conv, low, high)
        self.passes_on = False
        self.direct: Way = Direct(self)
        self.quickest = self.direct if needs_pytorch(self.weight) else self._quickest(compiled)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Convolve `[batch, channels, rows, columns]`, add `other`, and clamp."""
        if other is None or not self.is_pointwise or self._gives(x, other.shape):
            found: Tensor | tuple[Tensor, Tensor] = _Frozen.apply(x, other, self)
            return found
        y = F.conv2d(x, self.weight, self.bias, self.stride)  # one of the two is broadcast
        y = FrozenClamp(self.low, self.high)(y, other)
        return (y, x) if self.passes_on else y

    def _gives(self, x: Tensor, shape: torch.Size) -> bool:
        return shape == (len(x), len(self.weight), *every(x, self.stride).shape[2:])

    def way(self, x: Tensor) -> Way:
        """The fastest way for `x`."""
        return self.direct if needs_pytorch(x) else self.quickest

    def _quickest(self, compiled: bool) -> Way:
        filters, channels = self.weight.shape[:2]
        if self.is_pointwise:
            fits = not filters % FEWEST and not channels % FEWEST and bool(self.weight.isfinite().all())
            if compiled and fits and multiplies_vectors():
                return Pointwise(self)
            return self.direct if torch.backends.cpu.get_cpu_capability() == "AVX512" else Product(self)
        if compiled and is_filtered(self):
            return Winograd(self) if channels >= FEWEST else FilteredStem(self)
        return Stem(self) if self._is_strided_stem else self.direct

    @property
    def _is_strided_stem(self) -> bool:
        taps, few = self.weight.shape[2:], self.weight.shape[1] < FEWEST
        covers = all(step <= side for step, side in zip(self.stride, taps, strict=True))
        return _is_simple(self) and few and max(self.stride) > 1 and covers


def is_filtered(conv: nn.Conv2d | FrozenConv) -> bool:
    """Whether filtering is the fastest way for a convolution, on the way back at least."""
    filterable = _is_simple(conv) and can_filter(pair(conv.weight.shape[2:]), pair(conv.stride))
    return filterable and len(conv.weight) >= FEWEST and multiplies_vectors()


def _is_simple(conv: nn.Conv2d | FrozenConv) -> bool:
    return conv.groups == 1 and pair(conv.dilation) == (1, 1)


def multiplies_vectors() -> bool:
    """Whether the processor adds products with one rounding, without which the compiled kernels would be slow."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("arm64", "aarch64")


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor | None, conv: FrozenConv) -> Tensor | tuple[Tensor, Tensor]:
        y, mask = conv.way(x).apply(x, other)
        ctx.conv, ctx.shape, ctx.is_sum = conv, x.shape, other is not None
        ctx.save_for_backward(mask)
        ctx.set_materialize_grads(False)
        return (y, x) if conv.passes_on else y

    @staticmethod
    def backward(
        ctx: Any, slope: Tensor | None, beside: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        if slope is None:
            return None if beside is None else beside.clone(), None, None
        (mask,) = ctx.saved_tensors
        way = ctx.conv.way(slope)
        return *way.adjoint(slope, mask, ctx.shape, beside, ctx.is_sum), None
