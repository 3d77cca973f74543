"""Convolutions with stride 1 by minimal filtering, on the CPU in float32.

The image is cut into windows that overlap, windows and kernel are transformed, multiplied over the channels at each
point of the transform, and the products transformed back: for a kernel of 3x3 and 4x4 places at once, 36
multiplications in place of 144. A kernel of one pixel is the same without transforms: a matrix product.

A thread takes a few windows at a time through all of this, so that what lies between stays in its cache.
"""

from dataclasses import dataclass
from functools import cache
from math import inf, prod
from typing import Any, no_type_check

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.models.filtering import PLACES, filtering
from phosphene.models.kernels import compiled, run
from phosphene.models.tensors import channels_last
from phosphene.models.vectors import (
    LANES,
    PANEL,
    ROWS,
    linear_map,
    load,
    load_where,
    multiply,
    store,
    store_clamped,
    store_shifted,
)  # fmt: skip

analysed = linear_map(lambda taps: filtering(taps).analysis)
synthesised = linear_map(lambda taps: filtering(taps).synthesis)

BLOCK, LARGE, MANY = 130_000, 4_000_000, 4
"""Numbers between the transforms that a thread's cache holds; and how many times ROWS windows are taken together at
least where the transformed kernel is so large that it comes from memory each time."""


