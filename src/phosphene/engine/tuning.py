"""Tuning constants, as measured, and where a frozen network may use kernels of our own."""

import os
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tuning:
    """Constants that affect only speed, not a bit of a result."""

    large_tensor: float = 2**20
    """Elements of a tensor from which it is worth loading the compiler, which takes half a second."""
    transformed: int = 130_000
    """Floats of transformed tiles, inputs and products together, that fit in a thread's cache."""
    large_weights: int = 4_000_000
    """Floats of transformed weights from which no cache holds them, so that they are read from memory each time."""
    large_weights_blocks: int = 4
    """Blocks of tiles that are then multiplied at a time at least, so that the weights are read less often."""
    pixel_blocks: int = 8
    """Blocks of pixels that a thread multiplies at a time. They stay in its cache while it goes through the weights."""
    skip_zeros_below: float = 0.7
    """Share of nonzero elements below which skipping the zeros is faster. After a ReLU it is about a half."""


@dataclass(frozen=True)
class Policy:
    """Which kernels a frozen network may use. It is decided when the network is frozen, from its layers and the recipe.

    A recipe has to give the same bytes each time, so it depends neither on measurements at run time nor on what the
    process did before.
    """

    compiled: bool = True
    """Whether the network has layers for which it is worth loading the compiler."""
    tuning: Tuning = Tuning()
    fast: bool = True
    """Whether kernels whose rounding differs may compute large images, in any network."""
    stride: int = 1
    """The stride of the network's input with respect to the image, in px."""

    def compiles(self, x: Tensor) -> bool:
        """Whether our kernels clamp or pool `x`: if it is large, or channels last and they are loaded anyway."""
        if x.ndim != 4 or needs_pytorch(x):
            return False
        return x.numel() >= self.tuning.large_tensor or (self.compiled and x.stride(1) == 1)


PYTORCH_ONLY = Policy(compiled=False, tuning=Tuning(large_tensor=inf), fast=False)
"""No kernels of our own."""


def policy_of(fast: bool, has_filtered: bool, tuning: Tuning, stride: int) -> Policy:
    """Return a network's policy. With `PHOSPHENE_ENGINE=reference` in the environment, PyTorch computes everything."""
    if os.environ.get("PHOSPHENE_ENGINE") == "reference":
        return PYTORCH_ONLY
    return Policy(fast and has_filtered, tuning, fast, stride)


def needs_pytorch(x: Tensor) -> bool:
    """Whether none of our kernels can take `x`: it is on a GPU, or not in float32."""
    return x.dtype != torch.float32 or x.device.type != "cpu"
