"""Convolutions with frozen weights, for networks of which only the gradient of the image is wanted.

A frozen convolution is a linear map, and its gradient is the adjoint map: nothing but the shape of its input is needed
on the way back. The clamp that follows it (ReLU, ReLU6) is taken along, and Winograd's filtering keeps
only a mask of it, one byte a unit.

On the CPU, in float32, a convolution is computed in the way that was found fastest (docs/performance.md): as a matrix
product where the kernel is a single pixel, by Winograd's filtering where it is 3x3 and has channels enough, or else
directly. The way depends on the kernel alone and is never measured on the spot: a recipe must give the same bytes each
time.
"""

from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTHWHILE = 64 * 64
"""Channels in times channels out from which Winograd's filtering is the faster way."""

PADDINGS = list(product(range(3), repeat=2))
"""Those of a 3x3 kernel of which the adjoint is a convolution with padding too."""


class FrozenConv(nn.Module):
    """A convolution whose weights are never trained, and the clamp to `low`..`high` that follows it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, low: float = -inf, high: float = inf) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach())
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.low, self.high = low, high
        self.direct: Way = Direct(self)
        self.quickest = self.direct if _is_plain(weight) else self._quickest()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and clamp `[batch, channels, rows, columns]`."""
        y: Tensor = _Frozen.apply(x, self)
        return y

    def way(self, x: Tensor) -> "Way":
        """The fastest way for `x`."""
        return self.direct if _is_plain(x) else self.quickest

    def _quickest(self) -> "Way":
        kernel, spread = self.weight.shape[2:], (self.stride, self.dilation, self.groups)
        if spread != ((1, 1), (1, 1), 1):
            return self.direct
        if kernel == (1, 1) and self.padding == (0, 0):
            return Product(self)
        if kernel == (3, 3) and self.padding in PADDINGS and self.weight[:, :, 0, 0].numel() >= WORTHWHILE:
            return Winograd(self, (self.padding[0], self.padding[1]))
        return self.direct

    @property
    def clamps(self) -> bool:
        """Whether anything is clamped."""
        return (self.low, self.high) != (-inf, inf)


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: FrozenConv) -> Tensor:
        y, kept = conv.way(x).apply(x)
        ctx.conv, ctx.shape = conv, x.shape
        ctx.save_for_backward(kept)
        return y

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return ctx.conv.way(y).adjoint(y, kept, ctx.shape), None


class Way(Protocol):
    """A way to compute a frozen convolution, and its gradient.

    `grid` units a side are computed together: a crop that begins at a multiple of it is computed to the same bits.
    """

    grid: int

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Convolve and clamp; return the result, and what `adjoint` has to know of it if there is a clamp."""

    def adjoint(self, y: Tensor, kept: Tensor | None, shape: torch.Size) -> Tensor:
        """Return the gradient with respect to an input of `shape`, given the one with respect to the output."""


@dataclass
class Direct:
    """PyTorch's own convolution."""

    conv: FrozenConv
    grid = 1

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        conv = self.conv
        y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        return _clamped(conv, y)

    def adjoint(self, y: Tensor, kept: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`; PyTorch wants an input, and does not read it."""
        conv = self.conv
        x = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
        found: Tensor = torch.ops.aten.convolution_backward(
            _unclamped(conv, y, kept), x, conv.weight, None, conv.stride, conv.padding, conv.dilation,
            False, [0, 0], conv.groups, [True, False, False],
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
        places = x.permute(0, 2, 3, 1)
        y = torch.addmm(self.conv.bias, places.reshape(-1, x.shape[1]), self.transposed)
        return _clamped(self.conv, y.view(*places.shape[:3], -1).permute(0, 3, 1, 2))

    def adjoint(self, y: Tensor, kept: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`."""
        places = _unclamped(self.conv, y, kept).permute(0, 2, 3, 1)
        x = torch.mm(places.reshape(-1, y.shape[1]), self.weight)
        return x.view(*places.shape[:3], -1).permute(0, 3, 1, 2)


class Winograd:
    """A 3x3 kernel with stride 1: minimal filtering. The adjoint is the kernel turned by half, its channels swapped."""

    def __init__(self, conv: FrozenConv, padding: tuple[int, int]) -> None:
        from phosphene.models import winograd

        self.conv, self.convolve, self.grid = conv, winograd.convolve, winograd.OWN
        self.spectrum = winograd.spectrum_of(conv.weight)
        self.turned = winograd.spectrum_of(conv.weight.flip(2, 3).transpose(0, 1))
        self.padding, self.turned_padding = padding, (2 - padding[0], 2 - padding[1])
        self.nothing = conv.bias.new_zeros(conv.weight.shape[1])

    def apply(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Way.apply`."""
        conv = self.conv
        return self.convolve(x, self.spectrum, conv.bias, self.padding, conv.low, conv.high)

    def adjoint(self, y: Tensor, kept: Tensor | None, shape: torch.Size) -> Tensor:
        """As `Way.adjoint`."""
        return self.convolve(y, self.turned, self.nothing, self.turned_padding, passed=kept)[0]


def _is_plain(x: Tensor) -> bool:
    """Whether only PyTorch's own convolution will do: on a GPU, or in another precision."""
    return x.dtype != torch.float32 or x.device.type != "cpu"


def _clamped(conv: FrozenConv, y: Tensor) -> tuple[Tensor, Tensor | None]:
    return (y.clamp_(conv.low, conv.high),) * 2 if conv.clamps else (y, None)


def _unclamped(conv: FrozenConv, y: Tensor, clamped: Tensor | None) -> Tensor:
    """The gradient in front of the clamp, given the one behind it, and the values there."""
    if clamped is None:
        return y
    found: Tensor = torch.ops.aten.hardtanh_backward(y, clamped, conv.low, conv.high)
    return found