@dataclass(frozen=True)
class Spectrum:
    """A transformed kernel."""

    taps: tuple[int, int]
    channels: int
    filters: int
    packed: Tensor
    """[points, panels of filters, channels, filters of a panel], zeros where there are no more filters; flat. The last
    panel has one vector if the filters end there."""

    def convolve(
        self,
        x: Tensor,
        bias: Tensor,
        padding: tuple[int, int],
        low: float = -inf,
        high: float = inf,
        passed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve `x` [batch, channels, rows, columns], float32 on the CPU, and clamp the result to `low`..`high`.

        `passed`, a mask of `x`, sets to zero where it is false. Returns the result and, where there is a clamp, a mask
        of what it let through.
        """
        sides = zip(x.shape[2:], padding, self.taps, strict=True)
        height, width = (side + 2 * pad - taps + 1 for side, pad, taps in sides)
        x, unused = channels_last(x), x.new_empty(0, dtype=torch.bool)
        mask = unused if passed is None else channels_last(passed)
        out = x.new_empty(len(x), height, width, self.filters)
        clamps = (low, high) != (-inf, inf)
        through = torch.empty_like(out, dtype=torch.bool) if clamps else unused
        run(
            _kernel_of(*self.taps), x.view(-1), mask.view(-1), tuple(x.shape), padding, self.packed, bias,
            (np.float32(low), np.float32(high)), out.view(-1), through.view(-1), tuple(out.shape),
            self._together(self.windows(out.shape)),
        )  # fmt: skip
        return out.permute(0, 3, 1, 2), through.permute(0, 3, 1, 2) if clamps else None

    @property
    def points(self) -> int:
        """How many numbers a window has of each channel, and multiplications of each channel and filter."""
        return prod(PLACES[taps] + taps - 1 for taps in self.taps)

    def windows(self, shape: torch.Size) -> int:
        """How many windows give a result of `shape` [batch, rows, columns, filters]."""
        sides = zip(shape[1:3], self.taps, strict=True)
        return shape[0] * prod(-(-side // PLACES[taps]) for side, taps in sides)

    def _together(self, windows: int) -> int:
        """How many windows a thread takes at once, a multiple of ROWS."""
        fit = BLOCK // (self.points * ROWS * (self.channels + self.filters))
        least = MANY if len(self.packed) >= LARGE else 1
        return ROWS * max(1, min(max(fit, least), -(-windows // ROWS)))


def spectrum_of(weight: Tensor) -> Spectrum:
    """Transform a kernel [filters, channels, rows, columns]."""
    filters, channels, *taps = weight.shape
    down, across = (torch.from_numpy(filtering(side).kernel) for side in taps)
    values = (torch.kron(down, across) @ weight.permute(2, 3, 1, 0).reshape(prod(taps), -1).double()).float()
    padded = F.pad(values.view(-1, channels, filters), (0, -filters % LANES))
    panels = [panel.flatten(1) for panel in padded.split(PANEL, dim=2)]
    return Spectrum((taps[0], taps[1]), channels, filters, torch.cat(panels, dim=1).flatten())


@cache
def _kernel_of(down_taps: int, across_taps: int) -> Any:
    """Return the kernel for so many rows and columns of taps, which are constants in it."""
    down, across = PLACES[down_taps], PLACES[across_taps]
    rows, columns = down + down_taps - 1, across + across_taps - 1
    points = rows * columns

    @compiled
    @no_type_check
    def convolve_windows(threads, x, mask, shape, padding, packed, bias, limits, out, through, result, together):
        channels, filters = shape[3], result[3]
        padded = -(-filters // LANES) * LANES
        high, wide = -(-result[1] // down), -(-result[2] // across)
        windows = result[0] * high * wide
        units = -(-windows // ROWS)
        for thread in numba.prange(threads):
            window, half = np.empty(points * LANES, np.float32), np.empty(points * LANES, np.float32)
            seen = np.empty(points * together * channels, np.float32)
            products = np.empty(points * together * padded, np.float32)
            start, stop = thread * units // threads * ROWS, (thread + 1) * units // threads * ROWS
            for first in range(start, stop, together):
                count = min(together, stop - first)
                for t in range(count):
                    place = min(first + t, windows - 1)
                    image, i, j = place // (high * wide), place // wide % high, place % wide
                    top, left = i * down - padding[0], j * across - padding[1]
                    _analyse(
                        x, mask, shape, image, top, left, window, half, seen, together, t,
                        rows, columns, down_taps, across_taps,
                    )  # fmt: skip
                for point in range(points):
                    for column in range(0, padded, PANEL):
                        panel = (point * padded + column) * channels
                        for t in range(0, count, ROWS):
                            row = point * together + t
                            at, to = row * channels, row * padded + column
                            if padded - column >= PANEL:
                                multiply(seen, at, channels, packed, panel, channels, products, to, padded, 2)
                            else:
                                multiply(seen, at, channels, packed, panel, channels, products, to, padded, 1)
                for t in range(min(count, windows - first)):
                    place = first + t
                    image, i, j = place // (high * wide), place // wide % high, place % wide
                    _synthesise(
                        products, together, t, bias, limits, window, half, out, through, result, image, i * down,
                        j * across, rows, columns, down, across, down_taps, across_taps,
                    )  # fmt: skip

    return convolve_windows


@numba.njit(inline="always")
@no_type_check
def _analyse(
    x, mask, shape, image, top, left, window, half, seen, windows, t, rows, columns, down_taps, across_taps
):  # fmt: skip
    """Transform a window of x [batch, rows, columns, channels] into window `t` of seen [points, windows, channels]."""
    _, height, width, channels = shape
    inside = top >= 0 and left >= 0 and top + rows <= height and left + columns <= width
    corner = ((image * height + top) * width + left) * channels
    for group in range(0, channels, LANES):
        c = min(group, channels - LANES)
        if not inside:
            _copy(x, mask, shape, image, top, left, c, window, rows, columns)
        for j in range(columns):
            if not inside:
                pixels = load(window, j * LANES, columns * LANES, rows)
            elif mask.size:
                pixels = load_where(x, mask, corner + j * channels + c, width * channels, rows)
            else:
                pixels = load(x, corner + j * channels + c, width * channels, rows)
            store(half, j * LANES, columns * LANES, analysed(down_taps, pixels))
        for i in range(rows):
            line = analysed(across_taps, load(half, i * columns * LANES, LANES, columns))
            store(seen, (i * columns * windows + t) * channels + c, windows * channels, line)


@numba.njit(inline="always")
@no_type_check
def _copy(x, mask, shape, image, top, left, c, window, rows, columns):
    """Copy a window that reaches over the edge, with zeros there."""
    _, height, width, channels = shape
    window[:] = 0
    for i in range(max(0, -top), min(rows, height - top)):
        for j in range(max(0, -left), min(columns, width - left)):
            at, to = ((image * height + top + i) * width + left + j) * channels + c, (i * columns + j) * LANES
            store(window, to, 0, load_where(x, mask, at, 0, 1) if mask.size else load(x, at, 0, 1))


@numba.njit(inline="always")
@no_type_check
def _synthesise(
    products, windows, t, bias, limits, line, half, out, through, shape, image, top, left,
    rows, columns, down, across, down_taps, across_taps,
):  # fmt: skip
    """Transform window `t` of products [points, windows, panels] back, into its places of `out`, and clamp it."""
    _, height, width, filters = shape
    stride = products.size // (rows * columns * windows)
    for group in range(0, filters, LANES):
        c = min(group, filters - LANES)
        for j in range(columns):
            values = load(products, (j * windows + t) * stride + c, columns * windows * stride, rows)
            store(half, j * LANES, columns * LANES, synthesised(down_taps, values))
        for i in range(min(down, height - top)):
            store(line, 0, LANES, synthesised(across_taps, load(half, i * columns * LANES, LANES, columns)))
            at = ((image * height + top + i) * width + left) * filters + c
            for j in range(min(across, width - left)):
                if through.size:
                    store_clamped(line, j * LANES, bias, c, limits[0], limits[1], out, through, at + j * filters)
                else:
                    store_shifted(line, j * LANES, bias, c, out, at + j * filters)
