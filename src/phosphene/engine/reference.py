"""What each kernel computes, in a few lines of PyTorch. The kernels are tested against these functions.

`clamp_`, `masked`, `max_pool` and `max_pool_backward` also run where the kernels do not: on GPUs, in other precisions,
in networks that are not worth compiling for, and with `PHOSPHENE_ENGINE=reference`. Only tests call the others:
`clamp_sum`, `gemm_1x1`, `convolve`, `convolve_backward` and `mean_pool`. There, PyTorch's own operations are called
directly, in `algorithms.py`, `clamp.py` and `pool.py`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.engine.layout import Pair, empty_of_shape


class Window(NamedTuple):
    """The window of a pool, each field of rows and columns."""

    size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


def clamp_(y: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp `y` in place; return it, and a mask: true where low < y < high."""
    mask = (y > low) & (y < high)
    return y.clamp_(low, high), mask


def clamp_sum(x: Tensor, addend: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the clamped sum of two tensors, and its mask."""
    return clamp_(x + addend, low, high)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x` with zeros where `mask` is false."""
    return x * mask


def gemm_1x1(
    x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None = None, addend: Tensor | None = None
) -> Tensor:
    """Multiply each pixel of `x` [batch, channels, rows, columns], masked if there is a `mask`, by `weight` [filters,
    channels], and add `bias` [filters] and `addend`."""
    y = F.conv2d(x if mask is None else masked(x, mask), weight[:, :, None, None], bias)
    return y if addend is None else y + addend


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, crop: Pair) -> Tensor:
    """Convolve, and drop the first `crop` rows and columns of the output."""
    return F.conv2d(x, weight, bias, stride, padding)[:, :, crop[0] :, crop[1] :]


def convolve_backward(
    y: Tensor, weight: Tensor, shape: torch.Size, stride: Pair, padding: Pair, crop: Pair, mask: Tensor | None = None
) -> Tensor:
    """Return the gradient of `convolve` with respect to an input of `shape`, given that of its output, `y`, masked if
    there is a `mask`."""
    y = F.pad(y if mask is None else masked(y, mask), (crop[1], 0, crop[0], 0))
    x = empty_of_shape(y, shape)
    convolution_backward = torch.ops.aten.convolution_backward
    dx: Tensor = convolution_backward(
        y, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [True, False, False]
    )[0]
    return dx


def max_pool(x: Tensor, window: Window, ceil_mode: bool = False) -> tuple[Tensor, Tensor]:
    """Return the maxima of windows of `x`, and their row-major indices in the image, as int32."""
    y, indices = torch.ops.aten.max_pool2d_with_indices(x, *window, ceil_mode)
    return y, indices.int()


def max_pool_backward(grad: Tensor, indices: Tensor, shape: torch.Size, window: Window, ceil_mode: bool) -> Tensor:
    """Return the gradient of `max_pool` with respect to an input of `shape`."""
    x = empty_of_shape(grad, shape)
    dx: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *window, ceil_mode, indices.long())
    return dx


def mean_pool(x: Tensor, size: Pair, padding: Pair, mask: Tensor | None = None) -> Tensor:
    """Return the means of windows of `x`, with stride 1 and zero padding, masked first if there is a `mask`."""
    x = F.pad(x if mask is None else masked(x, mask), (padding[1], padding[1], padding[0], padding[0]))
    return F.avg_pool2d(x, size, 1)
