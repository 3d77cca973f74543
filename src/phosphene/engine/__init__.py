"""A frozen network, computed fast: the engine's public interface.

A network that is never trained is a chain of linear maps and clamps, and only the gradient of its image is wanted. So
batch norms are folded into convolutions, nothing is saved for gradients of weights, and on the CPU, in float32, kernels
of our own compute most of it. README.md beside this file says how. The engine knows no model, recipe or photograph.
"""

from collections.abc import Mapping
from importlib.metadata import version
from math import lcm

import torch
from torch import Tensor, fx, nn

from phosphene.engine.conv import FrozenConv
from phosphene.engine.rewrite import rewrite_graph
from phosphene.engine.tuning import Tuning
from phosphene.types import Size

__all__ = ["Frozen", "Tuning", "freeze", "prepare", "versions"]


class Frozen(nn.Module):
    """A network with frozen weights: images [batch, channels, height, width] to named activations.

    It runs on fake tensors too. Then nothing is computed, but every tensor of a step, except the kernels' scratch, is
    allocated as in a real one, so that memory can be estimated.
    """

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__()
        self.body = body

    @property
    def grid(self) -> int:
        """The alignment of crops, in units of a layer.

        If a crop of the image begins at a multiple of it in every layer, it is computed to the same bits as within the
        whole image.
        """
        return lcm(*(part.algorithm.grid for part in self.modules() if isinstance(part, FrozenConv)))

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, with the copies that algorithms have packed or transformed."""
        weights = sum(buffer.nbytes for buffer in (*self.parameters(), *self.buffers()))
        return weights + sum(part.algorithm.nbytes for part in self.modules() if isinstance(part, FrozenConv))

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the activations that the graph names, of whatever shape they have."""
        # Not `self.body(images)`, since that prints a traceback for each size that the network refuses.
        activations: Mapping[str, Tensor] = self.body.forward(images)
        return {name: _with_grad_layout(value) for name, value in activations.items()}


def freeze(network: fx.GraphModule, *, fast: bool, stride: int = 1, tuning: Tuning = Tuning()) -> Frozen:
    """Freeze a traced network whose output is a dictionary of nodes, and return it. It is changed in place.

    Its input is an image, or an activation with a unit for every `stride`-th pixel of one in each direction. `fast`
    allows convolutions with fewer multiplications (Winograd's), whose rounding differs. Outputs and gradients stay the
    same up to rounding. Running it raises `RuntimeError`, as PyTorch does, for images smaller than a kernel.
    """
    frozen = Frozen(rewrite_graph(network, fast, tuning, stride)).eval().requires_grad_(False)
    for tensor in (*frozen.parameters(), *frozen.buffers()):
        if tensor.ndim == 4:  # not `to`, which refuses weights of three axes
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return frozen


def prepare(size: Size, device: torch.device) -> None:
    """Load the compiler and the kernels now, if images of `size` are so large that memory may be short later.

    A process that runs out of memory while it loads the compiler may crash.
    """
    if device.type == "cpu" and size[0] * size[1] >= Tuning.large_tensor / 4:
        from phosphene.engine.cpu import loops

        loops.load_all()


def versions() -> dict[str, str]:
    """Return the versions of the libraries on which a result's bits depend."""
    return {name: version(name) for name in ("torch", "numba")}


def _with_grad_layout(value: Tensor) -> Tensor:
    """Return a view of an activation whose gradient is converted to channels last once, or each layer would copy it."""
    view = value.view_as(value)
    if view.requires_grad:
        view.register_hook(_in_layout)
    return view


def _in_layout(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:  # no score reads this activation
        return None
    return gradient.contiguous(memory_format=torch.channels_last if gradient.ndim == 4 else torch.contiguous_format)
