"""The layout of tensors in memory: channels last (NHWC), though their shape is [batch, channels, rows, columns]."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Pair = tuple[int, int]
"""Two integers, for rows and columns."""

NO_TENSOR, NO_MASK = (torch.empty(0, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.bool))
"""Empty tensors that a kernel takes in place of an optional tensor or mask."""


def pair(sides: Iterable[int | str]) -> Pair:
    """Return two integers, for rows and columns."""
    rows, columns = map(int, sides)
    return rows, columns


def as_nhwc(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] as [batch, rows, columns, channels], contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels_last(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] with channels last in memory, copied only if they are not."""
    return x.contiguous(memory_format=torch.channels_last)


def new_channels_last(x: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Return an uninitialised channels-last tensor [batch of x, channels, *size], of the type of `x`."""
    rows, columns = size
    strides = (rows * columns * channels, 1, columns * channels, channels)
    return x.new_empty_strided((x.shape[0], channels, rows, columns), strides)


def pixels(x: Tensor) -> tuple[Tensor, int]:
    """Return the pixels of `x` [batch, channels, rows, columns] in row-major order, and their pitch: floats from one to
    the next.

    A slice of the channels of a larger channels-last tensor is not copied.
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
    """Return every stride-th row and column."""
    return x if stride == (1, 1) else x[:, :, :: stride[0], :: stride[1]]


def spread(y: Tensor, shape: torch.Size, stride: Pair) -> Tensor:
    """Return the adjoint of `every`: a tensor of `shape`, zero except at every stride-th row and column."""
    if stride == (1, 1):
        return y
    x = empty_of_shape(y, shape).zero_()
    every(x, stride).copy_(y)
    return x


def empty_of_shape(like: Tensor, shape: torch.Size) -> Tensor:
    """Return an uninitialised tensor of `shape`, channels last, of the type of `like`.

    ATen's backward operations take one as `input`, and read only its shape and layout.
    """
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
