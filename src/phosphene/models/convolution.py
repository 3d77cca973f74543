"""Convolutions with frozen weights, for networks of which only the gradient of the image is wanted.

A frozen convolution is a linear map, and its gradient is the adjoint map: nothing but the shape of its input is needed
on the way back. The clamp that follows it (ReLU, ReLU6) is taken along, and all that is kept of it is a mask, one byte
a unit.

On the CPU, in float32, a convolution is computed in the way that was found fastest (docs/performance.md): as a matrix
product where the kernel is a single pixel and there is no AVX-512, by Winograd's filtering where it is larger and reads
channels enough, or else directly. The way depends on the convolution, the recipe and the kind of processor alone and is
never measured on the spot: a recipe must give the same bytes each time.
"""

import platform
from collections.abc import Iterable
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.models.clamping import UNCLAMPED, clamp_, masked
from phosphene.models.filtering import beyond, can_filter, places_of
from phosphene.models.libraries import Conv2dSame, get_same_padding
from phosphene.models.tensors import needs_pytorch, unread

if TYPE_CHECKING:
    from phosphene.models.winograd import Spectrum

FEWEST = 16
"""Channels or filters that are read from which filtering is the faster way; a vector has no more."""


class FrozenConv(nn.Module):
    """A convolution whose weights are never trained, and the clamp to `low`..`high` that follows it.

    `read_once`: the gradient that comes back is a tensor of its own, since the only reader of the output hands back
    such a one, and may be overwritten.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, low: float = -inf, high: float = inf, winograd: bool = True) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach())
        self.stride, self.padding = _pair(conv.stride), _pair(conv.padding)
        self.dilation, self.groups = conv.dilation, conv.groups
        self.same = isinstance(conv, Conv2dSame)
        self.low, self.high = low, high
        self.read_once = False
        self.direct: Way = Direct(self)
        self.quickest = self.direct if needs_pytorch(weight) else self._quickest(winograd)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and clamp `[batch, channels, rows, columns]`."""
        y: Tensor = _Frozen.apply(x, self)
        return y

    def way(self, x: Tensor) -> "Way":
        """The fastest way for `x`."""
        return self.direct if needs_pytorch(x) else self.quickest

    def _quickest(self, winograd: bool) -> "Way":
        if self.is_pointwise:
            return self.direct if torch.backends.cpu.get_cpu_capability() == "AVX512" else Product(self)
        if not winograd or not self._can_be_filtered():
            return self.direct
        return Winograd(self) if self.weight.shape[1] >= FEWEST else Stem(self)

    def _can_be_filtered(self) -> bool:
        taps, simple = _pair(self.weight.shape[2:]), self.groups == 1 and self.dilation == (1, 1)
        return simple and len(self.weight) >= FEWEST and can_filter(taps, self.stride) and multiplies_vectors()

    @property
    def is_pointwise(self) -> bool:
        """Whether an output sees one place."""
        return self.weight.shape[2:] == (1, 1) and self.padding == (0, 0) and self.groups == 1 and not self.same

    @property
    def clamps(self) -> bool:
        """Whether anything is clamped."""
        return (self.low, self.high) != UNCLAMPED

    def margins(self, size: torch.Size) -> tuple[list[int], tuple[int, int]]:
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


