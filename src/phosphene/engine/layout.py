"""How tensors lie in memory: channels last, which is NHWC, though their shape is [batch, channels, rows, columns]."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Pair = tuple[int, int]
"""Of rows and columns."""

NO_TENSOR, NO_MASK = (torch.empty(0, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.bool))
"""What a kernel is given in place of a tensor or a mask that there is none of."""


def pair(sides: Iterable[int | str]) -> Pair:
    """Return two whole numbers, of rows and columns."""
    rows, columns = map(int, sides)
    return rows, columns


def as_nhwc(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] as [batch, rows, columns, channels], contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels_last(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] with channels last in memory; it is copied if they are not."""
    return x.contiguous(memory_format=torch.channels_last)


def new_channels_last(x: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Return a new tensor of the batch and the type of `x`, with channels last in memory."""
    rows, columns = size
    strides = (rows * columns * channels, 1, columns * channels, channels)
    return x.new_empty_strided((x.shape[0], channels, rows, columns), strides)


def pixels(x: Tensor) -> tuple[Tensor, int]:
    """Return a tensor whose numbers are the pixels of `x` [batch, channels, rows, columns] one behind the other, and
    their pitch: how far one lies from the next.

    Channels of a larger tensor are not copied if they lie in that order.
    """
    batch, channels, rows, columns = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        return x, channels
    pitch = x.stride(3)
    order = (rows * columns * pitch, 1, columns * pitch, pitch)
    if pitch < channels or any(side > 1 and a != b for side, a, b in zip(x.shape, x.stride(), order, strict=True)):
        return channels_last(x), channels
    return x.as_strided(((batch * rows * columns - 1) * pitch + channels,), (1,)), pitch


def every(x: Tensor, stride: Pair) -> Tensor:
    """Return every stride-th place."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


def spread(y: Tensor, shape: torch.Size, stride: Pair) -> Tensor:
    """Return the adjoint of `every`: zeros but for every stride-th place."""
    if stride == (1, 1):
        return y
    x = empty_of_shape(y, shape).zero_()
    every(x, stride).copy_(y)
    return x


def empty_of_shape(like: Tensor, shape: torch.Size) -> Tensor:
    """Return an unset tensor, channels last, of the type of another; also where PyTorch wants an input of `shape` to
    know its layout, and does not read it."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
