"""What a network that is never trained can do without: batch norms, and all that only its weights' gradients need."""

import operator
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phosphene.models.clamping import UNCLAMPED, FrozenClamp
from phosphene.models.convolution import FrozenConv
from phosphene.models.libraries import Conv2dSame
from phosphene.models.pooling import FrozenPool

RELU, RELU6 = (0.0, inf), (0.0, 6.0)
CLAMPS: dict[object, tuple[float, float]] = {
    nn.ReLU: RELU,
    nn.ReLU6: RELU6,
    F.relu: RELU,
    torch.relu: RELU,
    "relu": RELU,
    F.relu6: RELU6,
}
"""Modules, functions and methods that clamp, and to what."""

SUMS = (operator.add, torch.add, "add")

POOLS: dict[object, Callable[..., nn.MaxPool2d | nn.AvgPool2d]] = {
    nn.MaxPool2d: nn.MaxPool2d,
    nn.AvgPool2d: nn.AvgPool2d,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
}

MOST_SETTINGS = 5
"""A pool's input, and the settings that its module takes in the same order as its function."""

KNOWN = (nn.Conv2d, Conv2dSame)
"""Convolutions that can be frozen; other subclasses may do anything in front of them."""


def fold_batch_norms(network: fx.GraphModule) -> None:
    """Put each batch norm that follows a convolution into its weights, where nobody else reads the convolution
    and neither of the two is used twice.

    A frozen batch norm is linear, so outputs and gradients stay the same up to rounding. An activation that timm keeps
    within its batch norm stays where it was.
    """
    uses = Counter(node.target for node in network.graph.nodes if node.op == "call_module")
    for node in list(network.graph.nodes):
        norm = _module_of(network, node)
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        conv = _module_of(network, source)
        if not isinstance(conv, nn.Conv2d) or len(source.users) > 1 or uses[source.target] + uses[node.target] > 2:
            continue
        _replace(network, str(source.target), fuse_conv_bn_eval(conv, norm))
        _replace(network, str(node.target), _activation_of(norm))
        if isinstance(_module_of(network, node), nn.Identity):
            node.replace_all_uses_with(source)
            network.graph.erase_node(node)
    network.recompile()


def freeze(network: fx.GraphModule, winograd: bool) -> None:
    """Keep nothing for the way back that only weights' gradients need, nor more of clamps and pools than they need."""
    for freeze_one in (partial(_freeze_convolution, winograd=winograd), _freeze_clamp, _freeze_pool):
        for node in list(network.graph.nodes):
            freeze_one(network, node)
    for node in network.graph.nodes:
        conv, readers = _module_of(network, node), list(node.users)
        if isinstance(conv, FrozenConv):
            conv.read_once = len(readers) == 1 and isinstance(_module_of(network, readers[0]), FrozenConv)
    network.delete_all_unused_submodules()
    network.recompile()


def _freeze_convolution(network: fx.GraphModule, node: fx.Node, winograd: bool) -> None:
    """Make it a `FrozenConv`, together with the clamp that follows it where nobody else reads it."""
    conv = _module_of(network, node)
    if not isinstance(conv, nn.Conv2d) or type(conv) not in KNOWN:
        return
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return
    clamp = next(iter(node.users)) if len(node.users) == 1 else node
    limits = CLAMPS.get(_operation(network, clamp))
    _call(network, node, FrozenConv(conv, *(limits or UNCLAMPED), winograd=winograd), node.args)
    if limits:
        clamp.replace_all_uses_with(node)
        network.graph.erase_node(clamp)


def _freeze_clamp(network: fx.GraphModule, node: fx.Node) -> None:
    """Make it a `FrozenClamp`, together with the sum in front of it where nobody else reads it."""
    limits = CLAMPS.get(_operation(network, node))
    if not limits or not node.args:
        return
    (source,) = node.all_input_nodes
    is_sum = source.op != "call_module" and source.target in SUMS and len(source.users) == 1 and not source.kwargs
    if is_sum and all(isinstance(term, fx.Node) for term in source.args):
        _call(network, node, FrozenClamp(*limits), source.args)
        network.graph.erase_node(source)
    else:
        _call(network, node, FrozenClamp(*limits), (source,))


def _freeze_pool(network: fx.GraphModule, node: fx.Node) -> None:
    """Make it a `FrozenPool`, if its settings are known."""
    kind, pool = POOLS.get(_operation(network, node)), _module_of(network, node)
    if kind is None or not node.args or len(node.args) > MOST_SETTINGS or len(node.all_input_nodes) > 1:
        return
    known = pool if isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) else kind(*node.args[1:], **node.kwargs)
    if not getattr(known, "return_indices", False):
        _call(network, node, FrozenPool(known), node.args[:1])


def _call(network: fx.GraphModule, node: fx.Node, module: nn.Module, arguments: tuple[fx.node.Argument, ...]) -> None:
    """Let a node call a module."""
    name = f"frozen_{node.name}"
    network.add_submodule(name, module)
    node.op, node.target, node.args, node.kwargs = "call_module", name, arguments, {}


def _operation(network: fx.GraphModule, node: fx.Node) -> object:
    """The function or method that a node calls, or the class of its module."""
    module = _module_of(network, node)
    return node.target if module is None else type(module)


def _activation_of(norm: nn.BatchNorm2d) -> nn.Module:
    activation: nn.Module = getattr(norm, "act", nn.Identity())
    return activation


def _module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _replace(network: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
