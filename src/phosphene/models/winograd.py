"""3x3 convolutions with stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308).

The image is cut into windows of 6x6 that overlap by 2, windows and kernel are transformed, multiplied over the channels
for each of the 36 frequencies, and the products transformed back to 4x4 places: 36 multiplications in place of 144. The
products are PyTorch's; the transforms, which would go through memory many times if they were too, are compiled here.
"""

from math import inf
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from phosphene.models.kernels import compiled, run
from phosphene.models.tensors import channels_last

SIDE, OWN = 6, 4
"""Rows and columns of a window, and of the places that it gives."""

FREQUENCIES = SIDE * SIDE

KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
"""G of Lavin and Gray, section 4.2: what transforms a kernel. B and A are written out in the functions below."""

FEWEST, MOST, BLOCK = 128, 1024, 2_000_000
"""How many windows are transformed together: as many as make a block of so many numbers, which a cache may hold."""

CHANNELS = 64
"""Channels that are transformed together, so that a window stays in the first cache."""

TWO, FOUR, FIVE, EIGHT = map(np.float32, (2, 4, 5, 8))


def spectrum_of(weight: Tensor) -> Tensor:
    """Transform a kernel [filters, channels, 3, 3] to [36, channels, filters]."""
    filters, channels = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1).double()
    return (torch.kron(KERNEL, KERNEL) @ taps).view(FREQUENCIES, channels, filters).float()


