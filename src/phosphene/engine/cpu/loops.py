"""Loops over tensors that PyTorch would take many passes for, compiled by Numba, on the CPU in float32.

`phosphene.engine.reference` has the same in PyTorch.
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
    """A tensor to be clamped in place, and its mask."""

    values: Floats
    mask: Bools
    low: float
    high: float


class ClampSum(NamedTuple):
    """Two tensors, their clamped sum, and its mask."""

    x: Floats
    addend: Floats
    total: Floats
    mask: Bools
    low: float
    high: float


class Mask(NamedTuple):
    """A tensor to be masked in place, and its mask."""

    values: Floats
    mask: Bools


class MaskedCopy(NamedTuple):
    """A tensor, its mask, and where the result is put."""

    values: Floats
    mask: Bools
    into: Floats


class MaxPool(NamedTuple):
    """An input or its gradient, the windows, the maxima or their gradient, and where in its window each lies."""

    x: Images
    window: Window
    y: Images
    spots: Bytes


class MeanPool(NamedTuple):
    """What `mean_pool` is given."""

    y: Floats
    shape: tuple[int, int, int, int]
    x: Floats
    pitch: int
    height: int
    width: int
    through: Bools
    size: Pair
    padding: Pair
    bias: Floats
    low: float
    high: float
    mask: Bools
    scratch: Scratch


def clamp_(values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Clamp a dense tensor in place; return it, and a mask of what was let through."""
    mask = torch.empty_like(values, dtype=torch.bool)
    run(_clamp, Clamp(values, mask, low, high))
    return values, mask


