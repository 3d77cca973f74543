"""Convolutions by minimal filtering, on the CPU in float32.

The image is cut into windows that overlap, windows and kernel are transformed, multiplied over the channels at each
point of the transform, and the products transformed back: for a kernel of 3x3 and 4x4 places at once, 36
multiplications in place of 144.

A thread takes a few windows at a time through all of this, so that what lies between stays in its cache.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from math import inf, prod
from typing import no_type_check

import numba
import torch
from torch import Tensor

from phosphene.engine.clamp import UNCLAMPED
from phosphene.engine.cpu.gemm import HALF, PANEL, ROWS, multiply, pack
from phosphene.engine.cpu.kernel import Kernel, compiled, given, next_part, run, share
from phosphene.engine.cpu.toom_cook import Filtering, adjoint, filtering
from phosphene.engine.cpu.vectors import (
    LANES,
    linear_map,
    load,
    load_where,
    store,
    store_clamped,
    store_shifted,
    wait_for_stores,
)
from phosphene.engine.layout import NO_MASK, Pair, in_order, new_in_order, pixels

analysed = linear_map(lambda key: _filtering_of(key).analysis)
synthesised = linear_map(lambda key: _filtering_of(key).synthesis)

BLOCK, LARGE, MANY = 130_000, 4_000_000, 4
"""Numbers between the transforms that a thread's cache holds; and how many times ROWS windows may be taken together in
any case where the transformed kernel is so large that it comes from memory each time."""


@dataclass(frozen=True)
class Spectrum:
    """A transformed kernel."""

    keys: tuple[str, str]
    """Of the filterings of rows and columns."""
    channels: int
    filters: int
    packed: Tensor
    """The products' second factors, of each point, laid out as `pack` does."""

    def convolve(
        self,
        x: Tensor,
        bias: Tensor,
        size: torch.Size | Pair,
        before: Pair,
        left_out: Pair,
        low: float = -inf,
        high: float = inf,
        passed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve `x` [batch, channels, rows, columns], float32 on the CPU, and clamp the result to `low`..`high`.

        The result has `size` rows and columns. The first window begins `before` rows and columns in front of `x`, and
        the first `left_out` of what comes out are not part of the result. `passed`, a mask of `x`, sets to zero where
        it is false. Returns the result and, where there is a clamp, a mask of what it let through.
        """
        if min(size) < 1:
            raise RuntimeError(f"an image of {tuple(x.shape[2:])} px is smaller than the kernel that reads it")
        mask = NO_MASK if passed is None else in_order(passed)
        values, pitch = pixels(x)
        out = new_in_order(x, self.filters, size)
        clamps = (low, high) != UNCLAMPED
        through = torch.empty_like(out, dtype=torch.bool) if clamps else NO_MASK
        grid = self.grid(size, left_out)
        together = self._together(x.shape[0] * prod(grid))
        run(
            _kernel_of(*self.keys), values, pitch, mask, tuple(x.shape), before, self.packed, bias, low, high, out,
            through, (len(x), *size, self.filters), left_out, grid, together, own=self._own(together),
        )  # fmt: skip
        return out, through if clamps else None

    @cached_property
    def points(self) -> int:
        """How many numbers a window has of each channel, and multiplications of each channel and filter."""
        return prod(len(_filtering_of(key).analysis) for key in self.keys)

    @cached_property
    def places(self) -> Pair:
        """How many rows and columns a window gives."""
        down, across = (len(_filtering_of(key).synthesis) for key in self.keys)
        return down, across

    def grid(self, size: torch.Size | Pair, left_out: Pair) -> Pair:
        """How many rows and columns of windows give a result of `size`."""
        down, across = (-(-(side + out) // own) for side, out, own in zip(size, left_out, self.places, strict=True))
        return down, across

    def _together(self, windows: int) -> int:
        """How many windows a thread takes at once at most, a multiple of ROWS."""
        fit = BLOCK // (self.points * ROWS * (self.channels + self.filters))
        least = MANY if len(self.packed) >= LARGE else 1
        return ROWS * max(1, min(max(fit, least), -(-windows // ROWS)))

    def _own(self, together: int) -> int:
        """How many numbers a thread keeps on the way: a window twice, and `together` of them, transformed."""
        padded = self.filters + -self.filters % LANES
        return 2 * _room(*self.keys) + self.points * together * (self.channels + padded)


def spectrum_of(weight: Tensor, stride: Pair, back: bool) -> Spectrum:
    """Transform a kernel [filters, channels, rows, columns], or its adjoint, to go back."""
    filters, channels, *taps = weight.shape
    axes = list(zip(taps, stride, strict=True))
    transform = torch.kron(*(torch.from_numpy((adjoint if back else filtering)(*axis).kernel) for axis in axes))
    down, across = (_key(*axis, back) for axis in axes)
    order, pair = ((2, 3, 0, 1), (filters, channels)) if back else ((2, 3, 1, 0), (channels, filters))
    values = (transform @ weight.permute(order).reshape(prod(taps), -1).double()).float()
    return Spectrum((down, across), *pair, pack(values.view(-1, *pair)))


def _key(taps: int, stride: int, back: bool) -> str:
    """Name a filtering. Kernels are kept by this name, so it means the same in each process.

    With stride 1 a way back is a way forth, with another kernel.
    """
    return f"{taps} {stride} {'back' if back and stride > 1 else 'forth'}"


def _filtering_of(key: str) -> Filtering:
    taps, stride, way = key.split()
    return (adjoint if way == "back" else filtering)(int(taps), int(stride))


@cache
def _room(down: str, across: str) -> int:
    """How many numbers a window takes, in front of its transforms, between them, or behind them."""
    filterings = map(_filtering_of, (down, across))
    sides: list[int] = [max(*found.analysis.shape, len(found.synthesis)) for found in filterings]
    return prod(sides) * LANES


WINDOWS = """
    float32[1] int bool[1] int[4] int[2] float32[1] float32[1] float float
    float32[1] bool[1] int[4] int[2] int[2] int float32[2]
"""


@cache
def _kernel_of(down: str, across: str) -> Kernel:
    """Return the kernel for the filterings of rows and columns, which are constants in it."""
    one, other = _filtering_of(down), _filtering_of(across)
    (high, rows), (wide, columns) = one.analysis.shape, other.analysis.shape
    below, beside = len(one.synthesis), len(other.synthesis)
    down_step, across_step = one.step, other.step
    points = high * wide
    room = _room(down, across)

    @compiled(WINDOWS)
    @no_type_check
    def convolve_windows(thread, threads, block):
        (
            x, pitch, mask, shape, before, packed, bias, lowest, highest,
            out, through, result, left_out, grid, together, own,
        ) = given(block, WINDOWS)  # fmt: skip
        channels, filters = shape[1], result[3]
        padded = -(-filters // LANES) * LANES
        windows = result[0] * grid[0] * grid[1]
        units = -(-windows // HALF)
        window, half, kept = own[thread, :room], own[thread, room : 2 * room], own[thread, 2 * room :]
        seen, products = kept[: points * together * channels], kept[points * together * channels :]
        parts = -(-units * HALF // (together * threads)) * threads
        part = next_part(thread, threads, block, parts)
        while part >= 0:
            start, stop = share(part, parts, units)
            first, count = start * HALF, (stop - start) * HALF
            for t in range(count):
                place = min(first + t, windows - 1)
                image, i, j = place // (grid[0] * grid[1]), place // grid[1] % grid[0], place % grid[1]
                top, left = i * down_step - before[0], j * across_step - before[1]
                _analyse(
                    x, pitch, mask, shape, image, top, left, window, half, seen, together, t,
                    rows, columns, high, down, across,
                )  # fmt: skip
            for point in range(points):
                for column in range(0, padded, PANEL):
                    panel = (point * padded + column) * channels
                    halves, at, to = count // HALF, point * together * channels, point * together * padded + column
                    width = min(2, (padded - column) // LANES)
                    multiply(halves, seen, at, channels, packed, panel, channels, products, to, padded, width)
            for t in range(min(count, windows - first)):
                place = first + t
                image, i, j = place // (grid[0] * grid[1]), place // grid[1] % grid[0], place % grid[1]
                top, left = i * below - left_out[0], j * beside - left_out[1]
                _synthesise(
                    products, together, t, bias, lowest, highest, window, half, out, through, result, image, top, left,
                    high, wide, below, beside, down, across,
                )  # fmt: skip
            part = next_part(thread, threads, block, parts)
        wait_for_stores()

    kernel: Kernel = convolve_windows
    return kernel


@numba.njit(inline="always")
@no_type_check
def _analyse(
    x, pitch, mask, shape, image, top, left, window, half, seen, windows, t, rows, columns, high, down, across
):  # fmt: skip
    """Transform a window of `x`, whose pixels are `pitch` numbers apart, into window `t` of `seen`, which is
    [points, windows, channels]."""
    _, channels, height, width = shape
    inside = top >= 0 and left >= 0 and top + rows <= height and left + columns <= width
    corner = (image * height + top) * width + left
    points = seen.size // (high * windows * channels)
    for group in range(0, channels, LANES):
        c = min(group, channels - LANES)
        if not inside:
            _copy(x, pitch, mask, shape, image, top, left, c, window, rows, columns)
        for j in range(columns):
            if not inside:
                column = load(window, j * LANES, columns * LANES, rows)
            elif mask.size:
                at, own = (corner + j) * pitch + c, (corner + j) * channels + c
                column = load_where(x, at, width * pitch, mask, own, width * channels, rows)
            else:
                column = load(x, (corner + j) * pitch + c, width * pitch, rows)
            store(half, j * LANES, columns * LANES, analysed(down, column))
        for i in range(high):
            line = analysed(across, load(half, i * columns * LANES, LANES, columns))
            store(seen, (i * points * windows + t) * channels + c, windows * channels, line)


@numba.njit(inline="always")
@no_type_check
def _copy(x, pitch, mask, shape, image, top, left, c, window, rows, columns):
    """Copy a window that reaches over the edge, with zeros there."""
    _, channels, height, width = shape
    window[:] = 0
    for i in range(max(0, -top), min(rows, height - top)):
        for j in range(max(0, -left), min(columns, width - left)):
            pixel, to = (image * height + top + i) * width + left + j, (i * columns + j) * LANES
            at, own = pixel * pitch + c, pixel * channels + c
            store(window, to, 0, load_where(x, at, 0, mask, own, 0, 1) if mask.size else load(x, at, 0, 1))


@numba.njit(inline="always")
@no_type_check
def _synthesise(
    products, windows, t, bias, lowest, highest, line, half, out, through, shape, image, top, left,
    high, wide, below, beside, down, across,
):  # fmt: skip
    """Transform window `t` of products [points, windows, panels] back, into its places of `out`, and clamp it.

    Results of less than a vector are gradients, which have no bias and are not clamped.
    """
    _, height, width, filters = shape
    stride = products.size // (high * wide * windows)
    for group in range(0, filters, LANES):
        c = max(0, min(group, filters - LANES))
        for j in range(wide):
            values = load(products, (j * windows + t) * stride + c, wide * windows * stride, high)
            store(half, j * LANES, wide * LANES, synthesised(down, values))
        for i in range(max(0, -top), min(below, height - top)):
            store(line, 0, LANES, synthesised(across, load(half, i * wide * LANES, LANES, wide)))
            at = ((image * height + top + i) * width + left) * filters + c
            for j in range(max(0, -left), min(beside, width - left)):
                if filters < LANES:
                    for k in range(filters):
                        out[at + j * filters + k] = line[j * LANES + k]
                elif through.size:
                    store_clamped(line, j * LANES, bias, c, lowest, highest, out, through, at + j * filters)
                else:
                    store_shifted(line, j * LANES, bias, c, out, at + j * filters)
