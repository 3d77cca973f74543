"""What a network that is never trained can do without: batch norms, and all that only its weights' gradients need."""

import operator
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.utils import _pair
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phosphene.engine.algorithms import FEWEST, Pointwise
from phosphene.engine.clamp import UNCLAMPED, FrozenClamp
from phosphene.engine.conv import FrozenConv, is_filtered
from phosphene.engine.depthwise import FrozenDepthwise, can_be_fused
from phosphene.engine.pool import FrozenMaximum, FrozenMean
from phosphene.libraries import Conv2dSame

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


def rewrite(network: fx.GraphModule, fast: bool) -> None:
    """Keep nothing for the way back that only weights' gradients need, nor more of clamps and pools than they need.

    Outputs and gradients stay the same up to rounding.
    """
    compiled = fast and any(_is_filtered_both_ways(network, node) for node in network.graph.nodes)
    changes: tuple[Callable[..., None], ...] = (
        partial(_pool_fewer_channels, compiled=compiled),
        partial(_freeze_convolution, compiled=compiled),
        _freeze_clamp,
        partial(_freeze_pool, compiled=compiled),
        partial(_join_readers, compiled=compiled),
        _pass_on,
    )
    for change in changes:
        for node in list(network.graph.nodes):
            change(network, node)
    for node in network.graph.nodes:
        conv = _module_of(network, node)
        if isinstance(conv, FrozenConv):
            conv.read_once = _is_read_once(network, _result_of(node, conv))
    if fast:
        _fuse_depthwise(network)
    network.delete_all_unused_submodules()
    network.recompile()


def _pool_fewer_channels(network: fx.GraphModule, node: fx.Node, compiled: bool) -> None:
    """Let a kernel of one pixel read what an average pool in front of it reads, and the pool its fewer channels.

    Both are linear. The bias is added behind: the pool pads with zeros, not with biases.
    """
    conv, source = _module_of(network, node), node.args[0] if node.args else None
    if type(conv) is not nn.Conv2d or conv.out_channels >= conv.in_channels or not isinstance(source, fx.Node):
        return
    pool = _pool_of(network, source)
    if not isinstance(pool, nn.AvgPool2d) or len(source.users) > 1 or _pair(pool.stride) != (1, 1):
        return
    if (conv.kernel_size, conv.stride, conv.groups) != ((1, 1), (1, 1), 1) or conv.padding not in ("valid", (0, 0)):
        return
    network.add_submodule(f"linear_{node.name}", _convolution(conv.weight.detach()))
    with network.graph.inserting_before(source):
        fewer = network.graph.call_module(f"linear_{node.name}", source.args[:1])
    shift = None if conv.bias is None else conv.bias.detach()
    limits = _taken_clamp(network, node)
    _call(network, source, FrozenMean(pool, shift, *limits, compiled=compiled), (fewer,))
    node.replace_all_uses_with(source)
    network.graph.erase_node(node)


