"""Clamps, masks and pools on the CPU in float32, each in one pass over memory where PyTorch would take several.

`phosphene.engine.reference` computes the same in PyTorch.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from phosphene.engine.cpu.kernel import Bools, Bytes, Floats, Images, Scratch, kernel, run, share, unpack
from phosphene.engine.layout import NO_MASK, NO_TENSOR, Pair, as_nhwc, empty_of_shape, pixels
from phosphene.engine.reference import Window


class Clamp(NamedTuple):
    """Arguments of `clamp_`: a tensor to be clamped in place, and its mask."""

    values: Floats
    mask: Bools
    low: float
    high: float


class ClampSum(NamedTuple):
    """Arguments of `clamp_sum`: two tensors, their clamped sum, and its mask."""

    x: Floats
    addend: Floats
    total: Floats
    mask: Bools
    low: float
    high: float


class Mask(NamedTuple):
    """Arguments of `mask_inplace`: a tensor to be masked in place, and its mask."""

    values: Floats
    mask: Bools


class MaskedCopy(NamedTuple):
    """Arguments of `masked_copy`: a tensor, its mask, and the result."""

    values: Floats
    mask: Bools
    out: Floats


class MaxPool(NamedTuple):
    """Arguments of `max_pool` and its backward: the input, the windows, and the output; or the gradients of both.

    `argmax` is the tap of its window at which each maximum lies, in row-major order.
    """

    x: Images
    window: Window
    y: Images
    argmax: Bytes


class MeanPool(NamedTuple):
    """Arguments of `mean_pool`."""

    y: Floats
    shape: tuple[int, int, int, int]
    """Of y: batch, channels, rows, columns."""
    x: Floats
    pitch: int
    """Floats from one pixel of x to the next."""
    height: int
    width: int
    mask: Bools
    size: Pair
    padding: Pair
    bias: Floats
    low: float
    high: float
    out_mask: Bools
    scratch: Scratch


def clamp_(values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp a dense tensor in place; return it, and a mask: true where low < value < high."""
    mask = torch.empty_like(values, dtype=torch.bool)
    run(_clamp, Clamp(values, mask, low, high))
    return values, mask


