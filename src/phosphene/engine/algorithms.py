"""Algorithms for a frozen convolution with its clamp, and for its gradient.

`ALGORITHMS` lists them, and the first that fits a convolution is used. To add one, write a class with `fits`, `forward`
and `backward_input`, and insert it into the list.
"""

import platform
from abc import ABC, abstractmethod
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.engine.clamp import UNCLAMPED, Grad, clamp_, clamped_sum, masked
from phosphene.engine.cpu.toom_cook import adjoint_lookback, can_filter, outputs_per_tile
from phosphene.engine.layout import Pair, empty_of_shape, every, pair, spread
from phosphene.engine.tuning import Policy
from phosphene.libraries import Conv2dSame, get_same_padding

MAX_LANES = 16
"""Floats in the longest vector, of AVX-512. Our own kernels are faster from as many channels or filters on, and the
fused GEMM takes only multiples of it."""


class Convolution(nn.Module):
    """A convolution with frozen weights, and the clamp to `low`..`high` behind it: what is to be computed."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, low: float, high: float, policy: Policy) -> None:
        super().__init__()
        weight = conv.weight.detach()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach())
        self.stride, self.padding = pair(conv.stride), pair(conv.padding)
        self.dilation, self.groups = pair(conv.dilation), conv.groups
        self.same = isinstance(conv, Conv2dSame)
        self.low, self.high, self.policy = low, high, policy

    @property
    def taps(self) -> Pair:
        """Rows and columns of the kernel: its size."""
        return pair(self.weight.shape[2:])

    @property
    def is_pointwise(self) -> bool:
        """Whether it is 1x1, so that an output reads one pixel."""
        return self.taps == (1, 1) and self.padding == (0, 0) and self.groups == 1 and not self.same

    @property
    def is_plain(self) -> bool:
        """Whether it has neither groups nor dilation."""
        return self.groups == 1 and self.dilation == (1, 1)

    @property
    def clamps(self) -> bool:
        """Whether anything is clamped."""
        return (self.low, self.high) != UNCLAMPED

    def margins(self, size: torch.Size) -> tuple[Pair, Pair]:
        """Return the symmetric padding for an image of `size`, and how many leading rows and columns of the output to
        drop.

        TensorFlow's `same` pads one pixel more behind than in front where the sum is odd. The same comes out if the
        front is padded by one stride more and the first output is dropped.
        """
        if not self.same:
            return self.padding, (0, 0)
        axes = zip(size, self.taps, self.stride, self.dilation, strict=True)
        total = [get_same_padding(*axis) for axis in axes]
        padding = pair(pad // 2 + pad % 2 * step for pad, step in zip(total, self.stride, strict=True))
        return padding, (total[0] % 2, total[1] % 2)


class Algorithm(ABC):
    """A way to compute a frozen convolution and its gradient.

    It computes tiles of at most `grid` outputs a side: a crop that begins at a multiple of `grid` has the same bits.
    """

    grid = 1

    def __init__(self, conv: Convolution) -> None:
        self.conv = conv

    @property
    def nbytes(self) -> int:
        """Bytes of its own copies of the weights, packed or transformed."""
        return sum(getattr(value, "nbytes", 0) for value in vars(self).values())

    @classmethod
    @abstractmethod
    def fits(cls, conv: Convolution) -> bool:
        """Whether to use it for a convolution that none before it in `ALGORITHMS` fits.

        This depends only on the network, the recipe and the kind of processor.
        """

    @abstractmethod
    def forward(self, x: Tensor, addend: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Convolve, add `addend` and clamp; return the result and, if there is a clamp, its mask."""

    @abstractmethod
    def backward_input(
        self, grad: Grad, mask: Tensor | None, shape: torch.Size, side: Grad | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients with respect to an input of `shape` and, if `is_sum`, the addend of `forward`.

        `grad` is the gradient of the clamped result. `side`, that of the input's other readers, is added.
        """


class Direct(Algorithm):
    """PyTorch's own convolution."""

    @classmethod
    def fits(cls, conv: Convolution) -> bool:
        """Always."""
        return True

    def forward(self, x: Tensor, addend: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Algorithm.forward`."""
        conv, y = self.conv, self._convolve(x)
        if not conv.clamps:
            return _added(y, addend), None
        if addend is None:
            return clamp_(y, conv.low, conv.high, conv.policy)
        return clamped_sum(y, addend, conv.low, conv.high, conv.policy)

    def backward_input(
        self, grad: Grad, mask: Tensor | None, shape: torch.Size, side: Grad | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Algorithm.backward_input`."""
        y = self._unclamped(grad, mask)
        return _added(self._convolve_backward(y, shape), side and side.tensor), y if is_sum else None

    def _unclamped(self, grad: Grad, mask: Tensor | None) -> Tensor:
        """Return the gradient of the clamp's input, given that of its output."""
        return grad.tensor if mask is None else masked(grad, mask, self.conv.policy)

    def _convolve(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding, (top, left) = conv.margins(x.shape[2:])
        y = F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        return y[:, :, top:, left:].contiguous(memory_format=torch.channels_last) if top or left else y

    def _convolve_backward(self, y: Tensor, shape: torch.Size) -> Tensor:
        conv = self.conv
        padding, (top, left) = conv.margins(shape[2:])
        if top or left:
            y = F.pad(y, (left, 0, top, 0))
        x = empty_of_shape(y, shape)
        dx: Tensor = torch.ops.aten.convolution_backward(
            y, x, conv.weight, None, conv.stride, padding, conv.dilation, False, [0, 0], conv.groups,
            [True, False, False],
        )[0]  # fmt: skip
        return dx


class TorchGemm(Direct):
    """1x1 convolution as PyTorch's matrix product over all pixels."""

    @classmethod
    def fits(cls, conv: Convolution) -> bool:
        """Where PyTorch's convolution is slower: without AVX-512."""
        return conv.is_pointwise and torch.backends.cpu.get_cpu_capability() != "AVX512"

    def __init__(self, conv: Convolution) -> None:
        super().__init__(conv)
        self.transposed = conv.weight[:, :, 0, 0].T.contiguous()

    def _convolve(self, x: Tensor) -> Tensor:
        pixels = every(x, self.conv.stride).permute(0, 2, 3, 1)
        y = torch.addmm(self.conv.bias, pixels.reshape(-1, x.shape[1]), self.transposed)
        return y.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)

    def _convolve_backward(self, y: Tensor, shape: torch.Size) -> Tensor:
        grads = y.permute(0, 2, 3, 1)
        dx = torch.mm(grads.reshape(-1, y.shape[1]), self.conv.weight[:, :, 0, 0])
        return spread(dx.view(*grads.shape[:3], -1).permute(0, 3, 1, 2), shape, self.conv.stride)


class FusedGemm(Algorithm):
    """1x1 convolution as our own GEMM, with masks, sums and clamps fused into its prologue and epilogue."""

    @classmethod
    def fits(cls, conv: Convolution) -> bool:
        """Where channels and filters are multiples of MAX_LANES, and the weights are finite.

        The kernel may skip zeros, and zero times infinity is NaN.
        """
        fills_vectors = not any(count % MAX_LANES for count in conv.weight.shape[:2])
        can_be_fused = conv.policy.compiled and conv.is_pointwise and fills_vectors and multiplies_vectors()
        return can_be_fused and bool(conv.weight.isfinite().all())

    def __init__(self, conv: Convolution) -> None:
        from phosphene.engine.cpu.gemm import pack

        super().__init__(conv)
        weight = conv.weight[:, :, 0, 0]
        self.packed, self.packed_backward = pack(weight.T[None]), pack(weight[None])
        self.no_bias = conv.bias.new_zeros(weight.shape[1])

    def forward(self, x: Tensor, addend: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Algorithm.forward`."""
        from phosphene.engine.cpu.pointwise import convolve_1x1

        conv = self.conv
        pixels, limits = every(x, conv.stride), (conv.low, conv.high)
        return convolve_1x1(pixels, self.packed, conv.bias, limits, addend=addend, tuning=conv.policy.tuning)

    def backward_input(
        self, grad: Grad, mask: Tensor | None, shape: torch.Size, side: Grad | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Algorithm.backward_input`."""
        from phosphene.engine.cpu.pointwise import convolve_1x1

        y, unclamped, stride = grad.tensor, None, self.conv.stride
        if is_sum and mask is not None:
            overwrites = grad.owned and y.is_contiguous(memory_format=torch.channels_last)
            unclamped = y if overwrites else torch.empty_like(y, memory_format=torch.channels_last)
        addend = side.tensor if side and stride == (1, 1) else None
        x, _ = convolve_1x1(
            y, self.packed_backward, self.no_bias, mask=mask, masked=unclamped, addend=addend,
            tuning=self.conv.policy.tuning,
        )  # fmt: skip
        if stride != (1, 1):
            x = self._spread(x, shape, side)
        return x, y if is_sum and mask is None else unclamped

    def _spread(self, x: Tensor, shape: torch.Size, side: Grad | None) -> Tensor:
        """Return `side` plus the gradient `x` of every stride-th pixel. `side` is overwritten if it is owned."""
        if side is None or not side.owned:
            return _added(spread(x, shape, self.conv.stride), side and side.tensor)
        every(side.tensor, self.conv.stride).add_(x)
        return side.tensor


class Spatial(Direct):
    """A larger kernel, whose backward pass applies the clamp's mask itself."""

    def backward_input(
        self, grad: Grad, mask: Tensor | None, shape: torch.Size, side: Grad | None = None, is_sum: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `Algorithm.backward_input`."""
        if is_sum:
            grad, mask = Grad(self._unclamped(grad, mask), owned=False), None
        x = self._backward_masked(grad, mask, shape)
        return _added(x, side and side.tensor), grad.tensor if is_sum else None

    @abstractmethod
    def _backward_masked(self, grad: Grad, mask: Tensor | None, shape: torch.Size) -> Tensor:
        """Return the gradient of the input, given that of the clamp's output, and the clamp's mask."""


class Winograd(Spatial):
    """Winograd's minimal filtering, forward and backward."""

    @classmethod
    def fits(cls, conv: Convolution) -> bool:
        """Where it has enough channels to be worthwhile forward, too."""
        return conv.policy.compiled and is_filtered(conv) and conv.weight.shape[1] >= MAX_LANES

    def __init__(self, conv: Convolution) -> None:
        from phosphene.engine.cpu.winograd import transformed

        super().__init__(conv)
        self.grid = max(map(outputs_per_tile, conv.taps, conv.stride))
        self.weights, self.weights_backward = (transformed(conv.weight, conv.stride, back) for back in (False, True))
        self.no_bias = conv.bias.new_zeros(conv.weight.shape[1])

    def forward(self, x: Tensor, addend: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Algorithm.forward`."""
        conv = self.conv
        padding, dropped = conv.margins(x.shape[2:])
        axes = zip(x.shape[2:], conv.taps, conv.stride, padding, dropped, strict=True)
        size = pair((side + 2 * pad - taps) // step + 1 - drop for side, taps, step, pad, drop in axes)
        lead = pair(pad - drop * step for step, pad, drop in zip(conv.stride, padding, dropped, strict=True))
        limits = (conv.low, conv.high)
        return self.weights.convolve(
            x, conv.bias, size, lead, limits=limits, addend=addend, tuning=conv.policy.tuning
        )  # fmt: skip

    def _backward_masked(self, grad: Grad, mask: Tensor | None, shape: torch.Size) -> Tensor:
        conv = self.conv
        axes = list(zip(conv.taps, conv.stride, *conv.margins(shape[2:]), strict=True))
        lead = pair(adjoint_lookback(taps, step) - pad // step + drop for taps, step, pad, drop in axes)
        crop = pair(pad % step for _, step, pad, _ in axes)
        size, tuning = pair(shape[2:]), conv.policy.tuning
        return self.weights_backward.convolve(grad.tensor, self.no_bias, size, lead, crop, mask=mask, tuning=tuning)[0]


class SubpixelStem(Spatial):
    """A strided convolution of few channels, such as a network's first.

    Its backward pass is a subpixel convolution (Shi et al. 2016, arXiv:1609.05158): a convolution with stride 1 whose
    channels are the pixels of a stride, so that there are more of them, followed by a pixel shuffle. PyTorch computes
    it, and may round a crop differently from the whole image.
    """

    @classmethod
    def fits(cls, conv: Convolution) -> bool:
        """Where the stride is no larger than the kernel, so that every pixel is read."""
        covers = all(step <= taps for step, taps in zip(conv.stride, conv.taps, strict=True))
        return conv.is_plain and conv.weight.shape[1] < MAX_LANES and max(conv.stride) > 1 and covers

    def __init__(self, conv: Convolution) -> None:
        super().__init__(conv)
        self.kernel = _subpixel_kernel(conv.weight, conv.stride)

    def _convolve(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding, (down, across) = conv.margins(x.shape[2:])
        if not down and not across:
            return super()._convolve(x)
        top, left = padding[0] - down * conv.stride[0], padding[1] - across * conv.stride[1]
        padded = F.pad(x, (left, left + across, top, top + down))  # less to copy than dropping outputs
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride)

    def _backward_masked(self, grad: Grad, mask: Tensor | None, shape: torch.Size) -> Tensor:
        conv, (_, channels, height, width) = self.conv, shape
        axes = list(zip(shape[2:], conv.taps, conv.stride, *conv.margins(shape[2:]), strict=True))
        size = pair((side - 1 + pad) // step - pad // step + 1 for side, _, step, pad, _ in axes)
        lead = pair(adjoint_lookback(taps, step) - pad // step + drop for _, taps, step, pad, drop in axes)
        top, left = (pad % step for _, _, step, pad, _ in axes)
        (down, across), (rows, columns) = conv.stride, size
        phases = self._phases(grad, mask, size, lead).view(-1, channels, down, across, rows, columns)
        pixels = phases.new_empty(len(phases), channels, rows * down, columns * across)
        for i, j in product(range(down), range(across)):
            pixels[:, :, i::down, j::across] = phases[:, :, i, j]
        return pixels[:, :, top : top + height, left : left + width]

    def _phases(self, grad: Grad, mask: Tensor | None, size: Pair, lead: Pair) -> Tensor:
        """Convolve the masked gradient to `size` outputs, from `lead` rows and columns in front of it on."""
        taps = self.kernel.shape[2:]
        axes = zip(size, lead, taps, grad.tensor.shape[2:], strict=True)
        padding = pair(max(0, front, rows + own - 1 - front - side) for rows, front, own, side in axes)
        phases = F.conv2d(self._unclamped(grad, mask), self.kernel, padding=padding)
        top, left = (pad - front for pad, front in zip(padding, lead, strict=True))
        return phases[:, :, top : top + size[0], left : left + size[1]]


class WinogradStem(SubpixelStem):
    """As `SubpixelStem`, with Winograd's filtering in the backward pass."""

    @classmethod
    def fits(cls, conv: Convolution) -> bool:
        """Where filtering is worthwhile, with any stride."""
        return conv.policy.compiled and is_filtered(conv)

    def __init__(self, conv: Convolution) -> None:
        from phosphene.engine.cpu.winograd import transformed

        super().__init__(conv)
        self.grid = max(outputs_per_tile(taps, 1) for taps in self.kernel.shape[2:])
        self.weights_backward = transformed(self.kernel, (1, 1), back=False)
        self.no_bias = conv.bias.new_zeros(max(MAX_LANES, len(self.kernel)))

    def _phases(self, grad: Grad, mask: Tensor | None, size: Pair, lead: Pair) -> Tensor:
        tuning = self.conv.policy.tuning
        return self.weights_backward.convolve(grad.tensor, self.no_bias, size, lead, mask=mask, tuning=tuning)[0]


ALGORITHMS: tuple[type[Algorithm], ...] = (FusedGemm, TorchGemm, Winograd, WinogradStem, SubpixelStem, Direct)
"""The fastest first, where they fit (docs/performance.md)."""


def is_filtered(conv: Convolution) -> bool:
    """Whether minimal filtering is the fastest algorithm for a convolution, at least in the backward pass."""
    filterable = conv.is_plain and can_filter(conv.taps, conv.stride)
    return filterable and len(conv.weight) >= MAX_LANES and multiplies_vectors()


def multiplies_vectors() -> bool:
    """Whether the processor has fused multiply-add, without which the compiled kernels would be slow."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("arm64", "aarch64")


def _subpixel_kernel(weight: Tensor, stride: Pair) -> Tensor:
    """Return the adjoint of a kernel [filters, channels, rows, columns] as a kernel with stride 1.

    Its outputs are the pixels of a stride. Its shape is [channels x stride x stride, filters, rows / stride,
    columns / stride], rounded up.
    """
    filters, channels, *taps = weight.shape
    (down, across), (rows, columns) = stride, (-(-side // step) for side, step in zip(taps, stride, strict=True))
    padded = F.pad(weight, (0, columns * across - taps[1], 0, rows * down - taps[0]))
    phases = padded.view(filters, channels, rows, down, columns, across).flip(2, 4)
    return phases.permute(1, 3, 5, 0, 2, 4).reshape(channels * down * across, filters, rows, columns)


def _added(x: Tensor, addend: Tensor | None) -> Tensor:
    """Return x + addend, added in place: nothing else holds `x`."""
    return x if addend is None else x.add_(addend)
