"""Kernels of one pixel, on the CPU in float32: a matrix product over all places, and what stands before and behind it.

Clamps, masks and sums of what a network holds at one place take longer to read and write than to compute, so they are
done while the numbers are in a thread's cache.
"""

from math import inf
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from phosphene.models.clamping import UNCLAMPED
from phosphene.models.kernels import compiled, run
from phosphene.models.tensors import NO_MASK, NOTHING, channels_last, pixels
from phosphene.models.vectors import (
    LANES,
    PANEL,
    ROWS,
    load,
    load_where,
    multiply,
    multiply_and_clamp,
    store,
    wait_for_stores,
)

TOGETHER = 8 * ROWS
"""Places that a thread takes together: what it reads of them stays in its cache while it reads all of the kernel."""


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

    Channels and filters are multiples of LANES. `packed` is the kernel [1, channels, filters] as `vectors.pack` lays it
    out. `passed`, a mask of `x`, sets to zero where it is false; `seen`, which may be `x`, is set to what is left, and
    has channels last. `other` has the result's shape. Returns the result and, where there is a clamp, a mask of what it
    let through.
    """
    batch, channels, rows, columns = x.shape
    values, pitch = pixels(x)
    out = x.new_empty(batch, rows, columns, shift.shape[0])
    clamps = (low, high) != UNCLAMPED
    through = torch.empty_like(out, dtype=torch.bool) if clamps else NO_MASK
    mask = NO_MASK if passed is None else channels_last(passed)
    into, added = (NOTHING if part is None else channels_last(part) for part in (seen, other))
    run(
        _multiply_places, values, pitch, mask.view(-1), into.view(-1), packed, shift,
        (np.float32(low), np.float32(high)), added.view(-1), out.view(-1), through.view(-1), channels, out.shape[3],
        TOGETHER,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2), through.permute(0, 3, 1, 2) if clamps else None


@compiled
@no_type_check
def _multiply_places(
    threads, x, pitch, mask, seen, packed, shift, limits, other, out, through, channels, filters, together
):  # fmt: skip
    places, deep = out.size // filters, channels + LANES
    units = -(-places // ROWS)
    for thread in numba.prange(threads):
        rows, block = np.empty(together * deep, np.float32), np.empty(ROWS * PANEL, np.float32)
        start, stop = thread * units // threads * ROWS, (thread + 1) * units // threads * ROWS
        for first in range(start, stop, together):
            count = min(together, stop - first)
            for t in range(count):
                _gather(x, pitch, mask, seen, min(first + t, places - 1), rows, t * deep, channels)
            blocks = min(count, places - first) // ROWS
            rest, left = blocks * ROWS, min(count, places - first) % ROWS
            for column in range(0, filters, PANEL):
                factors, at = column * channels, first * filters + column
                if filters - column >= PANEL:  # twice, since the width has to be a constant
                    multiply_and_clamp(
                        blocks, rows, 0, deep, packed, factors, channels, shift, column,
                        other, limits[0], limits[1], out, through, at, filters, 2,
                    )  # fmt: skip
                    if left:
                        multiply(1, rows, rest * deep, deep, packed, factors, channels, block, 0, PANEL, 2)
                else:
                    multiply_and_clamp(
                        blocks, rows, 0, deep, packed, factors, channels, shift, column,
                        other, limits[0], limits[1], out, through, at, filters, 1,
                    )  # fmt: skip
                    if left:
                        multiply(1, rows, rest * deep, deep, packed, factors, channels, block, 0, PANEL, 1)
                width = min(PANEL, filters - column)
                _finish(block, left, width, shift, column, other, limits, out, through, at + rest * filters, filters)
        wait_for_stores()


@numba.njit(inline="always")
@no_type_check
def _gather(x, pitch, mask, seen, place, rows, row, channels):
    """Copy what `mask` lets through of a place to `rows`, and to `seen`."""
    at, own = place * pitch, place * channels
    for c in range(0, channels, LANES):
        values = load_where(x, at + c, 0, mask, own + c, 0, 1) if mask.size else load(x, at + c, 0, 1)
        store(rows, row + c, 0, values)
        if seen.size:
            store(seen, own + c, 0, values)


@numba.njit(inline="always")
@no_type_check
def _finish(block, left, width, shift, column, other, limits, out, through, at, filters):
    """As `multiply_and_clamp` does it, for the `left` rows of a block that is not whole."""
    for r in range(left):
        for c in range(width):
            value, to = block[r * PANEL + c] + shift[column + c], at + r * filters + c
            if other.size:
                value += other[to]
            if through.size:
                through[to] = (value > limits[0]) & (value < limits[1])
                value = min(max(value, limits[0]), limits[1])
            out[to] = value
