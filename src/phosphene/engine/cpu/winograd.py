"""Convolutions by Winograd's minimal filtering, on the CPU in float32.

The image is cut into overlapping tiles. Tiles and weights are transformed; at each point of the transform they are
multiplied and summed over the channels, which is a GEMM; and the products are transformed back. F(4x4, 3x3) takes 36
multiplications in place of 144.

    tile of inputs ->  analysis by columns, then rows  ->  GEMM at each point  ->  synthesis by columns, then rows
                                                                                           -> epilogue -> outputs

A thread takes a block of tiles through all of this, so that the intermediate values stay in its cache.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf, prod
from typing import NamedTuple, no_type_check

import numba
import torch
from torch import Tensor

from phosphene.engine.clamp import UNCLAMPED
from phosphene.engine.cpu.gemm import HALF_ROWS, PANEL, ROWS, Rows, gemm, pack
from phosphene.engine.cpu.kernel import Bools, Floats, Scratch, kernel, next_part, run, share, unpack
from phosphene.engine.cpu.toom_cook import Filtering, adjoint, filtering
from phosphene.engine.cpu.transform import Columns, filtering_of, transform, transform_address
from phosphene.engine.cpu.vectors import LANES, Epilogue, load, load_masked, store, store_result, wait_for_stores
from phosphene.engine.layout import NO_MASK, NO_TENSOR, Pair, channels_last, new_channels_last, pixels
from phosphene.engine.tuning import Tuning


class Source(NamedTuple):
    """The pixels of a batch of images, `pitch` floats apart.

    They are read as zero where `mask` is false; an empty mask is true everywhere.
    """

    pixels: Floats
    pitch: int
    mask: Bools
    shape: tuple[int, int, int, int]
    """Images, channels, rows, columns."""


class Axis(NamedTuple):
    """The filtering along one axis: the addresses of its transforms, and the side of a tile at each stage."""

    analysis: int
    synthesis: int
    inputs: int
    points: int
    outputs: int
    step: int
    """Inputs from one tile to the next."""


class Filter(NamedTuple):
    """The kernel's arguments."""

    source: Source
    lead: Pair
    """Rows and columns in front of the image at which the first tile begins."""
    down: Axis
    across: Axis
    weights: Floats
    epilogue: Epilogue
    result: tuple[int, int, int, int]
    """Images, rows, columns, filters."""
    crop: Pair
    """Leading rows and columns of the tiles' outputs that are not part of the result."""
    grid: Pair
    """Rows and columns of tiles."""
    block_tiles: int
    """Tiles that a thread takes at a time at most."""
    tile_floats: int
    """Floats of a tile, for one vector of channels, at the stage where they are most."""
    scratch: Scratch


