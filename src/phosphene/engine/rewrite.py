"""Graph passes that turn a traced network into a frozen one. Each takes a graph and returns it.

The order matters. Pools are swapped first, since freezing a convolution fuses the clamp behind it. Convolutions come
before clamps, so that only the clamps that no convolution took are frozen by themselves. Which gradients may be
overwritten is decided once every reader is known.
"""

import operator
from collections import Counter
from collections.abc import Callable
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.utils import _pair
from torch.nn.utils.fusion import fuse_conv_bn_eval

from phosphene.engine.algorithms import MAX_LANES, Convolution, FusedGemm, is_filtered
from phosphene.engine.clamp import UNCLAMPED, FrozenClamp
from phosphene.engine.conv import FrozenConv
from phosphene.engine.depthwise import FrozenDepthwise, can_be_fused
from phosphene.engine.pool import FrozenMaxPool, FrozenMeanPool
from phosphene.engine.tuning import Policy, Tuning, policy_of
from phosphene.libraries import BatchNormAct2d, Conv2dSame

Pass = Callable[[fx.GraphModule, Policy], fx.GraphModule]

RELU, RELU6 = (0.0, torch.inf), (0.0, 6.0)
CLAMPS: dict[object, tuple[float, float]] = {
    nn.ReLU: RELU,
    nn.ReLU6: RELU6,
    F.relu: RELU,
    torch.relu: RELU,
    "relu": RELU,
    F.relu6: RELU6,
}
"""Modules, functions and methods that clamp, and their limits."""

SUMS = (operator.add, torch.add, "add")

POOLS: dict[object, Callable[..., nn.MaxPool2d | nn.AvgPool2d]] = {
    nn.MaxPool2d: nn.MaxPool2d,
    nn.AvgPool2d: nn.AvgPool2d,
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
}

MOST_SETTINGS = 5
"""Arguments of a pooling function whose order is that of the module's: the input, and four settings."""

KNOWN = (nn.Conv2d, Conv2dSame)
"""Convolutions that can be frozen. A subclass may do anything else, too."""

KNOWN_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
"""Batch norms that can be folded, if they have running statistics."""


def rewrite_graph(network: fx.GraphModule, fast: bool, tuning: Tuning, stride: int = 1) -> fx.GraphModule:
    """Apply all passes, so that the backward pass needs only the masks of clamps and the positions of maxima.

    Outputs and gradients stay the same up to rounding.
    """
    network = fold_batch_norms(network)
    has_filtered = any(_is_filtered_both_ways(network, node) for node in network.graph.nodes)
    policy = policy_of(fast, has_filtered, tuning, stride)
    for graph_pass in PASSES:
        network = graph_pass(network, policy)
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def fold_batch_norms(network: fx.GraphModule) -> fx.GraphModule:
    """Fold each batch norm into the convolution in front of it.

        x -> conv -> norm -> y
        x -> conv' ---------> y      conv' has the scaled weights and the shifted bias

    This needs that nothing else reads the convolution, and that neither module is called twice. An activation that timm
    keeps within the batch norm stays where it was.
    """
    uses = Counter(node.target for node in network.graph.nodes if node.op == "call_module")
    for node in list(network.graph.nodes):
        norm = _module_of(network, node)
        if not _can_be_folded(norm) or node.kwargs or not isinstance(node.args[0], fx.Node):
            continue
        source = node.args[0]
        conv = _module_of(network, source)
        if not _is_known(conv) or len(source.users) > 1 or uses[source.target] + uses[node.target] > 2:
            continue
        _replace(network, str(source.target), fuse_conv_bn_eval(conv, norm))
        _replace(network, str(node.target), getattr(norm, "act", nn.Identity()))
        if isinstance(_module_of(network, node), nn.Identity):
            node.replace_all_uses_with(source)
            network.graph.erase_node(node)
    network.recompile()
    return network


