"""Depthwise convolutions with frozen weights, and the 1x1 convolution in front that widens what they read.

Mobile networks (MobileNetV2, Sandler et al. 2018, arXiv:1801.04381, and what came after) are made of 1x1 convolutions
to several times the channels, depthwise convolutions of these, and 1x1 convolutions back, with clamps between them: for
all that is read and written there is little to compute. So the first two are computed together, in images that are
worth loading Numba for, and what stands between them stays in the cache. Of the clamps a bit a unit is kept.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.engine.algorithms import FEWEST, multiplies_vectors
from phosphene.engine.conv import FrozenConv
from phosphene.engine.layout import Pair, channels_last, pair
from phosphene.engine.tuning import needs_pytorch

AREA = 2**16
"""Pixels of an image from which Numba is worth loading for these."""


class FrozenDepthwise(nn.Module):
    """A depthwise convolution, and the clamped 1x1 convolution in front, if any; each `stride_before`-th pixel of the
    image is a place of what they read."""

    kernel: Tensor
    forth: Tensor
    back: Tensor

    def __init__(self, depthwise: FrozenConv, widen: FrozenConv | None, stride_before: int) -> None:
        super().__init__()
        self.depthwise, self.widen, self.stride_before = depthwise, widen, stride_before
        weight = depthwise.weight.new_empty(0, 0) if widen is None else widen.weight.flatten(1)
        self.register_buffer("kernel", depthwise.weight.unflatten(0, (-1, FEWEST)).movedim(1, -1).flatten())
        self.register_buffer("forth", weight.T.contiguous())
        self.register_buffer("back", F.pad(weight, (0, -weight.shape[1] % FEWEST)).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `[batch, channels, rows, columns]`, twice, and clamp each time."""
        if needs_pytorch(x) or x.shape[2] * x.shape[3] * self.stride_before**2 < AREA:
            y: Tensor = self.depthwise(x if self.widen is None else self.widen(x))
        else:
            y = _Fused.apply(x, self)
        return y

    def layers(self) -> tuple[Any, Any]:
        """Return both convolutions as the kernels take them; the first has no weights if there is none."""
        from phosphene.engine.cpu.depthwise import Layer

        first, second = self.widen, self.depthwise
        bias, low, high = (self.forth, 0.0, 0.0) if first is None else (first.bias, first.low, first.high)
        return Layer(self.forth, bias, low, high), Layer(self.kernel, second.bias, second.low, second.high)

    def window(self, size: torch.Size) -> tuple[Any, Pair]:
        """Return the window for an input of `size`, and the size of the result."""
        from phosphene.engine.cpu.depthwise import Window

        conv = self.depthwise
        axes = list(zip(size, conv.taps, conv.stride, *conv.margins(size), strict=True))
        before = pair(pad - skip * step for _, _, step, pad, skip in axes)
        places = pair((side + 2 * pad - taps) // step + 1 - skip for side, taps, step, pad, skip in axes)
        return Window(conv.taps[0], conv.stride[0], *before), places


def can_be_fused(conv: FrozenConv) -> bool:
    """Whether there are kernels for a depthwise convolution and its clamp."""
    filters, each, *taps = conv.weight.shape
    is_depthwise = conv.groups == filters and each == 1 and not filters % FEWEST and conv.clamps
    known = taps in ([3, 3], [5, 5]) and conv.stride in ((1, 1), (2, 2)) and conv.dilation == (1, 1)
    return is_depthwise and known and multiplies_vectors()


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fused: FrozenDepthwise) -> Tensor:
        from phosphene.engine.cpu.depthwise import forward

        window, size = fused.window(x.shape[2:])
        widen, depthwise = fused.layers()
        y, widened, passed = forward(x, widen, depthwise, window, size)
        ctx.fused, ctx.shape = fused, x.shape
        ctx.save_for_backward(widened, passed)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        from phosphene.engine.cpu.depthwise import backward

        (widened, passed), fused = ctx.saved_tensors, ctx.fused
        window, _ = fused.window(ctx.shape[2:])
        return backward(channels_last(dy), passed, fused.kernel, window, widened, fused.back, ctx.shape), None
