"""Depthwise convolutions with frozen weights, fused with the 1x1 expansion in front of them.

Mobile networks (MobileNetV2, Sandler et al. 2018, arXiv:1801.04381, and its successors) are stacks of inverted residual
blocks: a 1x1 convolution expands the channels several times, a depthwise convolution filters them, and another 1x1
convolution projects them back, with clamps between. Such a block moves much memory for little arithmetic. So the
expansion and the depthwise convolution are computed together, and the expanded activation never leaves the cache. This
is done for images that are large enough to be worth loading Numba. Each clamp saves a mask, one bit an output.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.engine.algorithms import MAX_LANES, multiplies_vectors
from phosphene.engine.conv import FrozenConv
from phosphene.engine.layout import Pair, channels_last, pair
from phosphene.engine.tuning import needs_pytorch

AREA = 2**16
"""Pixels of an image from which Numba is worth loading for these kernels."""


class FrozenDepthwise(nn.Module):
    """A clamped depthwise convolution, and the clamped 1x1 expansion in front of it, if there is one.

    `stride_before` is the stride of the input with respect to the image, in px.
    """

    depthwise_weight: Tensor
    """[channels / MAX_LANES, taps, taps, MAX_LANES], flat."""
    expand_weight_t: Tensor
    """For the forward pass: [input channels, channels]; [0, 0] without an expansion."""
    expand_weight: Tensor
    """For the backward pass: [channels, input channels], the latter padded with zeros to a multiple of MAX_LANES."""

    def __init__(self, depthwise: FrozenConv, expand: FrozenConv | None, stride_before: int) -> None:
        super().__init__()
        self.depthwise, self.expand, self.stride_before = depthwise, expand, stride_before
        weight = depthwise.weight.new_empty(0, 0) if expand is None else expand.weight.flatten(1)
        self.register_buffer(
            "depthwise_weight", depthwise.weight.unflatten(0, (-1, MAX_LANES)).movedim(1, -1).flatten()
        )
        self.register_buffer("expand_weight_t", weight.T.contiguous())
        self.register_buffer("expand_weight", F.pad(weight, (0, -weight.shape[1] % MAX_LANES)).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Expand `x` [batch, channels, rows, columns] and clamp, then convolve depthwise and clamp."""
        if needs_pytorch(x) or x.shape[2] * x.shape[3] * self.stride_before**2 < AREA:
            y: Tensor = self.depthwise(x if self.expand is None else self.expand(x))
        else:
            y = _Fused.apply(x, self)
        return y

    def layers(self) -> tuple[Any, Any]:
        """Return the expansion and the depthwise convolution as the kernels take them.

        The expansion has no weights if there is none.
        """
        from phosphene.engine.cpu.depthwise import Layer

        first, second = self.expand, self.depthwise
        bias, low, high = (self.expand_weight_t, 0.0, 0.0) if first is None else (first.bias, first.low, first.high)
        return (
            Layer(self.expand_weight_t, bias, low, high),
            Layer(self.depthwise_weight, second.bias, second.low, second.high),
        )

    def window(self, size: torch.Size) -> tuple[Any, Pair]:
        """Return the window for an input of `size` (rows, columns), and the size of the output."""
        from phosphene.engine.cpu.depthwise import Window

        conv = self.depthwise
        axes = list(zip(size, conv.taps, conv.stride, *conv.margins(size), strict=True))
        lead = pair(pad - drop * step for _, _, step, pad, drop in axes)
        out_size = pair((side + 2 * pad - taps) // step + 1 - drop for side, taps, step, pad, drop in axes)
        return Window(conv.taps[0], conv.stride[0], *lead), out_size


def can_be_fused(conv: FrozenConv) -> bool:
    """Whether there are kernels for a depthwise convolution and its clamp."""
    filters, group_channels, *taps = conv.weight.shape
    is_depthwise = conv.groups == filters and group_channels == 1 and not filters % MAX_LANES and conv.clamps
    has_kernel = taps in ([3, 3], [5, 5]) and conv.stride in ((1, 1), (2, 2)) and conv.dilation == (1, 1)
    return is_depthwise and has_kernel and multiplies_vectors()


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fused: FrozenDepthwise) -> Tensor:
        from phosphene.engine.cpu.depthwise import forward

        window, size = fused.window(x.shape[2:])
        expand, depthwise = fused.layers()
        y, expand_mask, out_mask = forward(x, expand, depthwise, window, size)
        ctx.fused, ctx.shape = fused, x.shape
        ctx.save_for_backward(expand_mask, out_mask)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        from phosphene.engine.cpu.depthwise import backward

        (expand_mask, out_mask), fused = ctx.saved_tensors, ctx.fused
        window, _ = fused.window(ctx.shape[2:])
        return backward(
            channels_last(dy), out_mask, fused.depthwise_weight, window, expand_mask, fused.expand_weight, ctx.shape
        ), None
