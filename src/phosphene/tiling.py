"""Exact tiles: windows and halos, and the tiled `GradientFn`. No files, no network code.

A unit of a layer with receptive field r sees pixels at most r - 1 apart, so the units that see a tile's pixels lie
within r - 1 px of it, and so does all that they see on the tile's side. A window that reaches as far beyond the tile,
begins at a multiple of the layer's total stride and is clipped only where the image ends, gives those units the values
that they have in the whole image; other units of the window are wrong, and have no say in the tile's gradient.

Windows end where the rest of the image is a multiple of the stride too. Networks with TensorFlow's padding divide the
padding between both sides by the size modulo the stride, and so pad a window as they would the image.

Jitter rolls the image. The windows are cut from the rolled image by index, and it is never moved.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from phosphene.gradient import FeaturesFn, check_finite, differentiate
from phosphene.objective import Scoring, View
from phosphene.types import GradientFn, Image, Shift, Size


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

    def own_units(self, stride: int) -> tuple[int, int | None]:
        """The units of a layer that this span counts: start and stop, as indices into the window's."""
        first = (self.start - self.window_start) // stride
        return first, None if self.last else first + (self.stop - self.start) // stride


def spans(length: int, tile: int, halo: int, stride: int) -> list[Span]:
    """Cut `length` px into tiles of `tile` px, rounded up to the stride; the last one takes what is left."""
    tile, halo = round_up(max(tile, 1), stride), round_up(halo, stride)
    starts = range(0, length, tile)
    return [
        Span(
            start=start,
            stop=min(start + tile, length),
            window_start=max(0, start - halo),
            window_stop=_window_stop(min(start + tile, length), halo, length, stride),
            last=start == starts[-1],
        )
        for start in starts
    ]


def tiled_gradient(
    features: FeaturesFn,
    scoring: Scoring,
    *,
    tile: int,
    halo: int,
    stride: int,
    layer_sizes: Callable[[Size], Mapping[str, tuple[int, int]]],
    layer_strides: Mapping[str, int],
    min_side: int = 1,
) -> GradientFn:
    """Build the `GradientFn` that looks at the image tile by tile.

    `tile` and `halo` are in px, and `stride` is the least common multiple of the layers' strides, `layer_strides`. With
    a halo of `Reach.exact_halo` the gradient is the whole image's up to rounding. `layer_sizes` says how many rows and
    columns of units each layer has for an image of a size. `min_side` is as in `whole_image_gradient`.
    """

    def gradient_of(image: Image, shift: Shift) -> tuple[float, Image]:
        size = (image.shape[1], image.shape[2])
        whole = layer_sizes((max(size[0], min_side), max(size[1], min_side)))
        fraction = (shift[0] / size[0], shift[1] / size[1])
        scores = image.new_zeros(len(scoring.scores))
        gradients = image.new_zeros(scoring.gradients, *image.shape)
        for down, across in _grid(size, tile, halo, stride, min_side):
            views = {name: _view(down, across, layer_strides[name], whole[name], fraction) for name in scoring.layers}
            rows = _rolled(down, shift[0], size[0], image.device)
            columns = _rolled(across, shift[1], size[1], image.device)
            window = image[:, rows][:, :, columns]
            window_scores, window_gradients = differentiate(features, scoring, window, views, min_side)
            own_rows, own_columns = _own_pixels(down), _own_pixels(across)
            scores += window_scores
            gradients[:, :, rows[own_rows, None], columns[None, own_columns]] = window_gradients[
                :, :, own_rows, own_columns
            ]
        gradient = scoring.combine(gradients)
        check_finite(scoring, scores, gradient)
        return float(scores.sum()), gradient

    return gradient_of


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple


def _window_stop(stop: int, halo: int, length: int, stride: int) -> int:
    wanted = stop + halo
    return min(length, wanted + (length - wanted) % stride)


def _grid(size: Size, tile: int, halo: int, stride: int, min_side: int) -> Iterator[tuple[Span, Span]]:
    """All pairs of spans; an axis shorter than the network can see is not cut."""
    rows, columns = (
        spans(length, tile if min(size) >= min_side else length, max(halo, min_side), stride) for length in size
    )
    return ((down, across) for down in rows for across in columns)


def _rolled(span: Span, shift: int, length: int, device: torch.device) -> torch.Tensor:
    """Indices into the image of the window's pixels in the rolled image."""
    return (torch.arange(span.window_start, span.window_stop, device=device) - shift) % length


def _own_pixels(span: Span) -> slice:
    return slice(span.start - span.window_start, span.stop - span.window_start)


def _view(down: Span, across: Span, stride: int, whole: tuple[int, int], shift: tuple[float, float]) -> View:
    return View(
        whole=whole,
        origin=(down.window_start // stride, across.window_start // stride),
        rows=down.own_units(stride),
        columns=across.own_units(stride),
        shift=shift,
    )
