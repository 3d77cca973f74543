"""Ways to compute a frozen convolution and its adjoint, with the clamp behind it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.engine.clamp import UNCLAMPED, clamp_, clamped_sum, masked
from phosphene.engine.cpu.toom_cook import beyond, places_of
from phosphene.engine.layout import Pair, unread
from phosphene.libraries import Conv2dSame, get_same_padding

FEWEST = 16
"""Channels or filters that are read from which filtering is the faster way. A vector has no more, and our own product
takes multiples of it."""


class Convolution(nn.Module):
    """What a convolution with frozen weights computes, and the clamp to `low`..`high` behind it.

    `read_once`: the gradient that comes back is a tensor of its own, since the only reader of the output hands back
    such a one, and may be overwritten. `owns_beside`: the same of the gradient that comes back for the input, where it
    was passed on: one other reads it, and hands back a tensor of its own.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, low: float, high: float) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach())
        self.stride, self.padding = pair(conv.stride), pair(conv.padding)
        self.dilation, self.groups = conv.dilation, conv.groups
        self.same = isinstance(conv, Conv2dSame)
        self.low, self.high = low, high
        self.read_once = self.owns_beside = False

    @property
    def is_pointwise(self) -> bool:
        """Whether an output sees one place."""
        return self.weight.shape[2:] == (1, 1) and self.padding == (0, 0) and self.groups == 1 and not self.same

    @property
    def clamps(self) -> bool:
        """Whether anything is clamped."""
        return (self.low, self.high) != UNCLAMPED

    def margins(self, size: torch.Size) -> tuple[list[int], Pair]:
        """Return the padding of both sides for an image of `size`, and how many of the first units are too many.

        TensorFlow pads one pixel more behind than in front where the sum is odd. That is a stride more in front, and
        the first unit left out.
        """
        if not self.same:
            return list(self.padding), (0, 0)
        kernel, stride = self.weight.shape[2:], self.stride
        total = [get_same_padding(*axis) for axis in zip(size, kernel, stride, self.dilation, strict=True)]
        padding = [pad // 2 + pad % 2 * step for pad, step in zip(total, stride, strict=True)]
        return padding, (total[0] % 2, total[1] % 2)


class Way(ABC):
    """A way to compute a frozen convolution, and its gradient.

    `grid` units a side are computed together: a crop that begins at a multiple of it is computed to the same bits.
    """

    grid = 1

    def __init__(self, conv: Convolution) -> None:
        self.conv = conv

    @abstractmethod
    def apply(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Convolve, add `other` and clamp; return the result, and a mask of what passed if there is a clamp."""

    @abstractmethod
    def adjoint(
        self, y: Tensor, mask: Tensor | None, shape: torch.Size, beside: Tensor | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients with respect to an input of `shape`, plus `beside`, and to `other` if there was one,
        given the one with respect to the output."""


class Direct(Way):
    """PyTorch's own convolution."""

    def apply(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        return _clamped(self.conv, self._forth(x), other)

    def adjoint(
        self, y: Tensor, mask: Tensor | None, shape: torch.Size, beside: Tensor | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Way.adjoint`."""
        y = _unclamped(self.conv, y, mask)
        return _added(self._back(y, shape), beside), y if is_sum else None

    def _forth(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding, (down, across) = conv.margins(x.shape[2:])
        y = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        return y[:, :, down:, across:].contiguous(memory_format=torch.channels_last) if down or across else y

    def _back(self, y: Tensor, shape: torch.Size) -> Tensor:
        conv = self.conv
        padding, (down, across) = conv.margins(shape[2:])
        if down or across:
            y = F.pad(y, (across, 0, down, 0))
        x = unread(y, shape)
        found: Tensor = torch.ops.aten.convolution_backward(
            y, x, conv.weight, None, conv.stride, padding, conv.dilation, False, [0, 0], conv.groups,
            [True, False, False],
        )[0]  # fmt: skip
        return found


class Product(Direct):
    """A kernel of one pixel: a matrix product over all places."""

    def __init__(self, conv: Convolution) -> None:
        super().__init__(conv)
        self.weight = conv.weight[:, :, 0, 0].contiguous()
        self.transposed = self.weight.T.contiguous()

    def _forth(self, x: Tensor) -> Tensor:
        places = every(x, self.conv.stride).permute(0, 2, 3, 1)
        y = torch.addmm(self.conv.bias, places.reshape(-1, x.shape[1]), self.transposed)
        return y.view(*places.shape[:3], -1).permute(0, 3, 1, 2)

    def _back(self, y: Tensor, shape: torch.Size) -> Tensor:
        places = y.permute(0, 2, 3, 1)
        seen = torch.mm(places.reshape(-1, y.shape[1]), self.weight)
        return _spread(seen.view(*places.shape[:3], -1).permute(0, 3, 1, 2), shape, self.conv.stride)


class Pointwise(Direct):
    """A kernel of one pixel: our own product, with all that stands around it."""

    def __init__(self, conv: Convolution) -> None:
        from phosphene.engine.cpu.gemm import pack

        super().__init__(conv)
        weight = conv.weight[:, :, 0, 0]
        self.forth, self.back = pack(weight.T[None]), pack(weight[None])
        self.nothing = conv.bias.new_zeros(weight.shape[1])

    def apply(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        from phosphene.engine.cpu.pointwise import convolve

        conv = self.conv
        return convolve(every(x, conv.stride), self.forth, conv.bias, conv.low, conv.high, other=other)

    def adjoint(
        self, y: Tensor, mask: Tensor | None, shape: torch.Size, beside: Tensor | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Way.adjoint`."""
        from phosphene.engine.cpu.pointwise import convolve

        behind = None
        if is_sum and mask is not None:
            own = self.conv.read_once and y.is_contiguous(memory_format=torch.channels_last)
            behind = y if own else torch.empty_like(y, memory_format=torch.channels_last)
        strided = self.conv.stride != (1, 1)
        x, _ = convolve(y, self.back, self.nothing, passed=mask, seen=behind, other=None if strided else beside)
        if strided and beside is not None and self.conv.owns_beside:
            every(beside, self.conv.stride).add_(x)
            x = beside
        elif strided:
            x = _added(_spread(x, shape, self.conv.stride), beside)
        return x, y if is_sum and mask is None else behind


class Larger(Direct):
    """A kernel of more than one pixel, whose way back takes the mask along."""

    def adjoint(
        self, y: Tensor, mask: Tensor | None, shape: torch.Size, beside: Tensor | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Way.adjoint`."""
        if is_sum:
            y, mask = _unclamped(self.conv, y, mask), None
        return _added(self._back_through(y, mask, shape), beside), y if is_sum else None

    @abstractmethod
    def _back_through(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """Return the gradient of the input, given the one behind the clamp and its mask."""


class Winograd(Larger):
    """Minimal filtering, both ways."""

    def __init__(self, conv: Convolution) -> None:
        from phosphene.engine.cpu import winograd

        super().__init__(conv)
        self.grid = max(map(places_of, conv.weight.shape[2:], conv.stride))
        self.forth, self.back = (winograd.spectrum_of(conv.weight, conv.stride, back) for back in (False, True))
        self.nothing = conv.bias.new_zeros(conv.weight.shape[1])

    def apply(self, x: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        conv = self.conv
        padding, skipped = conv.margins(x.shape[2:])
        axes = zip(x.shape[2:], conv.weight.shape[2:], conv.stride, padding, skipped, strict=True)
        size = pair((side + 2 * pad - taps) // step + 1 - skip for side, taps, step, pad, skip in axes)
        before = pair(pad - skip * step for step, pad, skip in zip(conv.stride, padding, skipped, strict=True))
        if other is None:
            return self.forth.convolve(x, conv.bias, size, before, (0, 0), conv.low, conv.high)
        return _clamped(conv, self.forth.convolve(x, conv.bias, size, before, (0, 0))[0], other)

    def _back_through(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        axes = list(zip(self.conv.weight.shape[2:], self.conv.stride, *self.conv.margins(shape[2:]), strict=True))
        before = pair(beyond(taps, step) - pad // step + skip for taps, step, pad, skip in axes)
        left_out = pair(pad % step for _, step, pad, _ in axes)
        x, _ = self.back.convolve(y, self.nothing, shape[2:], before, left_out, passed=mask)
        return x


class Stem(Larger):
    """A kernel of few channels, such as an image's. On the way back the pixels of a stride are channels, of which there
    are more then, and the stride is 1.

    PyTorch's convolution may round a crop differently there.
    """

    def __init__(self, conv: Convolution) -> None:
        super().__init__(conv)
        self.kernel = _by_phases(conv.weight, conv.stride)

    def _forth(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding, (down, across) = conv.margins(x.shape[2:])
        if not down and not across:
            return super()._forth(x)
        top, left = padding[0] - down * conv.stride[0], padding[1] - across * conv.stride[1]
        padded = F.pad(x, (left, left + across, top, top + down))  # fewer numbers than to leave results out
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride)

    def _back_through(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        conv, (_, channels, height, width) = self.conv, shape
        axes = list(zip(shape[2:], conv.weight.shape[2:], conv.stride, *conv.margins(shape[2:]), strict=True))
        size = pair((side - 1 + pad) // step - pad // step + 1 for side, _, step, pad, _ in axes)
        before = pair(beyond(taps, step) - pad // step + skip for _, taps, step, pad, skip in axes)
        top, left = (pad % step for _, _, step, pad, _ in axes)
        (down, across), (rows, columns) = conv.stride, size
        phases = self._convolve(y, mask, size, before).view(-1, channels, down, across, rows, columns)
        pixels = phases.new_empty(len(phases), channels, rows * down, columns * across)
        for i, j in product(range(down), range(across)):
            pixels[:, :, i::down, j::across] = phases[:, :, i, j]
        return pixels[:, :, top : top + height, left : left + width]

    def _convolve(self, y: Tensor, mask: Tensor | None, size: Pair, before: Pair) -> Tensor:
        """Convolve what `mask` lets through with the kernel, `before` rows and columns in front of the first."""
        axes = zip(size, before, self.kernel.shape[2:], y.shape[2:], strict=True)
        padding = pair(max(0, front, rows + taps - 1 - front - side) for rows, front, taps, side in axes)
        phases = F.conv2d(_unclamped(self.conv, y, mask), self.kernel, padding=padding)
        top, left = (pad - front for pad, front in zip(padding, before, strict=True))
        return phases[:, :, top : top + size[0], left : left + size[1]]


class FilteredStem(Stem):
    """The same, by filtering."""

    def __init__(self, conv: Convolution) -> None:
        from phosphene.engine.cpu import winograd

        super().__init__(conv)
        self.grid = max(places_of(taps, 1) for taps in self.kernel.shape[2:])
        self.back = winograd.spectrum_of(self.kernel, (1, 1), back=False)
        self.nothing = conv.bias.new_zeros(max(FEWEST, len(self.kernel)))

    def _convolve(self, y: Tensor, mask: Tensor | None, size: Pair, before: Pair) -> Tensor:
        return self.back.convolve(y, self.nothing, size, before, (0, 0), passed=mask)[0]


def _by_phases(weight: Tensor, stride: Pair) -> Tensor:
    """Return the adjoint of a kernel [filters, channels, rows, columns] as one with stride 1, whose results are the
    pixels of a stride: [channels x stride x stride, filters, every stride-th row, column]."""
    filters, channels, *taps = weight.shape
    (down, across), (rows, columns) = stride, (-(-side // step) for side, step in zip(taps, stride, strict=True))
    padded = F.pad(weight, (0, columns * across - taps[1], 0, rows * down - taps[0]))
    phases = padded.view(filters, channels, rows, down, columns, across).flip(2, 4)
    return phases.permute(1, 3, 5, 0, 2, 4).reshape(channels * down * across, filters, rows, columns)


def every(x: Tensor, stride: Pair) -> Tensor:
    """Return every stride-th place."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


def _spread(seen: Tensor, shape: torch.Size, stride: Pair) -> Tensor:
    """Return the adjoint of `every`: zeros but for every stride-th place."""
    if stride == (1, 1):
        return seen
    x = unread(seen, shape).zero_()
    every(x, stride).copy_(seen)
    return x


def _added(x: Tensor, beside: Tensor | None) -> Tensor:
    """Add to a tensor that nobody else holds."""
    return x if beside is None else x.add_(beside)


def pair(sides: Iterable[int | str]) -> Pair:
    """Return two whole numbers, of rows and columns."""
    rows, columns = map(int, sides)
    return rows, columns


def _clamped(conv: Convolution, y: Tensor, other: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if other is not None and conv.clamps:
        return clamped_sum(y, other, conv.low, conv.high)
    return clamp_(y, conv.low, conv.high) if conv.clamps else (_added(y, other), None)


def _unclamped(conv: Convolution, y: Tensor, mask: Tensor | None) -> Tensor:
    """The gradient in front of the clamp, given the one behind it."""
    return y if mask is None else masked(y, mask, conv.read_once)
