"""1x1 convolutions on the CPU in float32: a GEMM over all pixels, fused with the elementwise operations around it.

Clamps, masks and sums take longer to read and write than to compute, so they are done while their data are in a
thread's cache.

    pixels -> [mask, copy, mark nonzeros] -> GEMM -> epilogue [+ bias, + addend, clamp, write mask] -> results
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
    """The kernel's arguments."""

    values: Floats
    pitch: int
    """Floats from one pixel of `values` to the next."""
    mask: Bools
    masked: Floats
    """Output: `values` with zeros where `mask` is false; empty if it is not wanted."""
    channels: int
    weights: Floats
    filters: int
    epilogue: Epilogue
    skip_zeros_below: float
    block_pixels: int
    """Pixels that a thread multiplies at a time."""
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
    """Multiply the pixels of `x` [batch, channels, rows, columns] by the weights, add `bias` and `addend`, and clamp.

    Channels and filters are multiples of LANES. `packed` are the weights [1, channels, filters], packed by `gemm.pack`;
    `bias` is [filters], and `addend` has the result's shape. Where `mask`, of the shape of `x`, is false, `x` counts as
    zero. If `masked` is given, channels last, the masked `x` is written to it; it may be `x` itself. Returns the result
    and, if there is a clamp, its mask.
    """
    channels, filters = x.shape[1], len(bias)
    values, pitch = pixels(x)
    out = new_channels_last(x, filters, x.shape[2:])
    out_mask = torch.empty_like(out, dtype=torch.bool) if limits != UNCLAMPED else NO_MASK
    masked_nhwc, addend_nhwc = (NO_TENSOR if part is None else channels_last(part) for part in (masked, addend))
    block_pixels = tuning.pixel_blocks * ROWS
    ends = _ends(channels, block_pixels)
    run(
        _multiply_pixels,
        Pixels(
            values, pitch, NO_MASK if mask is None else channels_last(mask), masked_nhwc, channels, packed, filters,
            Epilogue(bias, addend_nhwc, *limits, out, out_mask), tuning.skip_zeros_below, block_pixels, ends, ends[-1],
        ),
    )  # fmt: skip
    return out, out_mask if limits != UNCLAMPED else None


def _ends(channels: int, block_pixels: int) -> tuple[int, int, int, int]:
    """Return the offsets at which the parts of a thread's scratch end, in floats.

    They are rows of the masked input, their bits, sums of `gemm_skip_zeros`, and a register block of results.
    """
    words = -(-channels // WORD)
    sizes = block_pixels * (channels + LANES), block_pixels * 2 * words, block_pixels * WIDTHS[0] * LANES, ROWS * PANEL
    rows, bits, sums, tail = accumulate(sizes)
    return rows, bits, sums, tail


@kernel(Pixels)
@no_type_check
def _multiply_pixels(thread, threads, block):
    a = unpack(block, Pixels)
    scratch, pixels = a.scratch[thread], a.epilogue.out.size // a.filters
    rows, bits = scratch[: a.ends[0]], scratch[a.ends[0] : a.ends[1]].view(np.uint64)
    sums, tail = scratch[a.ends[1] : a.ends[2]], scratch[a.ends[2] :]
    row_blocks, row_pitch, words = -(-pixels // ROWS), a.channels + LANES, -(-a.channels // WORD)
    parts = -(-row_blocks * ROWS // (a.block_pixels * threads)) * threads
    part = next_part(thread, threads, block, parts)
    while part >= 0:
        start, stop = share(part, parts, row_blocks)
        first, nonzeros = start * ROWS, 0
        count = min(stop * ROWS, pixels) - first
        for t in range(count):
            nonzeros += _gather_pixel(a, first + t, rows, t * row_pitch, bits, t * words)
        begin = 0
        while nonzeros < a.skip_zeros_below * count * a.channels and a.filters - begin >= WIDTHS[-1] * LANES:
            width = _widest_block(a.filters - begin)
            gemm_skip_zeros(
                count, Rows(rows, 0, row_pitch), bits, Rows(a.weights, begin * a.channels, 0), a.channels, sums,
                a.epilogue, begin, first * a.filters + begin, a.filters, width,
            )  # fmt: skip
            begin += width * LANES
        for column in range(begin, a.filters, PANEL):
            _multiply_panel(a, first, count, column, rows, row_pitch, tail)
        part = next_part(thread, threads, block, parts)
    wait_for_stores()


@numba.njit(inline="always")
@no_type_check
def _gather_pixel(a, pixel, rows, row, bits, word):
    """Copy a masked pixel to `rows`, and to `masked` if wanted, and set a bit for each nonzero; return their number."""
    at, dense_at, count = pixel * a.pitch, pixel * a.channels, 0
    for begin in range(0, a.channels, WORD):
        flags = np.uint64(0)
        for c in range(begin, min(begin + WORD, a.channels), LANES):
            values = load_masked(a.values, at + c, a.mask, dense_at + c)
            store(rows, row + c, values)
            if a.masked.size:
                store(a.masked, dense_at + c, values)
            flags |= nonzero(values) << np.uint64(c - begin)
        bits[word + begin // WORD] = flags
        count += count_ones(flags)
    return count


@numba.njit(inline="always")
@no_type_check
def _widest_block(filters):
    """Return the largest of WIDTHS, in vectors, that `filters` filters fill, or 0."""
    for width in WIDTHS:
        if filters >= width * LANES:
            return width
    return 0


@numba.njit(inline="always")
@no_type_check
def _multiply_panel(a, first, count, column, rows, pitch, tail):
    """Multiply `count` rows by a panel.

    The last rows, fewer than a block, are computed as a whole block into `tail`, and only they are stored.
    """
    blocks, tail_rows, width = count // ROWS, count % ROWS, min(2, (a.filters - column) // LANES)
    weights, at, start = Rows(a.weights, column * a.channels, 0), first * a.filters + column, blocks * ROWS
    gemm_with_epilogue(blocks, Rows(rows, 0, pitch), weights, a.channels, a.epilogue, column, at, a.filters, width)
    if tail_rows:
        gemm(ROWS // HALF_ROWS, Rows(rows, start * pitch, pitch), weights, a.channels, Rows(tail, 0, PANEL), width)
    for r in range(tail_rows):
        for c in range(width):
            values = load(tail, r * PANEL + c * LANES)
            store_result(values, a.epilogue, column + c * LANES, at + (start + r) * a.filters + c * LANES)
