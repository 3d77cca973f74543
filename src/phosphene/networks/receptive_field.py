"""How far each node of a traced network sees: stride and receptive field, from its convolutions' and pools' windows."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

POINTWISE_MODULES = (
    nn.BatchNorm2d, nn.Dropout, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish,
    nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ELU, nn.PReLU, nn.Mish,
)  # fmt: skip
POINTWISE_FUNCTIONS = {
    operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.mul, torch.cat, torch.relu,
    torch.sigmoid, F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.leaky_relu, F.dropout,
}  # fmt: skip
POOL_FUNCTIONS = (F.max_pool2d, F.avg_pool2d)
POOL_MODULES = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class ReceptiveField:
    """How far a layer sees, rows and columns: total stride, and the size of its receptive field, in px."""

    stride: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (1, 1)

    @property
    def tile_stride(self) -> int:
        """What tiles begin at multiples of, in px, in rows and in columns."""
        return lcm(*self.stride)

    @property
    def exact_halo(self) -> int:
        """The smallest halo of tiles, in px, that gives the whole image's gradient (see `dreaming.tiling`)."""
        return -(-(max(self.size) - 1) // self.tile_stride) * self.tile_stride

    def after(self, kernel: tuple[int, int], stride: tuple[int, int]) -> "ReceptiveField":
        """Behind an operation of this kernel and stride (Dumoulin and Visin 2016, arXiv:1603.07285)."""
        size = tuple(r + (k - 1) * s for r, k, s in zip(self.size, kernel, self.stride, strict=True))
        jump = tuple(a * b for a, b in zip(self.stride, stride, strict=True))
        return ReceptiveField((jump[0], jump[1]), (size[0], size[1]))

    def union(self, other: "ReceptiveField") -> "ReceptiveField":
        """Of a value that is made from both."""
        return ReceptiveField(
            (max(self.stride[0], other.stride[0]), max(self.stride[1], other.stride[1])),
            (max(self.size[0], other.size[0]), max(self.size[1], other.size[1])),
        )


def receptive_fields_of(
    module: nn.Module, graph: fx.Graph, start: fx.Node | None = None
) -> dict[fx.Node, ReceptiveField | None]:
    """Return how far every node sees of the image, or those behind `start` see of its units; nothing is computed.

    None where a receptive field is unbounded: the node sees everything.
    """
    found: dict[fx.Node, ReceptiveField | None] = {}
    for node in graph.nodes:
        if node is start or (start is None and node.op == "placeholder"):
            found[node] = ReceptiveField()
        elif start is None or found.keys() & node.all_input_nodes:
            found[node] = _propagated(node, module, found)
    return found


def module_of(node: fx.Node, root: nn.Module) -> nn.Module:
    """Return the module that a node calls; an identity where it calls none."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else nn.Identity()


def window_of(node: fx.Node, root: nn.Module) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """An operation's kernel, with its dilation, and stride; 1 and 1 where it is pointwise; None if it sees all."""
    module = module_of(node, root)
    if node.op == "call_module":
        if isinstance(module, nn.Conv2d) and module.padding_mode != "circular":  # which sees the far edge
            return _dilated(module.kernel_size, module.dilation), _pair(module.stride)
        if isinstance(module, POOL_MODULES):
            dilation = getattr(module, "dilation", 1)
            return _dilated(module.kernel_size, dilation), _pair(module.stride)
        is_pointwise = isinstance(module, POINTWISE_MODULES) and not _uses_batch_statistics(module)
        return ((1, 1), (1, 1)) if is_pointwise else None
    if node.target in POOL_FUNCTIONS:
        names = ("input", "kernel_size", "stride")  # the others are keywords once they are traced
        named = dict(zip(names, node.args, strict=False)) | node.kwargs
        dilation = named.get("dilation", 1) if node.target is F.max_pool2d else 1
        return _dilated(named["kernel_size"], dilation), _pair(named.get("stride") or named["kernel_size"])
    return ((1, 1), (1, 1)) if node.target in POINTWISE_FUNCTIONS else None


def _uses_batch_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm without running statistics: it takes those of all that it is given."""
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is None


def _propagated(
    node: fx.Node, root: nn.Module, found: Mapping[fx.Node, ReceptiveField | None]
) -> ReceptiveField | None:
    if node.op == "placeholder":
        return ReceptiveField()
    sources = [found.get(source) for source in node.all_input_nodes]
    known = [source for source in sources if source is not None]
    if not known or len(known) < len(sources):
        return None
    joined = known[0]
    for source in known[1:]:
        joined = joined.union(source)
    window = window_of(node, root)
    return joined.after(*window) if window else None


def _dilated(kernel: Any, dilation: Any) -> tuple[int, int]:
    """How many rows and columns a kernel covers, with its holes."""
    rows, columns = ((taps - 1) * step + 1 for taps, step in zip(_pair(kernel), _pair(dilation), strict=True))
    return rows, columns


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