@dataclass(frozen=True)
class TransformedWeights:
    """A kernel's weights at each point of the transform, packed for `gemm`."""

    keys: tuple[str, str]
    """The names of the filterings along rows and columns."""
    channels: int
    filters: int
    packed: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return self.packed.nbytes

    def convolve(
        self,
        x: Tensor,
        bias: Tensor,
        size: Pair,
        lead: Pair,
        crop: Pair = (0, 0),
        *,
        limits: tuple[float, float] = (-inf, inf),
        mask: Tensor | None = None,
        addend: Tensor | None = None,
        tuning: Tuning = Tuning(),
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve `x` [batch, channels, rows, columns], float32 on the CPU, add `bias` and `addend`, and clamp.

        The result has `size` rows and columns. The first tile begins `lead` rows and columns in front of `x`, and the
        first `crop` rows and columns of the outputs are dropped. Where `mask`, of the shape of `x`, is false, `x` is
        read as zero. Returns the result and, if there is a clamp, its mask. Raises `RuntimeError` if the result is
        empty.
        """
        if min(size) < 1:
            raise RuntimeError(f"an image of {tuple(x.shape[2:])} px is smaller than the kernel that reads it")
        values, pitch = pixels(x)
        out = new_channels_last(x, self.filters, size)
        out_mask = torch.empty_like(out, dtype=torch.bool) if limits != UNCLAMPED else NO_MASK
        grid, (down, across) = self.grid(size, crop), map(_axis, self.keys)
        block_tiles = self._block_tiles(len(x) * prod(grid), tuning)
        tile_floats = LANES * prod(max(side.inputs, side.points, side.outputs) for side in (down, across))
        padded = self.filters + -self.filters % LANES
        run(
            _filter_tiles,
            Filter(
                Source(values, pitch, NO_MASK if mask is None else channels_last(mask), (*x.shape,)),
                lead, down, across, self.packed,
                Epilogue(bias, NO_TENSOR if addend is None else channels_last(addend), *limits, out, out_mask),
                (len(x), *size, self.filters), crop, grid, block_tiles, tile_floats,
                2 * tile_floats + self.points * block_tiles * (self.channels + padded),
            ),
        )  # fmt: skip
        return out, out_mask if limits != UNCLAMPED else None

    @cached_property
    def points(self) -> int:
        """Points of a tile: multiplications for each tile, channel and filter."""
        return prod(len(filtering_of(key).analysis) for key in self.keys)

    def grid(self, size: Pair, crop: Pair) -> Pair:
        """Return how many rows and columns of tiles a result of `size` takes."""
        outputs = (len(filtering_of(key).synthesis) for key in self.keys)
        down, across = (-(-(side + out) // own) for side, out, own in zip(size, crop, outputs, strict=True))
        return down, across

    def _block_tiles(self, tiles: int, tuning: Tuning) -> int:
        """Return how many tiles a thread takes at a time at most: a multiple of ROWS."""
        fit = tuning.transformed // (self.points * ROWS * (self.channels + self.filters))
        least = tuning.large_weights_blocks if len(self.packed) >= tuning.large_weights else 1
        return ROWS * max(1, min(max(fit, least), -(-tiles // ROWS)))


def transformed(weight: Tensor, stride: Pair, back: bool) -> TransformedWeights:
    """Transform a kernel [filters, channels, rows, columns], or with `back` its adjoint, for the backward pass."""
    filters, channels, *taps = weight.shape
    axes = list(zip(taps, stride, strict=True))
    transform = torch.kron(*(torch.from_numpy((adjoint if back else filtering)(*axis).kernel) for axis in axes))
    down, across = (_key(*axis, back) for axis in axes)
    order, pair = ((2, 3, 0, 1), (filters, channels)) if back else ((2, 3, 1, 0), (channels, filters))
    values = (transform @ weight.permute(order).reshape(prod(taps), -1).double()).float()
    return TransformedWeights((down, across), *pair, pack(values.view(-1, *pair)))


def _key(taps: int, stride: int, back: bool) -> str:
    """Name a filtering. With stride 1, the adjoint is a filtering too, with other weights."""
    return f"{taps} {stride} {'adjoint' if back and stride > 1 else 'forward'}"


def _axis(key: str) -> Axis:
    matrices: Filtering = filtering_of(key)
    (points, inputs), outputs = matrices.analysis.shape, len(matrices.synthesis)
    analysis, synthesis = (transform_address(key, part) for part in ("analysis", "synthesis"))
    return Axis(analysis, synthesis, inputs, points, outputs, matrices.step)


@kernel(Filter)
@no_type_check
def _filter_tiles(thread, threads, block):
    a = unpack(block, Filter)
    channels, filters = a.source.shape[1], a.result[3]
    padded, points = -(-filters // LANES) * LANES, a.down.points * a.across.points
    tiles = a.result[0] * a.grid[0] * a.grid[1]
    row_blocks = -(-tiles // HALF_ROWS)
    own = a.scratch[thread]
    tile, half, work = own[: a.tile_floats], own[a.tile_floats : 2 * a.tile_floats], own[2 * a.tile_floats :]
    inputs, products = work[: points * a.block_tiles * channels], work[points * a.block_tiles * channels :]
    parts = -(-row_blocks * HALF_ROWS // (a.block_tiles * threads)) * threads
    part = next_part(thread, threads, block, parts)
    while part >= 0:
        start, stop = share(part, parts, row_blocks)
        first, count = start * HALF_ROWS, (stop - start) * HALF_ROWS
        for t in range(count):
            _analyse(a, min(first + t, tiles - 1), t, tile, half, inputs)
        for point in range(points):
            for column in range(0, padded, PANEL):
                gemm(
                    count // HALF_ROWS, Rows(inputs, point * a.block_tiles * channels, channels),
                    Rows(a.weights, (point * padded + column) * channels, 0), channels,
                    Rows(products, point * a.block_tiles * padded + column, padded), min(2, (padded - column) // LANES),
                )  # fmt: skip
        for t in range(min(count, tiles - first)):
            _synthesise(a, first + t, t, products, padded, half, tile)
        part = next_part(thread, threads, block, parts)
    wait_for_stores()


@numba.njit(inline="always")
@no_type_check
def _corner(a, number, down, across):
    """Return the image of tile `number`, and the row and column where it begins; tiles are `down` rows and `across`
    columns apart."""
    image, i, j = number // (a.grid[0] * a.grid[1]), number // a.grid[1] % a.grid[0], number % a.grid[1]
    return image, i * down, j * across


@numba.njit(inline="always")
@no_type_check
def _analyse(a, number, t, tile, half, inputs):
    """Transform tile `number` into `inputs[:, t]` [points, block_tiles, channels], a vector of channels at a time."""
    image, top, left = _corner(a, number, a.down.step, a.across.step)
    top, left = top - a.lead[0], left - a.lead[1]
    (_, channels, height, width), pitch = a.source.shape, a.source.pitch
    inside = top >= 0 and left >= 0 and top + a.down.inputs <= height and left + a.across.inputs <= width
    corner, row, step = (image * height + top) * width + left, a.across.inputs * LANES, a.block_tiles * channels
    unmasked = a.source.mask[:0]
    for group in range(0, channels, LANES):
        c = min(group, channels - LANES)
        source, mask = Columns(tile, 0, row, LANES), Columns(unmasked, 0, 0, 0)
        if inside:
            source = Columns(a.source.pixels, corner * pitch + c, width * pitch, pitch)
            mask = Columns(a.source.mask, corner * channels + c, width * channels, channels)
        else:
            _copy_inside(a.source, image, top, left, c, a.down.inputs, a.across.inputs, tile)
        transform(a.down.analysis, source, mask, Columns(half, 0, row, LANES), a.across.inputs)
        target = Columns(inputs, t * channels + c, step, a.across.points * step)
        transform(a.across.analysis, Columns(half, 0, LANES, row), Columns(unmasked, 0, 0, 0), target, a.down.points)


@numba.njit(inline="always")
@no_type_check
def _copy_inside(source, image, top, left, c, rows, columns, tile):
    """Copy a tile that reaches over the edge of the image, with zeros outside."""
    _, channels, height, width = source.shape
    tile[:] = 0
    for i in range(max(0, -top), min(rows, height - top)):
        for j in range(max(0, -left), min(columns, width - left)):
            pixel = (image * height + top + i) * width + left + j
            values = load_masked(source.pixels, pixel * source.pitch + c, source.mask, pixel * channels + c)
            store(tile, (i * columns + j) * LANES, values)


@numba.njit(inline="always")
@no_type_check
def _synthesise(a, number, t, products, padded, half, tile):
    """Transform tile `t` of `products` [points, block_tiles, padded filters] back, and store its outputs.

    With fewer filters than LANES the result is a gradient, which has no epilogue.
    """
    image, top, left = _corner(a, number, a.down.outputs, a.across.outputs)
    top, left = top - a.crop[0], left - a.crop[1]
    _, height, width, filters = a.result
    unmasked, step, row = a.source.mask[:0], a.block_tiles * padded, a.across.points * LANES
    for group in range(0, filters, LANES):
        c = max(0, min(group, filters - LANES))
        source = Columns(products, t * padded + c, a.across.points * step, step)
        transform(a.down.synthesis, source, Columns(unmasked, 0, 0, 0), Columns(half, 0, row, LANES), a.across.points)
        target = Columns(tile, 0, LANES, a.across.outputs * LANES)
        transform(a.across.synthesis, Columns(half, 0, LANES, row), Columns(unmasked, 0, 0, 0), target, a.down.outputs)
        for i in range(max(0, -top), min(a.down.outputs, height - top)):
            at = ((image * height + top + i) * width + left) * filters + c
            for j in range(max(0, -left), min(a.across.outputs, width - left)):
                place = (i * a.across.outputs + j) * LANES
                if filters < LANES:
                    for k in range(filters):
                        a.epilogue.out[at + j * filters + k] = tile[place + k]
                else:
                    store_result(load(tile, place), a.epilogue, c, at + j * filters)
