"""How tensors lie in memory, where a network is only asked for the gradient of its image."""

import torch
from torch import Tensor


def needs_pytorch(x: Tensor) -> bool:
    """Whether none of our own kernels can be used: on a GPU, or in another precision."""
    return x.dtype != torch.float32 or x.device.type != "cpu"


def channels_last(x: Tensor) -> Tensor:
    """Return `x` [batch, channels, rows, columns] as [batch, rows, columns, channels], in that order in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def unread(slope: Tensor, shape: torch.Size) -> Tensor:
    """Stand for an operation's input of `shape`, where PyTorch wants one to know its layout and does not read it."""
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    return torch.empty(shape, dtype=slope.dtype, device=slope.device, memory_format=layout)
