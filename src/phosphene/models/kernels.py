"""Loops over tensors that PyTorch would take many passes for, compiled by Numba, on the CPU in float32.

No kernel is compiled with `fastmath`: how it is then contracted depends on whether it was compiled in this process or
came from Numba's cache, and a recipe must give the same bytes in both.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

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


def run(kernel: object, *arguments: object) -> None:
    """Run a kernel on tensors; where only shapes are asked for, there is nothing to run on.

    A kernel gets the number of threads first. It shares its work among as many, in `numba.prange`.
    """
    if any(isinstance(argument, FakeTensor) for argument in arguments):
        return
    arrays = [argument.detach().numpy() if isinstance(argument, Tensor) else argument for argument in arguments]
    threads = min(torch.get_num_threads(), MOST_THREADS)
    with TURN:
        numba.set_num_threads(threads)
        kernel(threads, *arrays)  # type: ignore[operator]


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
