"""Exact tiles: windows and halos, and the tiled `GradientFn`. No files, no network code.

A unit of a layer with receptive field r sees pixels at most r - 1 apart, so the units that see a tile's pixels lie
within r - 1 px of it, and so does all that they see on the tile's side. A window that reaches as far beyond the tile,
begins at a multiple of the layer's total stride and is clipped only where the image ends, gives those units the values
that they have in the whole image; other units of the window are wrong, and have no say in the tile's gradient.

Windows end where the rest of the image is a multiple of the stride too. Networks with TensorFlow's padding divide the
padding between both sides by the size modulo the stride, and so pad a window as they would the image.

Jitter rolls the image. The windows are cut from the image where they were before it was rolled, and it is never moved.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.dreaming.gradient import check_finite, differentiate
from phosphene.dreaming.objective import Scoring, View
from phosphene.dreaming.resample import wrapped
from phosphene.types import FeaturesFn, GradientFn, Image, Shift, Size


@dataclass(frozen=True)
class Reach:
    """How far a layer sees: its total stride and its receptive field, in px."""

    stride: int
    receptive_field: int

    def exact_halo(self) -> int:
        """The smallest halo that gives the whole image's gradient."""
        return round_up(self.receptive_field - 1, self.stride)


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in px of the rolled image: its own pixels, and the window around them."""

    start: int
    stop: int
    window_start: int
    window_stop: int
    last: bool

    @property
    def own(self) -> slice:
        """The tile's own pixels."""
        return slice(self.start, self.stop)

    @property
    def window(self) -> slice:
        """The pixels of the window."""
        return slice(self.window_start, self.window_stop)

    def own_units(self, stride: int) -> tuple[int, int | None]:
        """The units of a layer that this span counts: start and stop, as indices into the window's."""
        first = (self.start - self.window_start) // stride
        return first, None if self.last else first + (self.stop - self.start) // stride


def spans(length: int, tile: int, halo: int, stride: int, min_window: int = 1) -> list[Span]:
    """Cut `length` px into tiles of `tile` px, rounded up to the stride; the last one takes what is left.

    A window that would be shorter than `min_window` px is made longer, where there is room.
    """
    tile, halo = round_up(max(tile, 1), stride), round_up(halo, stride)
    starts = range(0, length, tile)
    return [_span(start, min(start + tile, length), halo, length, stride, min_window) for start in starts]


