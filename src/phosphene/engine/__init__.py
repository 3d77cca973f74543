"""A frozen network, computed quickly: the engine's one door.

A network that is never trained is a chain of linear maps and clamps, and only the gradient of its image is wanted. So
batch norms are folded away, nothing is kept for the weights' gradients, and on the CPU, in float32, kernels of our own
compute most of it. README.md beside this file says how. The engine knows no model, no recipe and no photograph.
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
    """A network whose weights are never trained: images [batch, channels, height, width] to named activations.

    It runs on fake tensors too, where nothing is computed and all memory of a step but the kernels' scratch is
    allocated as it would be: forecasts of memory rest on that.
    """

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__()
        self.body = body

    @property
    def grid(self) -> int:
        """How many units of a layer are computed together, on a side.

        Where a crop begins at a multiple of this in each layer, what is computed of it has the whole image's bits.
        """
        return lcm(*(part.algorithm.grid for part in self.modules() if isinstance(part, FrozenConv)))

    @property
    def nbytes(self) -> int:
        """Bytes of its weights, with those that algorithms have laid out for themselves."""
        weights = sum(buffer.nbytes for buffer in (*self.parameters(), *self.buffers()))
        return weights + sum(part.algorithm.nbytes for part in self.modules() if isinstance(part, FrozenConv))

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return what the graph names, each once, as it comes: of any shape."""
        # Called itself, a traced module prints a traceback for each size that it refuses.
        named: Mapping[str, Tensor] = self.body.forward(images)
        return {name: _shown(value) for name, value in named.items()}


def freeze(network: fx.GraphModule, *, fast: bool, stride: int = 1, tuning: Tuning = Tuning()) -> Frozen:
    """Make a traced network, whose output is a dictionary of nodes, one that is never trained.

    It is changed in place. What it is given is an image, or a unit for each `stride`-th pixel of one, across and down.
    `fast` allows convolutions with fewer multiplications (Winograd's), which round otherwise.
    Outputs and gradients stay the same up to rounding. Raises `RuntimeError` when run, as PyTorch does, for images that
    are smaller than a kernel.
    """
    frozen = Frozen(rewrite_graph(network, fast, tuning, stride)).eval().requires_grad_(False)
    for tensor in (*frozen.parameters(), *frozen.buffers()):
        if tensor.ndim == 4:  # not `to`, which refuses weights of three axes
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return frozen


def prepare(size: Size, device: torch.device) -> None:
    """Load what images of `size` on a device need, if they are so large that memory may be short later.

    A process that runs out of memory while the compiler is loaded may end there.
    """
    if device.type == "cpu" and size[0] * size[1] >= Tuning.large_tensor / 4:
        from phosphene.engine.cpu import loops

        loops.load_all()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a result's bits depend on."""
    return {name: version(name) for name in ("torch", "numba")}


def _shown(value: Tensor) -> Tensor:
    """Return a view of an activation, whose gradient is given the network's layout; else each layer would copy it."""
    shown = value.view_as(value)
    if shown.requires_grad:
        shown.register_hook(_laid_out)
    return shown


def _laid_out(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:  # of an activation that no score looks at
        return None
    return gradient.contiguous(memory_format=torch.channels_last if gradient.ndim == 4 else torch.contiguous_format)