def clamp_sum(x: Tensor, addend: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the clamped sum of two dense tensors that lie alike, and a mask of what was let through."""
    total, mask = torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
    run(_clamp_sum, ClampSum(x, addend, total, mask, low, high))
    return total, mask


def mask_inplace(values: Tensor, mask: Tensor) -> Tensor:
    """Set a dense tensor to zero where `mask` is false, and return it."""
    run(_mask, Mask(values, mask))
    return values


def masked_copy(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` where `mask` is true, or else zeros."""
    into = torch.empty_like(values)
    run(_masked_copy, MaskedCopy(values, mask, into))
    return into


def max_pool(x: Tensor, window: Window, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the maxima, of `shape`, of windows of `x` [batch, channels, rows, columns], and where in its window each
    lies, as a byte: the first of several, and the last NaN before all.
    """
    y = empty_of_shape(x, shape)
    spots = torch.empty_like(y, dtype=torch.uint8)
    run(_max_pool, MaxPool(as_nhwc(x), window, as_nhwc(y), as_nhwc(spots)))
    return y, spots


def max_pool_backward(grad: Tensor, spots: Tensor, shape: torch.Size, window: Window) -> Tensor:
    """Return the gradient of `max_pool` with respect to an input of `shape`."""
    x = empty_of_shape(grad, shape)
    run(_max_pool_backward, MaxPool(as_nhwc(x), window, as_nhwc(grad), as_nhwc(spots)))
    return x


def mean_pool(
    x: Tensor, through: Tensor | None, size: Pair, padding: Pair, bias: Tensor | None, low: float, high: float,
    y: Tensor, mask: Tensor | None,
) -> None:  # fmt: skip
    """Set `y` to the means of windows of `size`, one at each pixel, of what the mask `through` lets through of `x`,
    which zeros surround, plus `bias` [channels]; clamped if there is a `mask`, which notes what was let through.

    All else is [batch, channels, rows, columns]; `through`, `y` and `mask` have channels last. The adjoint of such
    means is such means, with the rest of a window as padding.
    """
    values, pitch = pixels(x)
    seen, noted = (NO_MASK if part is None else part for part in (through, mask))
    added, (_, channels, height, width) = NO_TENSOR if bias is None else bias, x.shape
    shape = (*y.shape,)
    run(
        _mean_pool,
        MeanPool(
            y, shape, values, pitch, height, width, seen, size, padding, added, low, high, noted, channels * width,
        ),
    )  # fmt: skip


def load_all() -> None:
    """Compile the kernels of this module, or load what was kept of them."""
    x, spots = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    mask, window = spots.bool(), Window((1, 1), (1, 1), (0, 0), (1, 1))
    clamp_(x, 0.0, 1.0)
    clamp_sum(x, x, 0.0, 1.0)
    mask_inplace(x, mask)
    masked_copy(x, mask)
    max_pool(x, window, x.shape)
    max_pool_backward(x, spots, x.shape, window)
    mean_pool(x, mask, (1, 1), (0, 0), torch.zeros(1), 0.0, 1.0, x.clone(), mask)


@kernel(Clamp)
@no_type_check
def _clamp(thread, threads, block):
    a = unpack(block, Clamp)
    first, last = share(thread, threads, a.values.size)
    _clamp_part(a.values[first:last], a.mask[first:last], a.low, a.high)


@numba.njit(inline="always")
@no_type_check
def _clamp_part(values, through, low, high):
    for i in range(values.size):
        value = values[i]
        values[i] = min(max(value, low), high)
        through[i] = (value > low) & (value < high)


@kernel(ClampSum)
@no_type_check
def _clamp_sum(thread, threads, block):
    a = unpack(block, ClampSum)
    first, last = share(thread, threads, a.total.size)
    one, two, values, through = a.x[first:last], a.addend[first:last], a.total[first:last], a.mask[first:last]
    low, high = a.low, a.high
    for i in range(values.size):
        value = one[i] + two[i]
        values[i] = min(max(value, low), high)
        through[i] = (value > low) & (value < high)


@kernel(Mask)
@no_type_check
def _mask(thread, threads, block):
    a = unpack(block, Mask)
    first, last = share(thread, threads, a.values.size)
    values, through = a.values[first:last], a.mask[first:last]
    for i in range(values.size):
        values[i] *= through[i]


@kernel(MaskedCopy)
@no_type_check
def _masked_copy(thread, threads, block):
    a = unpack(block, MaskedCopy)
    first, last = share(thread, threads, a.into.size)
    values, through, into = a.values[first:last], a.mask[first:last], a.into[first:last]
    for i in range(values.size):
        into[i] = values[i] * through[i]


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
            most, at = a.y[image, i, j], a.spots[image, i, j]
            most[:] = -np.inf
            first = True
            for k in range(size[0]):
                row = i * stride[0] - padding[0] + k * dilation[0]
                if row < 0 or row >= height:
                    continue
                for m in range(size[1]):
                    column = j * stride[1] - padding[1] + m * dilation[1]
                    if column < 0 or column >= width:
                        continue
                    values, spot = x[image, row, column], np.uint8(k * size[1] + m)
                    if first:
                        at[:] = spot
                        first = False
                    for c in range(channels):
                        more = (values[c] > most[c]) | (values[c] != values[c])
                        most[c] = values[c] if more else most[c]
                        at[c] = spot if more else at[c]


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
                    values, at, spot = a.y[image, i, j], a.spots[image, i, j], np.uint8(k * size[1] + m)
                    into = x[image, row, column]
                    for c in range(channels):
                        into[c] += values[c] if at[c] == spot else np.float32(0)


@kernel(MeanPool)
@no_type_check
def _mean_pool(thread, threads, block):
    a = unpack(block, MeanPool)
    images, channels, rows, columns = a.shape
    seen, share_of_each = a.scratch[thread], np.float32(1 / (a.size[0] * a.size[1]))
    first_line, last_line = share(thread, threads, images * rows)
    for line in range(first_line, last_line):
        image, top = line // rows, line % rows - a.padding[0]
        seen[:] = 0
        for row in range(max(top, 0), min(top + a.size[0], a.height)):
            _add_row(a.x, a.pitch, a.through, (image * a.height + row) * a.width, a.width, channels, seen)
        begin, end = line * columns * channels, (line + 1) * columns * channels
        result = a.y[begin:end]
        _add_neighbours(seen, a.width, columns, channels, a.size[1], a.padding[1], result)
        for k in range(result.size):
            result[k] *= share_of_each
        if a.bias.size:
            _add_to_each(a.bias, columns, result)
        if a.mask.size:
            _clamp_part(result, a.mask[begin:end], a.low, a.high)


@numba.njit(inline="always")
@no_type_check
def _add_row(x, pitch, passed, first, width, channels, total):
    """Add the pixels of a row, from the one with the number `first` on, that `passed` lets through."""
    together = width if pitch == channels else 1
    for place in range(0, width, together):
        values, at = x[(first + place) * pitch :], (first + place) * channels
        sums = total[place * channels : (place + together) * channels]
        if passed.size:
            through = passed[at:]
            for k in range(sums.size):
                sums[k] += values[k] * through[k]
        else:
            for k in range(sums.size):
                sums[k] += values[k]


@numba.njit(inline="always")
@no_type_check
def _add_neighbours(seen, width, columns, channels, size, padding, total):
    """Set each pixel of a row to the sum of `size` of those that are seen, from `padding` in front of it on."""
    total[:] = 0
    for m in range(-padding, size - padding):
        first, last = max(-m, 0) * channels, max(min(width - m, columns), 0) * channels
        values, sums = seen[first + m * channels :], total[first:last]
        for k in range(sums.size):
            sums[k] += values[k]


@numba.njit(inline="always")
@no_type_check
def _add_to_each(shift, pixels, total):
    """Add the same to each of so many pixels."""
    for place in range(pixels):
        sums = total[place * shift.size : (place + 1) * shift.size]
        for c in range(shift.size):
            sums[c] += shift[c]
