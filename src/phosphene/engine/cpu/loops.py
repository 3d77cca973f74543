"""Loops over tensors that PyTorch would take many passes for, compiled by Numba, on the CPU in float32."""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from phosphene.engine.cpu.kernel import compiled, given, run, share
from phosphene.engine.layout import NO_MASK, NOTHING, Pair, pixels


def clamp(values: Tensor, mask: Tensor, low: float, high: float) -> None:
    """Clamp `values`, which lie next to each other, and note in `mask` which were let through."""
    run(_clamp, values, mask, low, high)


def clamp_sum(x: Tensor, other: Tensor, total: Tensor, mask: Tensor, low: float, high: float) -> None:
    """Set `total` to the clamped sum of two tensors, and note in `mask` what was let through; all lie alike."""
    run(_clamp_sum, x, other, total, mask, low, high)


def leave(values: Tensor, mask: Tensor) -> None:
    """Set `values` to zero where `mask` is false; both lie next to each other."""
    run(_leave, values, mask)


def let_through(values: Tensor, mask: Tensor, left: Tensor) -> None:
    """Set `left` to `values` where `mask` is true, or else to zero; all lie alike."""
    run(_let_through, values, mask, left)


class Window(NamedTuple):
    """What a place of a pool sees, each of rows and columns."""

    size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


def largest(x: Tensor, window: Window, y: Tensor, spots: Tensor) -> None:
    """Set `y` [batch, rows, columns, channels] to the maxima of windows of `x`, and note in `spots` where in its window
    each lies, as a byte: the first of several, and the last NaN before all.
    """
    run(_largest, x, *window, y, spots)


def largest_back(slope: Tensor, spots: Tensor, window: Window, x: Tensor) -> None:
    """Set `x` to the gradient of `largest`, given the one of its maxima."""
    run(_largest_back, slope, spots, *window, x)


def mean(
    x: Tensor, passed: Tensor | None, size: Pair, padding: Pair, shift: Tensor | None, low: float, high: float,
    y: Tensor, mask: Tensor | None,
) -> None:  # fmt: skip
    """Set `y` to the means of windows of `size`, one at each place, of what `passed` lets through of `x`, which zeros
    surround, plus `shift` [channels]; clamped if there is a `mask`, which notes what was let through.

    All else is [batch, channels, rows, columns]; `passed`, `y` and `mask` have channels last. The adjoint of such means
    is such means, with the rest of a window as padding.
    """
    values, pitch = pixels(x)
    masks = (NO_MASK if part is None else part for part in (passed, mask))
    added = NOTHING if shift is None else shift
    run(
        _mean, y, y.shape, values, pitch, x.shape[2:], *masks, size, padding, added, low, high,
        own=x.shape[1] * x.shape[3],
    )  # fmt: skip


def load_all() -> None:
    """Compile the kernels of this module, or load what was kept of them."""
    places, spots = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    mask, window = spots.bool(), Window((1, 1), (1, 1), (0, 0), (1, 1))
    clamp(places, mask, 0.0, 1.0)
    clamp_sum(places, places, places.clone(), mask, 0.0, 1.0)
    leave(places, mask)
    let_through(places, mask, places.clone())
    largest(places, window, places.clone(), spots)
    largest_back(places, spots, window, places.clone())
    mean(places, mask, (1, 1), (0, 0), torch.zeros(1), 0.0, 1.0, places.clone(), mask)


CLAMP = "float32[1] bool[1] float float"


@compiled(CLAMP)
@no_type_check
def _clamp(thread, threads, block):
    y, mask, low, high = given(block, CLAMP)
    first, last = share(thread, threads, y.size)
    _clamp_part(y[first:last], mask[first:last], low, high)


@numba.njit(inline="always")
@no_type_check
def _clamp_part(values, through, low, high):
    for i in range(values.size):
        value = values[i]
        values[i] = min(max(value, low), high)
        through[i] = (value > low) & (value < high)


CLAMP_SUM = "float32[1] float32[1] float32[1] bool[1] float float"


@compiled(CLAMP_SUM)
@no_type_check
def _clamp_sum(thread, threads, block):
    x, other, y, mask, low, high = given(block, CLAMP_SUM)
    first, last = share(thread, threads, y.size)
    one, two, values, through = x[first:last], other[first:last], y[first:last], mask[first:last]
    for i in range(values.size):
        value = one[i] + two[i]
        values[i] = min(max(value, low), high)
        through[i] = (value > low) & (value < high)


LEAVE = "float32[1] bool[1]"


@compiled(LEAVE)
@no_type_check
def _leave(thread, threads, block):
    y, mask = given(block, LEAVE)
    first, last = share(thread, threads, y.size)
    values, through = y[first:last], mask[first:last]
    for i in range(values.size):
        values[i] *= through[i]


LET_THROUGH = "float32[1] bool[1] float32[1]"


@compiled(LET_THROUGH)
@no_type_check
def _let_through(thread, threads, block):
    y, mask, left = given(block, LET_THROUGH)
    first, last = share(thread, threads, y.size)
    values, through, into = y[first:last], mask[first:last], left[first:last]
    for i in range(values.size):
        into[i] = values[i] * through[i]


LARGEST = "float32[4] int[2] int[2] int[2] int[2] float32[4] uint8[4]"


@compiled(LARGEST)
@no_type_check
def _largest(thread, threads, block):
    x, size, stride, padding, dilation, y, spots = given(block, LARGEST)
    images, height, width, channels = x.shape
    _, rows, columns, _ = y.shape
    first_line, last_line = share(thread, threads, images * rows)
    for line in range(first_line, last_line):
        image, i = line // rows, line % rows
        for j in range(columns):
            most, at = y[image, i, j], spots[image, i, j]
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


LARGEST_BACK = "float32[4] uint8[4] int[2] int[2] int[2] int[2] float32[4]"


@compiled(LARGEST_BACK)
@no_type_check
def _largest_back(thread, threads, block):
    slope, spots, size, stride, padding, dilation, x = given(block, LARGEST_BACK)
    images, height, width, channels = x.shape
    _, rows, columns, _ = slope.shape
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
                    values, at, spot = slope[image, i, j], spots[image, i, j], np.uint8(k * size[1] + m)
                    into = x[image, row, column]
                    for c in range(channels):
                        into[c] += values[c] if at[c] == spot else np.float32(0)


MEAN = "float32[1] int[4] float32[1] int int[2] bool[1] bool[1] int[2] int[2] float32[1] float float float32[2]"


@compiled(MEAN)
@no_type_check
def _mean(thread, threads, block):
    y, shape, x, pitch, (height, width), passed, mask, size, padding, shift, low, high, own = given(block, MEAN)
    images, channels, rows, columns = shape
    seen, share_of_each = own[thread], np.float32(1 / (size[0] * size[1]))
    first_line, last_line = share(thread, threads, images * rows)
    for line in range(first_line, last_line):
        image, top = line // rows, line % rows - padding[0]
        seen[:] = 0
        for row in range(max(top, 0), min(top + size[0], height)):
            _add_row(x, pitch, passed, (image * height + row) * width, width, channels, seen)
        begin, end = line * columns * channels, (line + 1) * columns * channels
        result = y[begin:end]
        _add_neighbours(seen, width, columns, channels, size[1], padding[1], result)
        for k in range(result.size):
            result[k] *= share_of_each
        if shift.size:
            _add_to_each(shift, columns, result)
        if mask.size:
            _clamp_part(result, mask[begin:end], low, high)


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
