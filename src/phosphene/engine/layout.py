"""How tensors lie in memory where a network is only asked for the gradient of its image, and which of them the compiled
kernels take.
"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

Pair = tuple[int, int]
"""Of rows and columns."""

LARGE = 2**20
"""Elements from which the compiled kernels are worth loading Numba for, which takes half a second."""

NOTHING, NO_MASK = (torch.empty(0, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.bool))
"""What a kernel is given in place of a tensor or a mask that there is none of."""

KERNELS = "phosphene.engine.cpu.kernel"
"""The module that loads Numba; it is not imported for its name."""


def is_for_kernels(x: Tensor) -> bool:
    """Whether a kernel is the faster way: always, once the kernels are loaded.

    The kernels put channels last, and PyTorch's passes leave them where they are. Smaller tensors are given to kernels
    only where that is the same, or else what a process did before could decide in which order numbers are added later.
    """
    if x.ndim != 4 or needs_pytorch(x):
        return False
    return x.numel() >= LARGE or (KERNELS in sys.modules and x.stride(1) == 1)


def needs_pytorch(x: Tensor) -> bool:
    """Whether none of our own kernels can be used: on a GPU, or in another precision."""
    return x.dtype != torch.float32 or x.device.type != "cpu"


def channels_last(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] as [batch, rows, columns, channels], in that order in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def in_order(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] with channels last in memory; it is copied if they are not."""
    return x.contiguous(memory_format=torch.channels_last)


def new_in_order(x: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Return a new tensor of the batch and the type of `x`, with channels last in memory."""
    rows, columns = size
    strides = (rows * columns * channels, 1, columns * channels, channels)
    return x.new_empty_strided((x.shape[0], channels, rows, columns), strides)


def pixels(x: Tensor) -> tuple[Tensor, int]:
    """Return a tensor whose numbers are the pixels of `x` [batch, channels, rows, columns] one behind the other, and
    how far one lies from the next.

    Channels of a larger tensor are not copied if they lie in that order.
    """
    batch, channels, rows, columns = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        return x, channels
    pitch = x.stride(3)
    order = (rows * columns * pitch, 1, columns * pitch, pitch)
    if pitch < channels or any(side > 1 and a != b for side, a, b in zip(x.shape, x.stride(), order, strict=True)):
        return in_order(x), channels
    return x.as_strided(((batch * rows * columns - 1) * pitch + channels,), (1,)), pitch


def unread(slope: Tensor, shape: torch.Size) -> Tensor:
    """Stand for an operation's input of `shape`, where PyTorch wants one to know its layout and does not read it."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=slope.dtype, device=slope.device, memory_format=layout)