def convolve(
    x: Tensor,
    spectrum: Tensor,
    bias: Tensor,
    padding: tuple[int, int],
    low: float = -inf,
    high: float = inf,
    passed: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Convolve `x` [batch, channels, rows, columns], float32 on the CPU, and clamp the result to `low`..`high`.

    `passed`, a mask of `x`, sets to zero where it is false. Returns the result and, where there is a clamp, a mask of
    what it let through.
    """
    _, channels, filters = spectrum.shape
    height, width = (side + 2 * pad - 2 for side, pad in zip(x.shape[2:], padding, strict=True))
    down, across = -(-height // OWN), -(-width // OWN)
    x, mask = channels_last(x), channels_last(x if passed is None else passed)
    out = x.new_empty(len(x), height, width, filters)
    clamps = (low, high) != (-inf, inf)
    through = x.new_empty(out.shape if clamps else (1, 1, 1, 1), dtype=torch.bool)
    windows = len(x) * down * across
    together = min(windows, MOST, max(FEWEST, BLOCK // (FREQUENCIES * (channels + filters))))
    for first in range(0, windows, together):
        count = min(together, windows - first)
        seen = x.new_empty(FREQUENCIES, count, channels)
        run(_analyse, x, mask, passed is not None, padding, (down, across), first, seen)
        products = torch.bmm(seen, spectrum)
        run(_synthesise, products, (down, across), first, bias, (low, high), clamps, out, through)
    return out.permute(0, 3, 1, 2), through.permute(0, 3, 1, 2) if clamps else None


@numba.njit(inline="always")
@no_type_check
def _to_frequencies(d0, d1, d2, d3, d4, d5, o0, o1, o2, o3, o4, o5):
    """B transposed, of Lavin and Gray."""
    for c in range(d0.size):
        even, odd = d4[c] - FOUR * d2[c], d3[c] - FOUR * d1[c]
        near, far = d4[c] - d2[c], TWO * (d3[c] - d1[c])
        o0[c] = even + FOUR * d0[c] - d2[c]
        o1[c], o2[c] = even + odd, even - odd
        o3[c], o4[c] = near + far, near - far
        o5[c] = FOUR * d1[c] - FIVE * d3[c] + d5[c]


@numba.njit(inline="always")
@no_type_check
def _to_places(m0, m1, m2, m3, m4, m5, o0, o1, o2, o3):
    """A transposed, of Lavin and Gray."""
    for c in range(o0.size):
        sum1, difference1, sum2, difference2 = m1[c] + m2[c], m1[c] - m2[c], m3[c] + m4[c], m3[c] - m4[c]
        o0[c] = m0[c] + sum1 + sum2
        o1[c] = difference1 + TWO * difference2
        o2[c] = sum1 + FOUR * sum2
        o3[c] = difference1 + EIGHT * difference2 + m5[c]


@compiled
@no_type_check
def _analyse(threads, x, mask, masked, padding, grid, first, seen):
    """Transform windows of x [batch, rows, columns, channels], `first` and on, into seen [36, windows, channels]."""
    windows = seen.shape[1]
    for thread in numba.prange(threads):
        window = np.empty((SIDE, SIDE, CHANNELS), np.float32)
        half = np.empty((SIDE, SIDE, CHANNELS), np.float32)
        for t in range(thread * windows // threads, (thread + 1) * windows // threads):
            place = first + t
            top = place // grid[1] % grid[0] * OWN - padding[0]
            left = place % grid[1] * OWN - padding[1]
            _analyse_window(x, mask, masked, place // (grid[0] * grid[1]), top, left, window, half, seen, t)


@numba.njit(inline="always")
@no_type_check
def _analyse_window(x, mask, masked, image, top, left, window, half, seen, t):
    _, height, width, channels = x.shape
    for start in range(0, channels, CHANNELS):
        stop = min(start + CHANNELS, channels)
        for i in range(SIDE):
            for j in range(SIDE):
                row, column, into = top + i, left + j, window[i, j]
                if row < 0 or row >= height or column < 0 or column >= width:
                    into[:] = 0
                elif masked:
                    source, kept = x[image, row, column, start:stop], mask[image, row, column, start:stop]
                    for c in range(source.size):
                        into[c] = source[c] * kept[c]
                else:
                    source = x[image, row, column, start:stop]
                    for c in range(source.size):
                        into[c] = source[c]
        w, h = window, half
        for j in range(SIDE):
            _to_frequencies(
                w[0, j], w[1, j], w[2, j], w[3, j], w[4, j], w[5, j],
                h[0, j], h[1, j], h[2, j], h[3, j], h[4, j], h[5, j],
            )  # fmt: skip
        for i in range(SIDE):
            f = SIDE * i
            _to_frequencies(
                h[i, 0, : stop - start], h[i, 1], h[i, 2], h[i, 3], h[i, 4], h[i, 5],
                seen[f, t, start:], seen[f + 1, t, start:], seen[f + 2, t, start:],
                seen[f + 3, t, start:], seen[f + 4, t, start:], seen[f + 5, t, start:],
            )  # fmt: skip


@compiled
@no_type_check
def _synthesise(threads, products, grid, first, bias, limits, clamps, out, through):
    """Transform products [36, windows, filters] back, into their places of out [batch, rows, columns, filters]."""
    windows = products.shape[1]
    low, high = np.float32(limits[0]), np.float32(limits[1])
    for thread in numba.prange(threads):
        half = np.empty((OWN, SIDE, CHANNELS), np.float32)
        places = np.empty((OWN, OWN, CHANNELS), np.float32)
        for t in range(thread * windows // threads, (thread + 1) * windows // threads):
            place = first + t
            top, left = place // grid[1] % grid[0] * OWN, place % grid[1] * OWN
            image = place // (grid[0] * grid[1])
            _synthesise_window(products, t, bias, low, high, clamps, half, places, out, through, image, top, left)


@numba.njit(inline="always")
@no_type_check
def _synthesise_window(products, t, bias, low, high, clamps, half, places, out, through, image, top, left):
    _, height, width, filters = out.shape
    for start in range(0, filters, CHANNELS):
        stop = min(start + CHANNELS, filters)
        p, h = products, half
        for j in range(SIDE):
            _to_places(
                p[j, t, start:], p[j + 6, t, start:], p[j + 12, t, start:],
                p[j + 18, t, start:], p[j + 24, t, start:], p[j + 30, t, start:],
                h[0, j, : stop - start], h[1, j], h[2, j], h[3, j],
            )  # fmt: skip
        for i in range(min(OWN, height - top)):
            _to_places(
                h[i, 0], h[i, 1], h[i, 2], h[i, 3], h[i, 4], h[i, 5],
                places[i, 0], places[i, 1], places[i, 2], places[i, 3],
            )  # fmt: skip
            for j in range(min(OWN, width - left)):
                value, shift = places[i, j], bias[start:stop]
                into = out[image, top + i, left + j, start:stop]
                if clamps:
                    kept = through[image, top + i, left + j, start:stop]
                    for c in range(into.size):
                        shifted = value[c] + shift[c]
                        into[c] = min(max(shifted, low), high)
                        kept[c] = (shifted > low) & (shifted < high)
                else:
                    for c in range(into.size):
                        into[c] = value[c] + shift[c]
