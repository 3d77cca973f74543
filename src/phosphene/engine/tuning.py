"""What was measured to be fastest, and where a frozen network may use kernels of our own."""

import os
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tuning:
    """Constants of speed. None of them changes a bit of a result."""

    large_tensor: float = 2**20
    """Elements of a tensor from which kernels are worth loading the compiler for, which takes half a second."""
    transformed: int = 130_000
    """Numbers of transformed tiles, before and behind the product, that a thread's cache holds."""
    large_weights: int = 4_000_000
    """Numbers of transformed weights which come from memory each time, since no cache holds them."""
    large_weights_blocks: int = 4
    """Blocks of tiles that are then multiplied together at least, so that they come less often."""
    pixel_blocks: int = 8
    """Blocks of pixels that a thread multiplies together; they stay in its cache while all of the weights pass."""
    skip_zeros_below: float = 0.7
    """Share of numbers that are not zero below which it is faster to pass over the zeros; a clamp leaves half."""


@dataclass(frozen=True)
class Policy:
    """What a frozen network may use; it is decided when the network is frozen, from its layers and the recipe alone.

    A recipe has to give the same bytes each time, so nothing is measured on the spot, nor does it matter what the
    process did before.
    """

    compiled: bool = True
    """Whether the network has layers that are worth loading the compiler for."""
    tuning: Tuning = Tuning()
    fast: bool = True
    """Whether large images may be computed by kernels that round otherwise, in any network."""
    stride: int = 1
    """Pixels of the image from one place of what the network is given to the next."""

    def compiles(self, x: Tensor) -> bool:
        """Whether kernels clamp or pool `x`: if it is large, or if they are there and leave its layout as it is."""
        if x.ndim != 4 or needs_pytorch(x):
            return False
        return x.numel() >= self.tuning.large_tensor or (self.compiled and x.stride(1) == 1)


PYTORCH_ONLY = Policy(compiled=False, tuning=Tuning(large_tensor=inf), fast=False)
"""No kernels of our own."""


def policy_of(fast: bool, has_filtered: bool, tuning: Tuning, stride: int) -> Policy:
    """Return the policy of a network. With `PHOSPHENE_ENGINE=reference` in the environment PyTorch computes it all."""
    if os.environ.get("PHOSPHENE_ENGINE") == "reference":
        return PYTORCH_ONLY
    return Policy(fast and has_filtered, tuning, fast, stride)


def needs_pytorch(x: Tensor) -> bool:
    """Whether none of our own kernels can be used: on a GPU, or in another precision."""
    return x.dtype != torch.float32 or x.device.type != "cpu"
