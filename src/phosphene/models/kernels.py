"""Loops over tensors that PyTorch would take many passes for, compiled by Numba, on the CPU in float32.

No kernel is compiled with `fastmath`: how it is then contracted depends on whether it was compiled in this process or
came from Numba's cache, and a recipe must give the same bytes in both.
"""

import logging
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a kernel may take to be compiled or read until the user is told what it is."""

TURN = threading.Lock()
"""Held while a kernel runs: not each of Numba's thread pools may be used from two threads at once."""


def _start_threads() -> int:
    """Let Numba start its threads, and return their number. Where the two share OpenMP, it sets PyTorch's too."""
    threads = torch.get_num_threads()
    started: int = numba.get_num_threads()
    torch.set_num_threads(threads)
    return started


MOST_THREADS = _start_threads()


def compiled(function: Callable[..., None]) -> Any:
    """Compile a kernel when it is first called; keep it for other processes, where there is a folder to keep it in."""
    compile_with = partial(numba.njit, parallel=True, nogil=True, error_model="numpy")
    try:
        return compile_with(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return compile_with()(function)


def run(kernel: Any, *arguments: object) -> None:
    """Run a kernel on tensors, the first of which says whether only shapes are asked for: then nothing is run.

    A kernel gets the number of threads first. It shares its work among as many, in `numba.prange`.
    """
    if isinstance(arguments[0], FakeTensor):
        return
    arrays = [argument.numpy() if isinstance(argument, Tensor) else argument for argument in arguments]
    threads = min(torch.get_num_threads(), MOST_THREADS)
    with TURN:
        numba.set_num_threads(threads)
        if kernel.overloads:
            kernel(threads, *arrays)
        else:
            _run_first(kernel, threads, *arrays)


def _run_first(kernel: Any, *arguments: object) -> None:
    """Run a kernel that has not been called in this process, and say what it waits for if it is not kept either."""
    telling = threading.Timer(PATIENCE, _tell_of_compiling)
    telling.start()
    try:
        kernel.compile(tuple(map(numba.typeof, arguments)))
    finally:
        telling.cancel()
    kernel(*arguments)


@cache
def _tell_of_compiling() -> None:
    logger.warning("compiling for this processor, which is kept for the next time: up to a minute")


def clamp(values: Tensor, mask: Tensor, low: float, high: float) -> None:
    """Clamp `values`, which lie next to each other, and note in `mask` which were let through."""
    run(_clamp, values.view(-1), mask.view(-1), low, high)


def clamp_sum(x: Tensor, other: Tensor, total: Tensor, mask: Tensor, low: float, high: float) -> None:
    """Set `total` to the clamped sum of two tensors, and note in `mask` what was let through; all lie alike."""
    run(_clamp_sum, x.view(-1), other.view(-1), total.view(-1), mask.view(-1), low, high)


def leave(values: Tensor, mask: Tensor) -> None:
    """Set `values` to zero where `mask` is false; both lie next to each other."""
    run(_leave, values.view(-1), mask.view(-1))


def let_through(values: Tensor, mask: Tensor, left: Tensor) -> None:
    """Set `left` to `values` where `mask` is true, or else to zero; all lie alike."""
    run(_let_through, values.view(-1), mask.view(-1), left.view(-1))


class Window(NamedTuple):
    """What a place of a pool sees, each of rows and columns."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def largest(x: Tensor, window: Window, y: Tensor, spots: Tensor) -> None:
    """Set `y` [batch, rows, columns, channels] to the maxima of windows of `x`, and note in `spots` where in its window
    each lies, as a byte: the first of several, and the last NaN before all.
    """
    run(_largest, x, *window, y, spots)


def largest_back(slope: Tensor, spots: Tensor, window: Window, x: Tensor) -> None:
    """Set `x` to the gradient of `largest`, given the one of its maxima."""
    run(_largest_back, slope, spots, *window, x)


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


@compiled
@no_type_check
def _clamp(threads, y, mask, low, high):
    least, most = np.float32(low), np.float32(high)
    for thread in numba.prange(threads):
        first, last = thread * y.size // threads, (thread + 1) * y.size // threads
        values, through = y[first:last], mask[first:last]
        for i in range(values.size):
            value = values[i]
            values[i] = min(max(value, least), most)
            through[i] = (value > least) & (value < most)


@compiled
@no_type_check
def _clamp_sum(threads, x, other, y, mask, low, high):
    least, most = np.float32(low), np.float32(high)
    for thread in numba.prange(threads):
        first, last = thread * y.size // threads, (thread + 1) * y.size // threads
        one, two, values, through = x[first:last], other[first:last], y[first:last], mask[first:last]
        for i in range(values.size):
            value = one[i] + two[i]
            values[i] = min(max(value, least), most)
            through[i] = (value > least) & (value < most)


@compiled
@no_type_check
def _leave(threads, y, mask):
    for thread in numba.prange(threads):
        first, last = thread * y.size // threads, (thread + 1) * y.size // threads
        values, through = y[first:last], mask[first:last]
        for i in range(values.size):
            values[i] *= through[i]


@compiled
@no_type_check
def _let_through(threads, y, mask, left):
    for thread in numba.prange(threads):
        first, last = thread * y.size // threads, (thread + 1) * y.size // threads
        values, through, into = y[first:last], mask[first:last], left[first:last]
        for i in range(values.size):
            into[i] = values[i] * through[i]


@compiled
@no_type_check
def _largest(threads, x, size, stride, padding, dilation, y, spots):
    images, height, width, channels = x.shape
    _, rows, columns, _ = y.shape
    lines = images * rows
    for thread in numba.prange(threads):
        for line in range(thread * lines // threads, (thread + 1) * lines // threads):
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


@compiled
@no_type_check
def _largest_back(threads, slope, spots, size, stride, padding, dilation, x):
    images, height, width, channels = x.shape
    _, rows, columns, _ = slope.shape
    lines = images * height
    for thread in numba.prange(threads):
        for line in range(thread * lines // threads, (thread + 1) * lines // threads):
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