def _span(start: int, stop: int, halo: int, length: int, stride: int, min_window: int) -> Span:
    window_start = max(0, min(start - halo, (length - min_window) // stride * stride))
    wanted = max(stop + halo, window_start + min_window)
    return Span(
        start=start,
        stop=stop,
        window_start=window_start,
        window_stop=min(length, wanted + (length - wanted) % stride),
        last=stop == length,
    )


@dataclass(frozen=True)
class Tile:
    """A tile's spans, downwards and across."""

    down: Span
    across: Span

    @property
    def window_size(self) -> Size:
        """Height and width of the window, in px."""
        return (
            self.down.window_stop - self.down.window_start,
            self.across.window_stop - self.across.window_start,
        )

    def own(self, gradients: Tensor) -> Tensor:
        """The tile's part of what a window [..., height, width] gave."""
        return gradients[..., _own_pixels(self.down), _own_pixels(self.across)]


@dataclass(frozen=True)
class Tiling:
    """A network and a scoring, with all that it takes to look at an image tile by tile.

    `tile` and `halo` are in px, `batch` is how many windows are looked at together, and `stride` is a common
    multiple of the layers' strides, `layer_strides`. With a halo of `Reach.exact_halo` the gradient is the whole
    image's up to rounding. `layer_sizes` says how many rows and columns of units each layer has for an image of a size.
    `min_side` is as in `whole_image_gradient`.
    """

    features: FeaturesFn
    scoring: Scoring
    tile: int
    halo: int
    stride: int
    layer_sizes: Callable[[Size], Mapping[str, tuple[int, int]]]
    layer_strides: Mapping[str, int]
    min_side: int = 1
    batch: int = 1

    def tiles(self, size: Size) -> list[Tile]:
        """Cut an image into tiles; an axis shorter than the network can see is not cut."""
        tile = self.tile if min(size) >= self.min_side else max(size)
        rows, columns = (spans(length, tile, self.halo, self.stride, self.min_side) for length in size)
        return [Tile(down, across) for down in rows for across in columns]

    def batches(self, size: Size) -> list[list[Tile]]:
        """Put tiles whose windows have one size together, at most `batch` of them."""
        alike: dict[Size, list[Tile]] = {}
        for tile in self.tiles(size):
            alike.setdefault(tile.window_size, []).append(tile)
        return [
            tiles[start : start + self.batch] for tiles in alike.values() for start in range(0, len(tiles), self.batch)
        ]

    def look(
        self, windows: Sequence[Image], tiles: Sequence[Tile], size: Size, shift: Shift
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each tile's scores [terms] and its own gradients [gradients, 3, height, width].

        `windows` are the tiles' windows of an image of `size`, rolled by `shift`.
        """
        whole = self.layer_sizes((max(size[0], self.min_side), max(size[1], self.min_side)))
        fraction = (shift[0] / size[0], shift[1] / size[1])
        views = [
            {name: _view(tile, self.layer_strides[name], whole[name], fraction) for name in self.scoring.layers}
            for tile in tiles
        ]
        found = differentiate(self.features, self.scoring, windows, views, self.min_side)
        return [(scores, tile.own(gradients)) for tile, (scores, gradients) in zip(tiles, found, strict=True)]


def tiled_gradient(tiling: Tiling) -> GradientFn:
    """Build the `GradientFn` that looks at the image tile by tile."""

    def gradient_in_tiles(image: Image, shift: Shift) -> tuple[float, Image]:
        size = (image.shape[1], image.shape[2])
        scores = image.new_zeros(len(tiling.scoring.scores))
        gradients = image.new_empty(tiling.scoring.gradients, *image.shape)
        for tiles in tiling.batches(size):
            for found in _look(tiling, tiles, image, shift, gradients):
                scores += found
        gradient = tiling.scoring.combine(gradients)
        check_finite(tiling.scoring, scores, gradient)
        return float(scores.sum()), gradient

    return gradient_in_tiles


def _look(tiling: Tiling, tiles: Sequence[Tile], image: Image, shift: Shift, gradients: Tensor) -> list[Tensor]:
    """Put the gradients of a batch of tiles into their places of `gradients`, and return the scores of each."""
    size = (image.shape[1], image.shape[2])
    found = tiling.look([_window(image, tile, shift) for tile in tiles], tiles, size, shift)
    for tile, (_, own) in zip(tiles, found, strict=True):
        rows, columns = map(wrapped, (tile.down.own, tile.across.own), shift, size)
        for down, band in zip(rows, _split(own, rows, 2), strict=True):
            for across, part in zip(columns, _split(band, columns, 3), strict=True):
                gradients[:, :, down, across] = part
    return [scores for scores, _ in found]


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple


def _window(image: Image, tile: Tile, shift: Shift) -> Tensor:
    """The tile's window of the image rolled by `shift`; a view of it, where the window does not reach over its edge."""
    rows, columns = map(wrapped, (tile.down.window, tile.across.window), shift, image.shape[1:])
    return _joined([_joined([image[:, down, across] for across in columns], 2) for down in rows], 1)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _split(part: Tensor, places: list[slice], dim: int) -> tuple[Tensor, ...]:
    return torch.split(part, [place.stop - place.start for place in places], dim)


def _own_pixels(span: Span) -> slice:
    return slice(span.start - span.window_start, span.stop - span.window_start)


def _view(tile: Tile, stride: int, whole: tuple[int, int], shift: tuple[float, float]) -> View:
    return View(
        whole=whole,
        origin=(tile.down.window_start // stride, tile.across.window_start // stride),
        rows=tile.down.own_units(stride),
        columns=tile.across.own_units(stride),
        shift=shift,
    )