def clamp_sum(x: Tensor, addend: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the clamped sum of two dense tensors of the same layout, and a mask: true where low < sum < high."""
    total, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    run(_clamp_sum, ClampSum(x, addend, total, mask, low, high))
    return total, mask


def mask_inplace(values: Tensor, mask: Tensor) -> Tensor:
    """Set a dense tensor to zero where `mask` is false, and return it."""
    run(_mask, Mask(values, mask))
    return values


def masked_copy(values: Tensor, mask: Tensor) -> Tensor:
    """Return a copy of `values` with zeros where `mask` is false."""
    out = torch.empty_like(values)
    run(_masked_copy, MaskedCopy(values, mask, out))
    return out


def max_pool(x: Tensor, window: Window, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the maxima, of `shape`, of windows of `x` [batch, channels, rows, columns], and the tap of each in uint8.

    Of equal maxima the first is taken. NaN wins over any number, and the last NaN over others.
    """
    y = empty_of_shape(x, shape)
    argmax = torch.empty_like(y, dtype=torch.uint8)
    run(_max_pool, MaxPool(as_nhwc(x), window, as_nhwc(y), as_nhwc(argmax)))
    return y, argmax


def max_pool_backward(grad: Tensor, argmax: Tensor, shape: torch.Size, window: Window) -> Tensor:
    """Return the gradient of `max_pool` with respect to an input of `shape`."""
    x = empty_of_shape(grad, shape)
    run(_max_pool_backward, MaxPool(as_nhwc(x), window, as_nhwc(grad), as_nhwc(argmax)))
    return x


def mean_pool(
    x: Tensor, mask: Tensor | None, size: Pair, padding: Pair, bias: Tensor | None, low: float, high: float,
    y: Tensor, out_mask: Tensor | None,
) -> None:  # fmt: skip
    """Set `y` to the means of windows of `x`, of `size` and stride 1, plus `bias`.

    Outside of `x`, and where `mask` is false, zeros are averaged. If there is an `out_mask`, `y` is clamped, and the
    clamp's mask is written to it. `bias` is [channels], all other tensors [batch, channels, rows, columns]; `mask`, `y`
    and `out_mask` have channels last. The adjoint of this pool is such a pool too, with padding `size - 1 - padding`.
    """
    values, pitch = pixels(x)
    x_mask, y_mask = (NO_MASK if tensor is None else tensor for tensor in (mask, out_mask))
    y_bias, (_, channels, height, width) = NO_TENSOR if bias is None else bias, x.shape
    shape = (*y.shape,)
    run(
        _mean_pool,
        MeanPool(
            y, shape, values, pitch, height, width, x_mask, size, padding, y_bias, low, high, y_mask, channels * width,
        ),
    )  # fmt: skip


def load_all() -> None:
    """Compile the kernels of this module, or load them from the cache."""
    x, argmax = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    mask, window = argmax.bool(), Window((1, 1), (1, 1), (0, 0), (1, 1))
    clamp_(x, 0.0, 1.0)
    clamp_sum(x, x, 0.0, 1.0)
    mask_inplace(x, mask)
    masked_copy(x, mask)
    max_pool(x, window, x.shape)
    max_pool_backward(x, argmax, x.shape, window)
    mean_pool(x, mask, (1, 1), (0, 0), torch.zeros(1), 0.0, 1.0, x.clone(), mask)


@kernel(Clamp)
@no_type_check
def _clamp(thread, threads, block):
    a = unpack(block, Clamp)
    first, last = share(thread, threads, a.values.size)
    _clamp_part(a.values[first:last], a.mask[first:last], a.low, a.high)


@numba.njit(inline="always")
@no_type_check
def _clamp_part(values, mask, low, high):
    for i in range(values.size):
        value = values[i]
        values[i] = min(max(value, low), high)
        mask[i] = (value > low) & (value < high)


@kernel(ClampSum)
@no_type_check
def _clamp_sum(thread, threads, block):
    a = unpack(block, ClampSum)
    first, last = share(thread, threads, a.total.size)
    x, addend, total, mask = a.x[first:last], a.addend[first:last], a.total[first:last], a.mask[first:last]
    low, high = a.low, a.high
    for i in range(total.size):
        value = x[i] + addend[i]
        total[i] = min(max(value, low), high)
        mask[i] = (value > low) & (value < high)


@kernel(Mask)
@no_type_check
def _mask(thread, threads, block):
    a = unpack(block, Mask)
    first, last = share(thread, threads, a.values.size)
    values, mask = a.values[first:last], a.mask[first:last]
    for i in range(values.size):
        values[i] *= mask[i]


@kernel(MaskedCopy)
@no_type_check
def _masked_copy(thread, threads, block):
    a = unpack(block, MaskedCopy)
    first, last = share(thread, threads, a.out.size)
    values, mask, out = a.values[first:last], a.mask[first:last], a.out[first:last]
    for i in range(values.size):
        out[i] = values[i] * mask[i]


@kernel(MaxPool)
@no_type_check
def _max_pool(thread, threads, block):
    a = unpack(block, MaxPool)
    x, (size, stride, padding, dilation) = a.x, a.window
    images, height, width, channels = x.shape
    _, rows, columns, _ = a.y.shape
    first_line, last_line = share(thread, threads, images * rows)
    for line in range(first_line, last_line):
        image, i = line // rows, line % rows
        for j in range(columns):
            maxima, taps = a.y[image, i, j], a.argmax[image, i, j]
            maxima[:] = -np.inf
            is_first = True
            for k in range(size[0]):
                row = i * stride[0] - padding[0] + k * dilation[0]
                if row < 0 or row >= height:
                    continue
                for m in range(size[1]):
                    column = j * stride[1] - padding[1] + m * dilation[1]
                    if column < 0 or column >= width:
                        continue
                    values, tap = x[image, row, column], np.uint8(k * size[1] + m)
                    if is_first:
                        taps[:] = tap
                        is_first = False
                    for c in range(channels):
                        is_larger = (values[c] > maxima[c]) | (values[c] != values[c])
                        maxima[c] = values[c] if is_larger else maxima[c]
                        taps[c] = tap if is_larger else taps[c]


@kernel(MaxPool)
@no_type_check
def _max_pool_backward(thread, threads, block):
    a = unpack(block, MaxPool)
    x, (size, stride, padding, dilation) = a.x, a.window
    images, height, width, channels = x.shape
    _, rows, columns, _ = a.y.shape
    first_line, last_line = share(thread, threads, images * height)
    for line in range(first_line, last_line):
        image, row = line // height, line % height
        x[image, row] = 0
        for k in range(size[0] - 1, -1, -1):
            i = row + padding[0] - k * dilation[0]
            if i < 0 or i % stride[0] or i // stride[0] >= rows:
                continue
            i //= stride[0]
            for j in range(columns):
                for m in range(size[1]):
                    column = j * stride[1] - padding[1] + m * dilation[1]
                    if column < 0 or column >= width:
                        continue
                    dy, taps, tap = a.y[image, i, j], a.argmax[image, i, j], np.uint8(k * size[1] + m)
                    dx = x[image, row, column]
                    for c in range(channels):
                        dx[c] += dy[c] if taps[c] == tap else np.float32(0)


@kernel(MeanPool)
@no_type_check
def _mean_pool(thread, threads, block):
    a = unpack(block, MeanPool)
    images, channels, rows, columns = a.shape
    row_sums, weight = a.scratch[thread], np.float32(1 / (a.size[0] * a.size[1]))
    first_line, last_line = share(thread, threads, images * rows)
    for line in range(first_line, last_line):
        image, top = line // rows, line % rows - a.padding[0]
        row_sums[:] = 0
        for row in range(max(top, 0), min(top + a.size[0], a.height)):
            _add_row(a.x, a.pitch, a.mask, (image * a.height + row) * a.width, a.width, channels, row_sums)
        begin, end = line * columns * channels, (line + 1) * columns * channels
        result = a.y[begin:end]
        _add_columns(row_sums, a.width, columns, channels, a.size[1], a.padding[1], result)
        for k in range(result.size):
            result[k] *= weight
        if a.bias.size:
            _add_bias(a.bias, columns, result)
        if a.out_mask.size:
            _clamp_part(result, a.out_mask[begin:end], a.low, a.high)


@numba.njit(inline="always")
@no_type_check
def _add_row(x, pitch, mask, first_pixel, width, channels, total):
    """Add `width` pixels of `x`, from pixel `first_pixel` on, to `total`, with zeros where `mask` is false.

    If the pixels lie next to each other in memory, they are added in one run, else one by one.
    """
    run_pixels = width if pitch == channels else 1
    for pixel in range(0, width, run_pixels):
        values, at = x[(first_pixel + pixel) * pitch :], (first_pixel + pixel) * channels
        sums = total[pixel * channels : (pixel + run_pixels) * channels]
        if mask.size:
            row_mask = mask[at:]
            for k in range(sums.size):
                sums[k] += values[k] * row_mask[k]
        else:
            for k in range(sums.size):
                sums[k] += values[k]


@numba.njit(inline="always")
@no_type_check
def _add_columns(row_sums, width, columns, channels, size, padding, total):
    """Set each pixel j of `total` to the sum of the pixels j - padding .. j - padding + size - 1 of `row_sums`."""
    total[:] = 0
    for m in range(-padding, size - padding):
        first, last = max(-m, 0) * channels, max(min(width - m, columns), 0) * channels
        values, sums = row_sums[first + m * channels :], total[first:last]
        for k in range(sums.size):
            sums[k] += values[k]


@numba.njit(inline="always")
@no_type_check
def _add_bias(bias, pixels, total):
    """Add `bias` [channels] to each pixel."""
    for pixel in range(pixels):
        sums = total[pixel * bias.size : (pixel + 1) * bias.size]
        for c in range(bias.size):
            sums[c] += bias[c]
