"""Kernels of one pixel, on the CPU in float32: a matrix product over all places, and what stands before and behind it.

Clamps, masks and sums of what a network holds at one place take longer to read and write than to compute, so they are
done while the numbers are in a thread's cache.
"""

from itertools import accumulate
from math import inf
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from phosphene.engine.clamp import UNCLAMPED
from phosphene.engine.cpu.gemm import HALF, PANEL, ROWS, WIDTHS, WORD, multiply, multiply_and_clamp, multiply_nonzero
from phosphene.engine.cpu.kernel import compiled, given, next_part, run, share
from phosphene.engine.cpu.vectors import LANES, load, load_where, nonzero, ones, store, wait_for_stores
from phosphene.engine.layout import NO_MASK, NOTHING, in_order, new_in_order, pixels

TOGETHER = 8 * ROWS
"""Places that a thread takes together: what it reads of them stays in its cache while it reads all of the kernel."""

FEW = 0.7
"""Share of numbers that are not zero below which it is quicker to pass over those that are.

A clamp leaves about half. The result is the same, since the sums are added in the same order.
"""


def convolve(
    x: Tensor,
    packed: Tensor,
    shift: Tensor,
    low: float = -inf,
    high: float = inf,
    passed: Tensor | None = None,
    seen: Tensor | None = None,
    other: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Multiply `x` [batch, channels, rows, columns] at each place, add `shift` [filters] and `other`, and clamp.

    Channels and filters are multiples of LANES. `packed` is the kernel [1, channels, filters], laid out by
    `products.pack`. `passed`, a mask of `x`, sets to zero where it is false; `seen`, which may be `x`, is set to what
    is left, and has channels last. `other` has the result's shape. Returns the result and, where there is a clamp, a
    mask of what it let through.
    """
    channels, filters = x.shape[1], shift.shape[0]
    values, pitch = pixels(x)
    out = new_in_order(x, filters, x.shape[2:])
    clamps = (low, high) != UNCLAMPED
    through = torch.empty_like(out, dtype=torch.bool) if clamps else NO_MASK
    mask = NO_MASK if passed is None else in_order(passed)
    into, added = (NOTHING if part is None else in_order(part) for part in (seen, other))
    ends = _ends(channels)
    run(
        _multiply_places, values, pitch, mask, into, packed, shift, low, high, added,
        out, through, channels, filters, FEW, TOGETHER, ends, own=ends[-1],
    )  # fmt: skip
    return out, through if clamps else None


def _ends(channels: int) -> tuple[int, int, int, int]:
    """Return where in a thread's own numbers end: rows of the input, marks of 64 bits, sums, and a block of them."""
    words = -(-channels // WORD)
    sizes = TOGETHER * (channels + LANES), TOGETHER * 2 * words, TOGETHER * WIDTHS[0] * LANES, ROWS * PANEL
    rows, marks, sums, rest = accumulate(sizes)
    return rows, marks, sums, rest


PLACES = """
    float32[1] int bool[1] float32[1] float32[1] float32[1] float float float32[1]
    float32[1] bool[1] int int float int int[4] float32[2]
"""


@compiled(PLACES)
@no_type_check
def _multiply_places(thread, threads, block):
    (
        x, pitch, mask, seen, packed, shift, low, high, other,
        out, through, channels, filters, few, together, ends, own,
    ) = given(block, PLACES)  # fmt: skip
    places, deep, words = out.size // filters, channels + LANES, -(-channels // WORD)
    rows, marks = own[thread, : ends[0]], own[thread, ends[0] : ends[1]].view(np.uint64)
    sums, rest = own[thread, ends[1] : ends[2]], own[thread, ends[2] :]
    units = -(-places // ROWS)
    parts = -(-units * ROWS // (together * threads)) * threads
    part = next_part(thread, threads, block, parts)
    while part >= 0:
        start, stop = share(part, parts, units)
        first, marked = start * ROWS, 0
        count = min(stop * ROWS, places) - first
        for t in range(count):
            marked += _gather(x, pitch, mask, seen, first + t, rows, t * deep, channels, marks, t * words)
        done = 0
        while marked < few * count * channels and filters - done >= WIDTHS[-1] * LANES:
            width = _widest(filters - done)
            multiply_nonzero(
                count, rows, deep, marks, channels, packed, done * channels, sums, shift, done,
                other, low, high, out, through, first * filters + done, filters, width,
            )  # fmt: skip
            done += width * LANES
        for column in range(done, filters, PANEL):
            _multiply_panel(
                count, rows, deep, packed, channels, shift, column,
                other, low, high, out, through, first * filters, filters, rest,
            )  # fmt: skip
        part = next_part(thread, threads, block, parts)
    wait_for_stores()


@numba.njit(inline="always")
@no_type_check
def _gather(x, pitch, mask, seen, place, rows, row, channels, marks, word):
    """Copy what `mask` lets through of a place to `rows`, and to `seen`, and mark what is not zero; return how much."""
    at, own, count = place * pitch, place * channels, 0
    for begin in range(0, channels, WORD):
        bits = np.uint64(0)
        for c in range(begin, min(begin + WORD, channels), LANES):
            values = load_where(x, at + c, 0, mask, own + c, 0, 1) if mask.size else load(x, at + c, 0, 1)
            store(rows, row + c, 0, values)
            if seen.size:
                store(seen, own + c, 0, values)
            bits |= nonzero(values) << np.uint64(c - begin)
        marks[word + begin // WORD] = bits
        count += ones(bits)
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
def _multiply_panel(
    count, rows, deep, packed, channels, shift, column, other, low, high, out, through, at, filters, rest
):  # fmt: skip
    """Multiply `count` rows by a panel. What is less than a block of them is multiplied with what lies behind it."""
    blocks, left, width = count // ROWS, count % ROWS, min(2, (filters - column) // LANES)
    factors, to, last = column * channels, at + column, blocks * ROWS
    multiply_and_clamp(
        blocks, rows, deep, packed, factors, channels, shift, column,
        other, low, high, out, through, to, filters, width,
    )  # fmt: skip
    if left:
        multiply(ROWS // HALF, rows, last * deep, deep, packed, factors, channels, rest, 0, PANEL, width)
    _finish(rest, left, width * LANES, shift, column, other, low, high, out, through, to + last * filters, filters)


@numba.njit(inline="always")
@no_type_check
def _finish(block, left, width, shift, column, other, low, high, out, through, at, filters):
    """As `multiply_and_clamp` does it, for the `left` rows of a block that is not whole."""
    for r in range(left):
        for c in range(width):
            value, to = block[r * PANEL + c] + shift[column + c], at + r * filters + c
            if other.size:
                value += other[to]
            if through.size:
                through[to] = (value > low) & (value < high)
                value = min(max(value, low), high)
            out[to] = value
