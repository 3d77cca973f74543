"""What a network that is never trained can do without: batch norms, and all that only its weights' gradients need."""

from collections import Counter
from math import inf

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phosphene.models.convolution import UNCLAMPED, FrozenConv

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


def freeze_convolutions(network: fx.GraphModule, winograd: bool) -> None:
    """Make each convolution a `FrozenConv`, together with the clamp that follows it where nobody else reads it."""
    for node in list(network.graph.nodes):
        conv = _module_of(network, node)
        if not isinstance(conv, nn.Conv2d) or type(conv) not in KNOWN:
            continue
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            continue
        clamp = next(iter(node.users)) if len(node.users) == 1 else node
        limits = _limits_of(network, clamp)
        name = f"frozen_{node.name}"
        network.add_submodule(name, FrozenConv(conv, *(limits or UNCLAMPED), winograd=winograd))
        node.target = name
        if limits:
            clamp.replace_all_uses_with(node)
            network.graph.erase_node(clamp)
    for node in network.graph.nodes:
        conv, readers = _module_of(network, node), list(node.users)
        if isinstance(conv, FrozenConv):
            conv.read_once = len(readers) == 1 and isinstance(_module_of(network, readers[0]), FrozenConv)
    network.delete_all_unused_submodules()
    network.recompile()


def _limits_of(network: fx.GraphModule, node: fx.Node) -> tuple[float, float] | None:
    module = _module_of(network, node)
    return CLAMPS.get(node.target if module is None else type(module))


def _activation_of(norm: nn.BatchNorm2d) -> nn.Module:
    activation: nn.Module = getattr(norm, "act", nn.Identity())
    return activation


def _module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _replace(network: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