def multiplies_vectors() -> bool:
    """Whether the processor adds products with one rounding, without which the compiled kernels would be slow."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("arm64", "aarch64")


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: FrozenConv) -> Tensor:
        y, mask = conv.way(x).apply(x)
        ctx.conv, ctx.shape = conv, x.shape
        ctx.save_for_backward(mask)
        return y

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return ctx.conv.way(y).adjoint(y, mask, ctx.shape), None


class Way(Protocol):
    """A way to compute a frozen convolution, and its gradient.

    `grid` units a side are computed together: a crop that begins at a multiple of it is computed to the same bits.
    """

    grid: int

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Convolve and clamp; return the result, and a mask of what passed if there is a clamp."""

    def adjoint(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """Return the gradient with respect to an input of `shape`, given the one with respect to the output."""


class Direct:
    """PyTorch's own convolution."""

    grid = 1

    def __init__(self, conv: FrozenConv) -> None:
        self.conv = conv

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        conv = self.conv
        padding, (down, across) = conv.margins(x.shape[2:])
        y = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        if down or across:
            y = y[:, :, down:, across:].contiguous(memory_format=torch.channels_last)
        return _clamped(conv, y)

    def adjoint(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`."""
        conv = self.conv
        padding, (down, across) = conv.margins(shape[2:])
        y = _unclamped(conv, y, mask)
        if down or across:
            y = F.pad(y, (across, 0, down, 0))
        x = unread(y, shape)
        found: Tensor = torch.ops.aten.convolution_backward(
            y, x, conv.weight, None, conv.stride, padding, conv.dilation, False, [0, 0], conv.groups,
            [True, False, False],
        )[0]  # fmt: skip
        return found


class Product:
    """A kernel of one pixel: a matrix product over all places."""

    grid = 1

    def __init__(self, conv: FrozenConv) -> None:
        self.conv, self.weight = conv, conv.weight[:, :, 0, 0].contiguous()
        self.transposed = self.weight.T.contiguous()

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        down, across = self.conv.stride
        places = x[:, :, ::down, ::across].permute(0, 2, 3, 1)
        y = torch.addmm(self.conv.bias, places.reshape(-1, x.shape[1]), self.transposed)
        return _clamped(self.conv, y.view(*places.shape[:3], -1).permute(0, 3, 1, 2))

    def adjoint(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`."""
        places = _unclamped(self.conv, y, mask).permute(0, 2, 3, 1)
        seen = torch.mm(places.reshape(-1, y.shape[1]), self.weight)
        seen = seen.view(*places.shape[:3], -1).permute(0, 3, 1, 2)
        if self.conv.stride == (1, 1):
            return seen
        down, across = self.conv.stride
        x = unread(y, shape).zero_()
        x[:, :, ::down, ::across] = seen
        return x


class Winograd(Direct):
    """A larger kernel: minimal filtering."""

    def __init__(self, conv: FrozenConv) -> None:
        from phosphene.models import winograd

        super().__init__(conv)
        self.grid = max(map(places_of, conv.weight.shape[2:], conv.stride))
        self.forth, self.back = (winograd.spectrum_of(conv.weight, conv.stride, back) for back in (False, True))
        self.nothing = conv.bias.new_zeros(conv.weight.shape[1])

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        conv = self.conv
        padding, skipped = conv.margins(x.shape[2:])
        axes = zip(x.shape[2:], conv.weight.shape[2:], conv.stride, padding, skipped, strict=True)
        size = _pair((side + 2 * pad - taps) // step + 1 - skip for side, taps, step, pad, skip in axes)
        before = _pair(pad - skip * step for step, pad, skip in zip(conv.stride, padding, skipped, strict=True))
        return self.forth.convolve(x, conv.bias, size, before, (0, 0), conv.low, conv.high)

    def adjoint(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`."""
        axes = list(zip(self.conv.weight.shape[2:], self.conv.stride, *self.conv.margins(shape[2:]), strict=True))
        before = _pair(beyond(taps, step) - pad // step + skip for taps, step, pad, skip in axes)
        left_out = _pair(pad % step for _, step, pad, _ in axes)
        return self.back.convolve(y, self.nothing, shape[2:], before, left_out, passed=mask)[0]


class Stem(Direct):
    """A kernel of few channels, such as an image's: PyTorch's convolution forth, filtering back.

    On the way back the pixels of a stride are channels, of which there are more then, and the stride is 1.
    """

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        self.kernel = _by_phases(conv.weight, conv.stride)
        self.grid = max(places_of(taps, 1) for taps in self.kernel.shape[2:])
        self.nothing = conv.bias.new_zeros(max(FEWEST, len(self.kernel)))

    @cached_property
    def back(self) -> "Spectrum":
        """The transformed kernel; made when it is needed, since it needs Numba, and `folding` may choose another way."""
        from phosphene.models.winograd import spectrum_of

        return spectrum_of(self.kernel, (1, 1), back=False)

    def adjoint(self, y: Tensor, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`."""
        conv, (_, channels, height, width) = self.conv, shape
        axes = list(zip(shape[2:], conv.weight.shape[2:], conv.stride, *conv.margins(shape[2:]), strict=True))
        size = _pair((side - 1 + pad) // step - pad // step + 1 for side, _, step, pad, _ in axes)
        before = _pair(beyond(taps, step) - pad // step + skip for _, taps, step, pad, skip in axes)
        top, left = (pad % step for _, _, step, pad, _ in axes)
        phases, _ = self.back.convolve(y, self.nothing, size, before, (0, 0), passed=mask)
        pixels = phases.unflatten(1, (channels, *conv.stride)).permute(0, 1, 4, 2, 5, 3)
        return pixels.flatten(4, 5).flatten(2, 3)[:, :, top : top + height, left : left + width]


def _by_phases(weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """Return the adjoint of a kernel [filters, channels, rows, columns] as one with stride 1, whose results are the
    pixels of a stride: [channels x stride x stride, filters, every stride-th row, column]."""
    filters, channels, *taps = weight.shape
    (down, across), (rows, columns) = stride, (-(-side // step) for side, step in zip(taps, stride, strict=True))
    padded = F.pad(weight, (0, columns * across - taps[1], 0, rows * down - taps[0]))
    phases = padded.view(filters, channels, rows, down, columns, across).flip(2, 4)
    return phases.permute(1, 3, 5, 0, 2, 4).reshape(channels * down * across, filters, rows, columns)


def _pair(sides: Iterable[int | str]) -> tuple[int, int]:
    rows, columns = map(int, sides)
    return rows, columns


def _clamped(conv: FrozenConv, y: Tensor) -> tuple[Tensor, Tensor | None]:
    return clamp_(y, conv.low, conv.high) if conv.clamps else (y, None)


def _unclamped(conv: FrozenConv, y: Tensor, mask: Tensor | None) -> Tensor:
    """The gradient in front of the clamp, given the one behind it."""
    return y if mask is None else masked(y, mask, conv.read_once)
