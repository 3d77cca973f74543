"""Kernels of one pixel, on the CPU in float32: a GEMM over all pixels, with what stands before and behind it.

Clamps, masks and sums of what a network holds at one place take longer to read and write than to compute, so they are
done while the numbers are in a thread's cache.

    pixels -> [mask, copy, note zeros] -> GEMM -> epilogue [+ bias, + addend, clamp, note mask] -> results
"""

from itertools import accumulate
from math import inf
from typing import NamedTuple, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from phosphene.engine.clamp import UNCLAMPED
from phosphene.engine.cpu.gemm import (
    HALF_ROWS,
    PANEL,
    ROWS,
    WIDTHS,
    WORD,
    Rows,
    gemm,
    gemm_skip_zeros,
    gemm_with_epilogue,
)
from phosphene.engine.cpu.kernel import Bools, Floats, Scratch, kernel, next_part, run, share, unpack
from phosphene.engine.cpu.vectors import (
    LANES,
    Epilogue,
    count_ones,
    load,
    load_masked,
    nonzero,
    store,
    store_result,
    wait_for_stores,
)
from phosphene.engine.layout import NO_MASK, NO_TENSOR, channels_last, new_channels_last, pixels
from phosphene.engine.tuning import Tuning


class Pixels(NamedTuple):
    """What the kernel is given."""

    values: Floats
    pitch: int
    mask: Bools
    masked: Floats
    """Where to put what the mask lets through, if that is asked for."""
    channels: int
    weights: Floats
    filters: int
    epilogue: Epilogue
    skip_zeros_below: float
    together: int
    ends: tuple[int, int, int, int]
    scratch: Scratch


def convolve_1x1(
    x: Tensor,
    packed: Tensor,
    bias: Tensor,
    limits: tuple[float, float] = (-inf, inf),
    *,
    mask: Tensor | None = None,
    masked: Tensor | None = None,
    addend: Tensor | None = None,
    tuning: Tuning = Tuning(),
) -> tuple[Tensor, Tensor | None]:
    """Multiply `x` [batch, channels, rows, columns] at each pixel, add `bias` [filters] and `addend`, and clamp.

    Channels and filters are multiples of LANES. `packed` are the weights [1, channels, filters], laid out by
    `gemm.pack`. `mask`, of `x`, sets to zero where it is false; `masked`, which may be `x`, is set to what is left, and
    has channels last. `addend` has the result's shape. Returns the result and, where there is a clamp, a mask of what
    it let through.
    """
    channels, filters = x.shape[1], len(bias)
    values, pitch = pixels(x)
    out = new_channels_last(x, filters, x.shape[2:])
    through = torch.empty_like(out, dtype=torch.bool) if limits != UNCLAMPED else NO_MASK
    into, added = (NO_TENSOR if part is None else channels_last(part) for part in (masked, addend))
    together = tuning.pixel_blocks * ROWS
    ends = _ends(channels, together)
    run(
        _multiply_pixels,
        Pixels(
            values, pitch, NO_MASK if mask is None else channels_last(mask), into, channels, packed, filters,
            Epilogue(bias, added, *limits, out, through), tuning.skip_zeros_below, together, ends, ends[-1],
        ),
    )  # fmt: skip
    return out, through if limits != UNCLAMPED else None


def _ends(channels: int, together: int) -> tuple[int, int, int, int]:
    """Return where in a thread's scratch end: rows of the input, their bits, sums, and a block of sums."""
    words = -(-channels // WORD)
    sizes = together * (channels + LANES), together * 2 * words, together * WIDTHS[0] * LANES, ROWS * PANEL
    rows, bits, sums, rest = accumulate(sizes)
    return rows, bits, sums, rest


@kernel(Pixels)
@no_type_check
def _multiply_pixels(thread, threads, block):
    a = unpack(block, Pixels)
    own, pixels = a.scratch[thread], a.epilogue.out.size // a.filters
    rows, bits = own[: a.ends[0]], own[a.ends[0] : a.ends[1]].view(np.uint64)
    sums, rest = own[a.ends[1] : a.ends[2]], own[a.ends[2] :]
    units, deep, words = -(-pixels // ROWS), a.channels + LANES, -(-a.channels // WORD)
    parts = -(-units * ROWS // (a.together * threads)) * threads
    part = next_part(thread, threads, block, parts)
    while part >= 0:
        start, stop = share(part, parts, units)
        first, some = start * ROWS, 0
        count = min(stop * ROWS, pixels) - first
        for t in range(count):
            some += _gather(a, first + t, rows, t * deep, bits, t * words)
        done = 0
        while some < a.skip_zeros_below * count * a.channels and a.filters - done >= WIDTHS[-1] * LANES:
            width = _widest(a.filters - done)
            gemm_skip_zeros(
                count, Rows(rows, 0, deep), bits, Rows(a.weights, done * a.channels, 0), a.channels, sums,
                a.epilogue, done, first * a.filters + done, a.filters, width,
            )  # fmt: skip
            done += width * LANES
        for column in range(done, a.filters, PANEL):
            _multiply_panel(a, first, count, column, rows, deep, rest)
        part = next_part(thread, threads, block, parts)
    wait_for_stores()


@numba.njit(inline="always")
@no_type_check
def _gather(a, pixel, rows, row, bits, word):
    """Copy what the mask lets through of a pixel to `rows`, and to `masked`, and note what is not zero; return how
    much."""
    at, own, count = pixel * a.pitch, pixel * a.channels, 0
    for begin in range(0, a.channels, WORD):
        found = np.uint64(0)
        for c in range(begin, min(begin + WORD, a.channels), LANES):
            values = load_masked(a.values, at + c, a.mask, own + c)
            store(rows, row + c, values)
            if a.masked.size:
                store(a.masked, own + c, values)
            found |= nonzero(values) << np.uint64(c - begin)
        bits[word + begin // WORD] = found
        count += count_ones(found)
    return count


@numba.njit(inline="always")
@no_type_check
def _widest(filters):
    """Return the most of WIDTHS that so many filters fill."""
    for width in WIDTHS:
        if filters >= width * LANES:
            return width
    return 0


@numba.njit(inline="always")
@no_type_check
def _multiply_panel(a, first, count, column, rows, deep, rest):
    """Multiply `count` rows by a panel. What is less than a block of them is multiplied with what lies behind it."""
    blocks, left, width = count // ROWS, count % ROWS, min(2, (a.filters - column) // LANES)
    weights, at, last = Rows(a.weights, column * a.channels, 0), first * a.filters + column, blocks * ROWS
    gemm_with_epilogue(blocks, Rows(rows, 0, deep), weights, a.channels, a.epilogue, column, at, a.filters, width)
    if left:
        gemm(ROWS // HALF_ROWS, Rows(rows, last * deep, deep), weights, a.channels, Rows(rest, 0, PANEL), width)
    for r in range(left):
        for c in range(width):
            values = load(rest, r * PANEL + c * LANES)
            store_result(values, a.epilogue, column + c * LANES, at + (last + r) * a.filters + c * LANES)