def swap_pool_and_1x1(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Move an average pool behind a 1x1 convolution that has fewer filters than channels.

        x -> mean pool -> 1x1 -> clamp -> y
        x -> 1x1' -> mean pool, + bias, clamp -> y      1x1' has no bias, since the pool pads with zeros

    Both are linear, so they commute, and the pool has fewer channels to read.
    """
    for node in list(network.graph.nodes):
        conv, source = _module_of(network, node), node.args[0] if node.args else None
        if type(conv) is not nn.Conv2d or conv.out_channels >= conv.in_channels or not isinstance(source, fx.Node):
            continue
        pool = _pool_of(network, source)
        if not isinstance(pool, nn.AvgPool2d) or len(source.users) > 1 or _pair(pool.stride) != (1, 1):
            continue
        if (conv.kernel_size, conv.stride, conv.groups) != ((1, 1), (1, 1), 1) or conv.padding not in ("valid", (0, 0)):
            continue
        network.add_submodule(f"linear_{node.name}", _conv_1x1(conv.weight.detach()))
        with network.graph.inserting_before(source):
            fewer = network.graph.call_module(f"linear_{node.name}", source.args[:1])
        bias = None if conv.bias is None else conv.bias.detach()
        limits = _absorb_clamp(network, node)
        _call(network, source, FrozenMeanPool(pool, bias, *limits, policy), (fewer,))
        node.replace_all_uses_with(source)
        network.graph.erase_node(node)
    return network


def freeze_convolutions(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make each convolution a `FrozenConv`, with the clamp behind it if that is its only reader.

    x -> conv -> clamp -> y
    x -> FrozenConv(conv, low, high) -> y
    """
    for node in list(network.graph.nodes):
        conv = _module_of(network, node)
        if _can_be_frozen(conv) and not node.kwargs:
            limits = _absorb_clamp(network, node)
            _call(network, node, FrozenConv(conv, *limits, policy), node.args)
    return network


def freeze_clamps(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make each remaining clamp a `FrozenClamp`, with the sum in front of it if nothing else reads that.

        a -> 1x1 -> +(b) -> clamp -> y            a -> any -> +(b) -> clamp -> y
        (a, b) -> FrozenConv(1x1, low, high) -> y     a -> any -> FrozenClamp(low, high)(b) -> y

    If a summand is the result of a fused GEMM, and nothing else reads it, the sum and the clamp go into its epilogue.
    """
    for node in list(network.graph.nodes):
        limits = CLAMPS.get(_operation(network, node))
        if limits and node.args:
            _freeze_clamp(network, node, limits, policy)
    return network


def freeze_pools(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make each pool whose settings can be read a frozen one.

    x -> max pool -> y
    x -> FrozenMaxPool -> y      saves a byte an output, not its input
    """
    for node in list(network.graph.nodes):
        pool = _pool_of(network, node)
        if isinstance(pool, nn.AvgPool2d):
            _call(network, node, FrozenMeanPool(pool, None, *UNCLAMPED, policy), node.args[:1])
        elif pool is not None and not pool.return_indices:
            _call(network, node, FrozenMaxPool(pool, policy), node.args[:1])
    return network


def merge_1x1_siblings(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Merge 1x1 convolutions that read the same input and have the same clamp.

        x -> 1x1 -> a, x -> 1x1 -> b
        x -> 1x1 with the filters of both -> split -> a, b

    The input is read once, and its gradient is computed at once, not in parts that have to be added.
    """
    for node in list(network.graph.nodes):
        by_limits: dict[tuple[float, float], dict[fx.Node, FrozenConv]] = {}
        for reader in node.users:
            conv = _module_of(network, reader)
            if isinstance(conv, FrozenConv) and conv.is_pointwise and conv.stride == (1, 1) and reader.args == (node,):
                by_limits.setdefault((conv.low, conv.high), {})[reader] = conv
        for limits, convs in by_limits.items():
            if len(convs) > 1:
                _merge(network, node, convs, FrozenConv(_stacked(list(convs.values())), *limits, policy))
    return network


def fuse_grad_accumulation(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Let a fused GEMM's backward pass add the gradient of its input's other readers.

        x -> 1x1 -> y, x -> others
        x -> 1x1 -> (y, x'), x' -> others      so the others' gradient arrives at the GEMM's backward

    It is added in the epilogue. A strided convolution is preferred: it adds its own gradient to theirs in place, at one
    in stride x stride pixels.
    """
    for node in list(network.graph.nodes):
        readers = [reader for reader in network.graph.nodes if reader in node.users]
        if len(readers) < 2:
            continue
        first = next((reader for reader in readers if _reads_with_stride(network, reader)), readers[0])
        conv = _fused_gemm_of(network, first)
        if conv is None or node in first.args[1:]:
            continue
        if first is not readers[0]:
            readers[0].prepend(first)
        results = list(first.users)
        with network.graph.inserting_after(first):
            passed_input = network.graph.call_function(operator.getitem, (first, 1))
            result = network.graph.call_function(operator.getitem, (first, 0))
        for reader in results:
            reader.replace_input_with(first, result)
        for reader in readers:
            if reader is not first:
                reader.replace_input_with(node, passed_input)
        conv.returns_input, conv.owns_side_grad = True, _grad_is_fresh(network, passed_input)
    return network


def find_owned_grads(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Decide for each frozen convolution whether the gradient of its output may be overwritten.

    x -> conv -> y -> one reader that makes a new gradient      yes: conv.owns_grad
    x -> conv -> y -> several readers, or the graph's output    no: something else may hold it
    """
    for node in network.graph.nodes:
        conv = _module_of(network, node)
        if isinstance(conv, FrozenConv):
            result = next(reader for reader in node.users if reader.args[1] == 0) if conv.returns_input else node
            conv.owns_grad = _grad_is_fresh(network, result)
    return network


def fuse_depthwise(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Fuse a depthwise convolution with the clamped 1x1 expansion in front of it, if nothing else reads that.

    x -> 1x1, clamp -> depthwise, clamp -> y
    x -> FrozenDepthwise ----------------> y
    """
    strides: dict[fx.Node, int] = {}
    for node in list(network.graph.nodes) if policy.fast else ():
        conv = _module_of(network, node)
        before = max((strides[source] for source in node.all_input_nodes), default=policy.stride)
        strides[node] = before * max(_pair(getattr(conv, "stride", 1)))
        if isinstance(conv, FrozenConv) and can_be_fused(conv):
            (source,) = node.all_input_nodes
            expand = _expansion(network, source)
            _call(network, node, FrozenDepthwise(conv, expand, before), node.args if expand is None else source.args)
            if expand:
                network.graph.erase_node(source)
    return network


PASSES: tuple[Pass, ...] = (
    swap_pool_and_1x1,
    freeze_convolutions,
    freeze_clamps,
    freeze_pools,
    merge_1x1_siblings,
    fuse_grad_accumulation,
    find_owned_grads,
    fuse_depthwise,
)


def _freeze_clamp(network: fx.GraphModule, node: fx.Node, limits: tuple[float, float], policy: Policy) -> None:
    (source,) = node.all_input_nodes
    terms = [term for term in source.args if isinstance(term, fx.Node)]
    is_sum = source.op != "call_module" and source.target in SUMS and len(source.users) == 1 and not source.kwargs
    if not is_sum or len(terms) < len(source.args):
        _call(network, node, FrozenClamp(*limits, policy), (source,))
        return
    convs = {term: conv for term in terms if (conv := _conv_that_can_add(network, term))}
    if not convs or terms[0] is terms[1]:
        _call(network, node, FrozenClamp(*limits, policy), source.args)
        network.graph.erase_node(source)
        return
    term, conv = next(iter(convs.items()))
    conv.low, conv.high = limits
    (addend,) = (other for other in terms if other is not term)
    _call(network, node, conv, (*term.args, addend))
    for unused in (source, term):
        network.graph.erase_node(unused)


def _conv_that_can_add(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's convolution if it can take the sum behind it into its epilogue, and nothing else reads it."""
    conv = _fused_gemm_of(network, node)
    return None if conv is None or conv.clamps or len(node.args) > 1 or len(node.users) > 1 else conv


def _absorb_clamp(network: fx.GraphModule, node: fx.Node) -> tuple[float, float]:
    """Remove the clamp that is a node's only reader, and return its limits, or `UNCLAMPED` if there is none."""
    clamp = next(iter(node.users)) if len(node.users) == 1 else node
    limits = CLAMPS.get(_operation(network, clamp))
    if limits is None:
        return UNCLAMPED
    clamp.replace_all_uses_with(node)
    network.graph.erase_node(clamp)
    return limits


def _is_filtered_both_ways(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a convolution with minimal filtering forward and backward, which is worth loading Numba for."""
    conv = _module_of(network, node)
    return (
        _can_be_frozen(conv) and conv.in_channels >= MAX_LANES and is_filtered(Convolution(conv, *UNCLAMPED, Policy()))
    )


def _can_be_frozen(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return _is_known(conv) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_known(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return type(conv) in KNOWN


def _can_be_folded(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a module is a batch norm with running statistics: without them it normalises by its own input."""
    return type(norm) in KNOWN_NORMS and getattr(norm, "running_mean", None) is not None


def _merge(network: fx.GraphModule, node: fx.Node, convs: dict[fx.Node, FrozenConv], merged: FrozenConv) -> None:
    name = f"merged_{node.name}_{merged.low}_{merged.high}".replace(".", "_").replace("-", "_")
    network.add_submodule(name, merged)
    with network.graph.inserting_before(next(reader for reader in network.graph.nodes if reader in convs)):
        merged_node = network.graph.call_module(name, (node,))
        sizes = [len(conv.bias) for conv in convs.values()]
        parts = network.graph.call_function(torch.split, (merged_node, sizes, 1))
        pieces = [network.graph.call_function(operator.getitem, (parts, k)) for k in range(len(sizes))]
    for reader, piece in zip(convs, pieces, strict=True):
        reader.replace_all_uses_with(piece)
        network.graph.erase_node(reader)


def _stacked(convs: list[FrozenConv]) -> nn.Conv2d:
    """Return a 1x1 convolution with the filters of all of `convs`."""
    weight, bias = (torch.cat([getattr(conv, name) for conv in convs]) for name in ("weight", "bias"))
    return _conv_1x1(weight, bias)


def _conv_1x1(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Return a 1x1 convolution with a weight [filters, channels, 1, 1]."""
    filters, channels, _, _ = weight.shape
    conv = nn.Conv2d(channels, filters, 1, bias=False, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


def _reads_with_stride(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a fused GEMM with a stride and a single input."""
    conv = _fused_gemm_of(network, node)
    return conv is not None and conv.stride != (1, 1) and len(node.args) == 1


def _fused_gemm_of(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's convolution if it is a fused GEMM, whose epilogue can add."""
    conv = _module_of(network, node)
    return conv if isinstance(conv, FrozenConv) and isinstance(conv.algorithm, FusedGemm) else None


def _expansion(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's clamped 1x1 convolution if it has one reader, one input and no stride."""
    conv = _module_of(network, node)
    if not isinstance(conv, FrozenConv) or not conv.is_pointwise or conv.stride != (1, 1) or not conv.clamps:
        return None
    return conv if len(node.users) == 1 and len(node.args) == 1 else None


def _grad_is_fresh(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node has one reader, whose gradient is a new tensor."""
    if len(node.users) != 1:
        return False
    (reader,) = node.users
    reads_it = isinstance(_module_of(network, reader), FrozenConv) and reader.args[0] is node
    return reads_it or reader.target is torch.split


def _pool_of(network: fx.GraphModule, node: fx.Node) -> nn.MaxPool2d | nn.AvgPool2d | None:
    """Return the pool that a node calls, module or function, as a module; None if its settings cannot be read."""
    kind, pool = POOLS.get(_operation(network, node)), _module_of(network, node)
    if kind is None or not node.args or len(node.args) > MOST_SETTINGS or len(node.all_input_nodes) > 1:
        return None
    return pool if isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) else kind(*node.args[1:], **node.kwargs)


def _call(network: fx.GraphModule, node: fx.Node, module: nn.Module, arguments: tuple[fx.node.Argument, ...]) -> None:
    """Make a node call `module`, which is added to the network."""
    name = f"frozen_{node.name}"
    network.add_submodule(name, module)
    node.op, node.target, node.args, node.kwargs = "call_module", name, arguments, {}


def _operation(network: fx.GraphModule, node: fx.Node) -> object:
    """Return the function or method that a node calls, or the class of its module."""
    module = _module_of(network, node)
    return node.target if module is None else type(module)


def _module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _replace(network: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
