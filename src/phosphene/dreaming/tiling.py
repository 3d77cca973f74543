"""Exact tiles: how an image, or an activation, is cut into windows with halos. No files, no network code.

A unit of a layer with receptive field r sees pixels at most r - 1 apart, so the units that see a tile's pixels lie
within r - 1 px of it, and so does all that they see on the tile's side. A window that reaches as far beyond the tile,
begins at a multiple of the layer's total stride and is clipped only where the image ends, gives those units the values
that they have in the whole image; other units of the window are wrong, and have no say in the tile's gradient.

Windows end where the rest of the image is a multiple of the stride too. Networks with TensorFlow's padding divide the
padding between both sides by the size modulo the stride, and so pad a window as they would the image.

Jitter rolls the image. The windows are cut from the image where they were before it was rolled, and it is never moved.

What is cut may be an activation in place of an image: px are then its units.
"""

from dataclasses import dataclass

from torch import Tensor

from phosphene.types import Size


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

    @property
    def own_in_window(self) -> slice:
        """The tile's own pixels, counted from the window's first."""
        return slice(self.start - self.window_start, self.stop - self.window_start)

    def own_units(self, stride: int) -> tuple[int, int | None]:
        """The units of a layer that this span counts: start and stop, as indices into the window's."""
        first = (self.start - self.window_start) // stride
        return first, None if self.last else first + (self.stop - self.start) // stride

    def units(self, stride: int, total: int) -> slice:
        """The places of those units among the layer's, of which there are `total`."""
        return slice(min(self.start // stride, total), total if self.last else min(self.stop // stride, total))

    def window_units(self, stride: int, length: int, total: int) -> slice:
        """The places of all units of the window among the layer's, where the image has `length` px."""
        return slice(self.window_start // stride, total - (length - self.window_stop) // stride)


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
    def spans(self) -> tuple[Span, Span]:
        """Both."""
        return self.down, self.across

    @property
    def window_size(self) -> Size:
        """Height and width of the window, in px."""
        return (
            self.down.window_stop - self.down.window_start,
            self.across.window_stop - self.across.window_start,
        )

    def own(self, gradients: Tensor) -> Tensor:
        """The tile's part of what a window [..., height, width] gave."""
        return gradients[..., self.down.own_in_window, self.across.own_in_window]


def whole(size: Size) -> Tile:
    """Everything as one tile."""
    return Tile(*(Span(0, length, 0, length, last=True) for length in size))


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple
