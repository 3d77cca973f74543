"""A traced network to one that is never trained: passes over its graph, each from a graph to a graph.

The order matters. Pools swap first, since convolutions take clamps along; convolutions come before clamps, which are
left with what no convolution took; and gradients are given owners last, when it is known who reads what.
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

from phosphene.engine.algorithms import FEWEST, Convolution, FusedGemm, is_filtered
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

KNOWN_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
"""Batch norms that can be folded, where they have running statistics."""


def rewrite_graph(network: fx.GraphModule, fast: bool, tuning: Tuning, stride: int = 1) -> fx.GraphModule:
    """Keep nothing for the way back that only weights' gradients need, nor more of clamps and pools than they need.

    Outputs and gradients stay the same up to rounding.
    """
    network = fold_batch_norms(network)
    has_filtered = any(_is_filtered_both_ways(network, node) for node in network.graph.nodes)
    policy = policy_of(fast, has_filtered, tuning, stride)
    for each in PASSES:
        network = each(network, policy)
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def fold_batch_norms(network: fx.GraphModule) -> fx.GraphModule:
    """Put each batch norm into the weights of the convolution in front of it.

        x -> conv -> norm -> y
        x -> conv' ---------> y      conv' = norm of conv, in its weights and its bias

    Not where someone else reads the convolution, or one of the two is used twice. A frozen batch norm is linear. An
    activation that timm keeps within its batch norm stays where it was.
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
    """Pool behind a kernel of one pixel that has fewer filters than channels, not in front of it.

        x -> mean pool -> 1x1 -> clamp -> y
        x -> 1x1' -> mean pool, + bias, clamp -> y      1x1' is without its bias: the pool pads with zeros

    Both are linear, and the pool has fewer channels to read.
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
        limits = _taken_clamp(network, node)
        _call(network, source, FrozenMeanPool(pool, bias, *limits, policy), (fewer,))
        node.replace_all_uses_with(source)
        network.graph.erase_node(node)
    return network


def freeze_convolutions(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make each convolution a `FrozenConv`, with the clamp behind it where nobody else reads it.

    x -> conv -> clamp -> y
    x -> FrozenConv(conv, low, high) -> y
    """
    for node in list(network.graph.nodes):
        conv = _module_of(network, node)
        if _can_be_frozen(conv) and not node.kwargs:
            limits = _taken_clamp(network, node)
            _call(network, node, FrozenConv(conv, *limits, policy), node.args)
    return network


def freeze_clamps(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make each clamp that is left a `FrozenClamp`, with the sum in front of it where nobody else reads it.

        a -> 1x1 -> +(b) -> clamp -> y            a -> any -> +(b) -> clamp -> y
        (a, b) -> FrozenConv(1x1, low, high) -> y     a -> any -> FrozenClamp(low, high)(b) -> y

    A fused GEMM whose result nobody else reads takes the sum and the clamp into its epilogue.
    """
    for node in list(network.graph.nodes):
        limits = CLAMPS.get(_operation(network, node))
        if limits and node.args:
            _freeze_clamp(network, node, limits, policy)
    return network


def freeze_pools(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make each pool whose settings are known a frozen one.

    x -> max pool -> y
    x -> FrozenMaxPool -> y      keeps a byte an output in place of its input
    """
    for node in list(network.graph.nodes):
        pool = _pool_of(network, node)
        if isinstance(pool, nn.AvgPool2d):
            _call(network, node, FrozenMeanPool(pool, None, *UNCLAMPED, policy), node.args[:1])
        elif pool is not None and not pool.return_indices:
            _call(network, node, FrozenMaxPool(pool, policy), node.args[:1])
    return network


def merge_1x1_siblings(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Make one convolution of the kernels of one pixel that read the same and are clamped alike.

        x -> 1x1 -> a, x -> 1x1 -> b
        x -> 1x1 of both's filters -> split -> a, b

    The input is read once, and the gradient comes back in one piece in place of several to be added.
    """
    for node in list(network.graph.nodes):
        alike: dict[tuple[float, float], dict[fx.Node, FrozenConv]] = {}
        for reader in node.users:
            conv = _module_of(network, reader)
            if isinstance(conv, FrozenConv) and conv.is_pointwise and conv.stride == (1, 1) and reader.args == (node,):
                alike.setdefault((conv.low, conv.high), {})[reader] = conv
        for limits, convs in alike.items():
            if len(convs) > 1:
                _merge(network, node, convs, FrozenConv(_stacked(list(convs.values())), *limits, policy))
    return network


def fuse_grad_accumulation(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Let a fused GEMM add the gradient that others who read its input send back.

        x -> 1x1 -> y, x -> others
        x -> 1x1 -> (y, x'), x' -> others      so the others' gradient comes to the GEMM's backward

    It is added in the epilogue. A kernel with a stride is preferred: it adds its own to theirs, in place, at one in
    stride x stride pixels.
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
            passed = network.graph.call_function(operator.getitem, (first, 1))
            result = network.graph.call_function(operator.getitem, (first, 0))
        for reader in results:
            reader.replace_input_with(first, result)
        for reader in readers:
            if reader is not first:
                reader.replace_input_with(node, passed)
        conv.returns_input, conv.owns_side_grad = True, _grad_is_fresh(network, passed)
    return network


def find_owned_grads(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Say of each frozen convolution whether the gradient of its output may be overwritten.

    x -> conv -> y -> one reader that makes a new gradient      conv.owns_grad
    x -> conv -> y -> several readers, or the graph's output    not: someone else may hold it
    """
    for node in network.graph.nodes:
        conv = _module_of(network, node)
        if isinstance(conv, FrozenConv):
            result = next(reader for reader in node.users if reader.args[1] == 0) if conv.returns_input else node
            conv.owns_grad = _grad_is_fresh(network, result)
    return network


def fuse_depthwise(network: fx.GraphModule, policy: Policy) -> fx.GraphModule:
    """Compute a depthwise convolution together with the clamped 1x1 convolution in front, if nobody else reads that.

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
            widen = _widening(network, source)
            _call(network, node, FrozenDepthwise(conv, widen, before), node.args if widen is None else source.args)
            if widen:
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
    adding = {term: conv for term in terms if (conv := _adding_conv(network, term))}
    if not adding or terms[0] is terms[1]:
        _call(network, node, FrozenClamp(*limits, policy), source.args)
        network.graph.erase_node(source)
        return
    term, conv = next(iter(adding.items()))
    conv.low, conv.high = limits
    (addend,) = (found for found in terms if found is not term)
    _call(network, node, conv, (*term.args, addend))
    for done in (source, term):
        network.graph.erase_node(done)


def _adding_conv(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's convolution if it can take over the sum that reads it, and nobody else reads it."""
    conv = _fused_gemm_of(network, node)
    return None if conv is None or conv.clamps or len(node.args) > 1 or len(node.users) > 1 else conv


def _taken_clamp(network: fx.GraphModule, node: fx.Node) -> tuple[float, float]:
    """Return the limits of the clamp behind a node, and remove it; `UNCLAMPED` where none is the only reader."""
    clamp = next(iter(node.users)) if len(node.users) == 1 else node
    limits = CLAMPS.get(_operation(network, clamp))
    if limits is None:
        return UNCLAMPED
    clamp.replace_all_uses_with(node)
    network.graph.erase_node(clamp)
    return limits


def _is_filtered_both_ways(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a convolution that is filtered both ways, for which it is worth to load Numba."""
    conv = _module_of(network, node)
    return _can_be_frozen(conv) and conv.in_channels >= FEWEST and is_filtered(Convolution(conv, *UNCLAMPED, Policy()))


def _can_be_frozen(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return _is_known(conv) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_known(conv: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return type(conv) in KNOWN


def _can_be_folded(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a module is a batch norm that is linear: not one that looks at the mean of its own input."""
    return type(norm) in KNOWN_NORMS and getattr(norm, "running_mean", None) is not None


def _merge(network: fx.GraphModule, node: fx.Node, convs: dict[fx.Node, FrozenConv], merged: FrozenConv) -> None:
    name = f"merged_{node.name}_{merged.low}_{merged.high}".replace(".", "_").replace("-", "_")
    network.add_submodule(name, merged)
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
    return _conv_1x1(weight, bias)


def _conv_1x1(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """Return the convolution of a kernel [filters, channels, 1, 1]."""
    filters, channels, _, _ = weight.shape
    conv = nn.Conv2d(channels, filters, 1, bias=False, device="meta")
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


def _reads_with_stride(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a fused GEMM that reads every second pixel, say, of its only input."""
    conv = _fused_gemm_of(network, node)
    return conv is not None and conv.stride != (1, 1) and len(node.args) == 1


def _fused_gemm_of(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's convolution if it is a GEMM of our own, which can add what stands around it."""
    conv = _module_of(network, node)
    return conv if isinstance(conv, FrozenConv) and isinstance(conv.algorithm, FusedGemm) else None


def _widening(network: fx.GraphModule, node: fx.Node) -> FrozenConv | None:
    """Return a node's clamped 1x1 convolution if it has one reader and one input, and sees each place."""
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


def _module_of(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _replace(network: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