def _is_filtered_both_ways(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a convolution that is filtered both ways, for which it is worth to load Numba."""
    conv = _module_of(network, node)
    return _can_be_frozen(conv) and conv.in_channels >= FEWEST and is_filtered(conv)


def _can_be_frozen(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    if not isinstance(conv, nn.Conv2d) or type(conv) not in KNOWN:
        return False
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _freeze_convolution(network: fx.GraphModule, node: fx.Node, compiled: bool) -> None:
    """Make it a `FrozenConv`, together with the clamp that follows it where nobody else reads it."""
    conv = _module_of(network, node)
    if _can_be_frozen(conv):
        limits = _taken_clamp(network, node)
        _call(network, node, FrozenConv(conv, *limits, compiled=compiled), node.args)


def _taken_clamp(network: fx.GraphModule, node: fx.Node) -> tuple[float, float]:
    """Return the limits of the clamp behind a node, and remove it; `UNCLAMPED` where none is the only reader."""
    clamp = next(iter(node.users)) if len(node.users) == 1 else node
    limits = CLAMPS.get(_operation(network, clamp))
    if limits is None:
        return UNCLAMPED
    clamp.replace_all_uses_with(node)
    network.graph.erase_node(clamp)
    return limits


def _join_readers(network: fx.GraphModule, node: fx.Node, compiled: bool) -> None:
    """Make one convolution of the kernels of one pixel that read a node and are clamped alike.

    The node is read once, and the gradient comes back in one piece in place of several to be added.
    """
    alike: dict[tuple[float, float], dict[fx.Node, FrozenConv]] = {}
    for reader in node.users:
        conv = _module_of(network, reader)
        if isinstance(conv, FrozenConv) and conv.is_pointwise and conv.stride == (1, 1) and reader.args == (node,):
            alike.setdefault((conv.low, conv.high), {})[reader] = conv
    for limits, convs in alike.items():
        if len(convs) > 1:
            _join(network, node, convs, FrozenConv(_stacked(list(convs.values())), *limits, compiled=compiled))


def _join(network: fx.GraphModule, node: fx.Node, convs: dict[fx.Node, FrozenConv], joined: FrozenConv) -> None:
    name = f"joined_{node.name}_{joined.low}_{joined.high}".replace(".", "_").replace("-", "_")
    network.add_submodule(name, joined)
    with network.graph.inserting_before(next(reader for reader in network.graph.nodes if reader in convs)):
        whole = network.graph.call_module(name, (node,))
        sizes = [len(conv.bias) for conv in convs.values()]
        parts = network.graph.call_function(torch.split, (whole, sizes, 1))
        found = [network.graph.call_function(operator.getitem, (parts, k)) for k in range(len(sizes))]
    for reader, part in zip(convs, found, strict=True):
        reader.replace_all_uses_with(part)
        network.graph.erase_node(reader)


def _stacked(convs: list[FrozenConv]) -> nn.Conv2d:
    """Return a convolution with the filters of several."""
    weight, bias = (torch.cat([getattr(conv, name) for conv in convs]) for name in ("weight", "bias"))
    return _convolution(weight, bias)


def _convolution(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Return the convolution of a kernel [filters, channels, 1, 1]."""
    filters, channels, _, _ = weight.shape
    conv = nn.Conv2d(channels, filters, 1, bias=False, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


def _freeze_clamp(network: fx.GraphModule, node: fx.Node) -> None:
    """Make it a `FrozenClamp`, together with the sum in front of it where nobody else reads it.

    A convolution that can add takes over both.
    """
    limits = CLAMPS.get(_operation(network, node))
    if not limits or not node.args:
        return
    (source,) = node.all_input_nodes
    terms = [term for term in source.args if isinstance(term, fx.Node)]
    is_sum = source.op != "call_module" and source.target in SUMS and len(source.users) == 1 and not source.kwargs
    if not is_sum or len(terms) < len(source.args):
        _call(network, node, FrozenClamp(*limits), (source,))
        return
    adding = {term: conv for term in terms if (conv := _adding_conv(network, term))}
    if not adding or terms[0] is terms[1]:
        _call(network, node, FrozenClamp(*limits), source.args)
        network.graph.erase_node(source)
        return
    term, conv = next(iter(adding.items()))
    conv.low, conv.high = limits
    (other,) = (found for found in terms if found is not term)
    _call(network, node, conv, (*term.args, other))
    for done in (source, term):
        network.graph.erase_node(done)


def _adding_conv(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's convolution if it can take over the sum that reads it, and nobody else reads it."""
    conv = _product_of(network, node)
    return None if conv is None or conv.clamps or len(node.args) > 1 or len(node.users) > 1 else conv


def _pass_on(network: fx.GraphModule, node: fx.Node) -> None:
    """Let the first reader of a node pass it on to the others, if it is a convolution that can add their gradient.

    One with a stride comes first where there is one: it adds its own to theirs, to a few places of many.
    """
    readers = [reader for reader in network.graph.nodes if reader in node.users]
    if len(readers) < 2:
        return
    first = next((reader for reader in readers if _reads_with_stride(network, reader)), readers[0])
    conv = _product_of(network, first)
    if conv is None or node in first.args[1:]:
        return
    if first is not readers[0]:
        readers[0].prepend(first)
    results = list(first.users)
    with network.graph.inserting_after(first):
        passed = network.graph.call_function(operator.getitem, (first, 1))
        result = network.graph.call_function(operator.getitem, (first, 0))
    for reader in results:
        reader.replace_input_with(first, result)
    for reader in readers:
        if reader is not first:
            reader.replace_input_with(node, passed)
    conv.passes_on, conv.owns_beside = True, _is_read_once(network, passed)


def _reads_with_stride(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a product of our own that reads every second place, say, of its only input."""
    conv = _product_of(network, node)
    return conv is not None and conv.stride != (1, 1) and len(node.args) == 1


def _product_of(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's convolution if it is a product of our own, which can add what stands around it."""
    conv = _module_of(network, node)
    return conv if isinstance(conv, FrozenConv) and isinstance(conv.quickest, Pointwise) else None


def _result_of(node: fx.Node, conv: FrozenConv) -> fx.Node:
    """Return the node whose value is a convolution's result."""
    return next(reader for reader in node.users if reader.args[1] == 0) if conv.passes_on else node


def _is_read_once(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node has one reader, and the gradient that this hands back is a tensor of its own."""
    if len(node.users) != 1:
        return False
    (reader,) = node.users
    reads_it = isinstance(_module_of(network, reader), FrozenConv) and reader.args[0] is node
    return reads_it or reader.target is torch.split


def _fuse_depthwise(network: fx.GraphModule) -> None:
    """Compute depthwise convolutions together with the clamped 1x1 convolution in front, if nobody else reads that.

    x -> 1x1, clamp -> depthwise, clamp -> y        becomes        x -> FrozenDepthwise -> y
    """
    strides: dict[fx.Node, int] = {}
    for node in list(network.graph.nodes):
        conv = _module_of(network, node)
        before = max((strides[source] for source in node.all_input_nodes), default=1)
        strides[node] = before * max(_pair(getattr(conv, "stride", 1)))
        if isinstance(conv, FrozenConv) and can_be_fused(conv):
            (source,) = node.all_input_nodes
            widen = _widening(network, source)
            _call(network, node, FrozenDepthwise(conv, widen, before), node.args if widen is None else source.args)
            if widen:
                network.graph.erase_node(source)


def _widening(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's clamped 1x1 convolution if it has one reader and one input, and sees each place."""
    conv = _module_of(network, node)
    if not isinstance(conv, FrozenConv) or not conv.is_pointwise or conv.stride != (1, 1) or not conv.clamps:
        return None
    return conv if len(node.users) == 1 and len(node.args) == 1 else None


def _freeze_pool(network: fx.GraphModule, node: fx.Node, compiled: bool) -> None:
    """Make it a frozen pool, if its settings are known."""
    pool = _pool_of(network, node)
    if isinstance(pool, nn.AvgPool2d):
        _call(network, node, FrozenMean(pool, None, *UNCLAMPED, compiled=compiled), node.args[:1])
    elif pool is not None and not pool.return_indices:
        _call(network, node, FrozenMaximum(pool), node.args[:1])


def _pool_of(network: fx.GraphModule, node: fx.Node) -> nn.MaxPool2d | nn.AvgPool2d | None:
    """Return the pool that a node calls, as a module or a function, if its settings are known."""
    kind, pool = POOLS.get(_operation(network, node)), _module_of(network, node)
    if kind is None or not node.args or len(node.args) > MOST_SETTINGS or len(node.all_input_nodes) > 1:
        return None
    return pool if isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) else kind(*node.args[1:], **node.kwargs)


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
