"""A network as a graph of named nodes: traced once, cut behind the deepest layer asked for.

Names are those of `torchvision.models.feature_extraction`, whose tracer makes them: `Mixed_6a.branch3x3.conv` is a
node, and a module's name, `Mixed_6a`, stands for the last node within it.
"""

import operator
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops.misc import Permute

from phosphene.errors import UsageError
from phosphene.libraries import NodePathTracer, get_notrace_functions, get_notrace_modules
from phosphene.networks.own import Hooked

IN_PLACE: dict[fx.node.Target, fx.node.Target] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
}

SIZES = {"shape", "size", "dim", "ndim", "numel", "dtype", "device", "stride", "is_cuda", "item"}
"""Attributes and methods of a tensor that are no tensors."""

LISTING: set[fx.node.Target] = {"unbind", "chunk", "split", "tolist", torch.unbind, torch.chunk, torch.split}
"""What makes lists of tensors."""

MOVING: set[fx.node.Target] = {"permute", "movedim", "transpose", torch.permute, torch.movedim, torch.transpose}
"""What can put an activation's channels last."""

CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm, Permute)
"""Modules that look along an activation's last axis, or put the channels there."""

ONE_AT_A_TIME = threading.RLock()
"""Held while a network is traced or run. A trace replaces the call of every module in the process, and what another
thread runs meanwhile would be drawn into it; so threads take turns, a forward pass at a time."""


def trace(module: nn.Module) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Trace a network, and name its nodes; in-place operations become ordinary ones, in the network too.

    A node that the next operation overwrote would be read as what came after it. Raises `UsageError` for the few
    networks whose course depends on their input.
    """
    tracer = NodePathTracer(
        leaf_modules=tuple(get_notrace_modules()), autowrap_functions=tuple(get_notrace_functions())
    )
    try:
        with ONE_AT_A_TIME:
            graph = tracer.trace(module)
    except Exception as error:  # modules may do anything with what stands in for an image
        raise UsageError(
            f"the layers of a {type(module).__name__} cannot be read, since it cannot be traced ({error}); "
            f"another model may do"
        ) from error
    _, *more = (node for node in graph.nodes if node.op == "placeholder")
    if any(_computes_with(user, node) for node in more for user in node.users):
        raise UsageError(f"a {type(module).__name__} asks for more than images, which cannot be traced")
    for submodule in module.modules():
        if getattr(submodule, "inplace", False):
            submodule.inplace = False  # type: ignore[assignment]
    for node in graph.nodes:
        node.target = _out_of_place(node)
        if node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    others = no_tensors(graph)
    names = {name: node for node, name in tracer.node_to_qualname.items() if node.op.startswith("call")}
    return graph, {name: node for name, node in names.items() if node not in others}


def no_tensors(graph: fx.Graph) -> set[fx.Node]:
    """Find the nodes whose values are numbers, sizes or lists of tensors, and so no layers."""
    numbers, lists = set[fx.Node](), set[fx.Node]()
    for node in graph.nodes:
        sources = node.all_input_nodes
        arithmetic = getattr(node.target, "__module__", None) in ("_operator", "builtins", "math")
        if _asks_for_a_size(node) or (arithmetic and sources and numbers.issuperset(sources)):
            numbers.add(node)
        elif node.target in LISTING or (isinstance(_index(node), slice) and sources[0] in lists):
            lists.add(node)
    return numbers | lists


@contextmanager
def on_paper(*modules: nn.Module) -> Iterator[None]:
    """Within, nothing is computed but shapes. What modules keep of it, as tables of places of a size, is forgotten."""
    parts = {part: (dict(vars(part)), dict(part._buffers)) for module in modules for part in module.modules()}
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        for part, (attributes, buffers) in parts.items():
            for own, before in ((vars(part), attributes), (part._buffers, buffers)):
                own.clear()
                own.update(before)


def may_have_channels_last(traced: fx.GraphModule) -> bool:
    """Whether channels may be an activation's last axis: no network of convolutions alone puts them there."""
    moves = any(node.target in MOVING for node in traced.graph.nodes)
    return moves or any(isinstance(module, CHANNELS_LAST) for module in traced.modules())


def _computes_with(user: fx.Node, node: fx.Node) -> bool:
    """Whether a node is a method or an operation of another's value, and does not just hand it on."""
    is_operation = getattr(user.target, "__module__", None) == "_operator"
    return is_operation or (user.op == "call_method" and user.args[0] is node)


def _asks_for_a_size(node: fx.Node) -> bool:
    if node.target is getattr:
        return node.args[1] in SIZES
    return node.target in (torch._assert, len) or (node.op == "call_method" and node.target in SIZES)


def _index(node: fx.Node) -> object:
    return node.args[1] if node.target is operator.getitem else None


def _out_of_place(node: fx.Node) -> fx.node.Target:
    if node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).startswith("_"):
        return str(node.target).removesuffix("_")
    return IN_PLACE.get(node.target, node.target)


def last_within(names: dict[str, fx.Node]) -> dict[str, str]:
    """Map each module's name to its last node's: `Mixed_6a` to `Mixed_6a.cat`."""
    modules: dict[str, str] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            modules[".".join(parts[:depth])] = name
    return {module: name for module, name in modules.items() if module not in names}


def cut(module: nn.Module, graph: fx.Graph, nodes: dict[str, fx.Node], start: fx.Node | None = None) -> fx.GraphModule:
    """Return a module that maps an image to the named nodes' values, and computes nothing that they do not need.

    With a `start`, which all paths to the nodes pass through, it maps that node's value to theirs.
    """
    copied = fx.Graph()
    needed = ancestors(nodes.values(), start)
    twin: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if start is not None and node is start:
            twin[start] = copied.placeholder("start")
        elif node in needed or (node.op == "placeholder" and start is None):
            twin[node] = copied.node_copy(node, twin.__getitem__)
    copied.output({name: twin[node] for name, node in nodes.items()})
    for node in copied.nodes:
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), Hooked):
            node.args = (node.args[0], tuple(user.args[1] for user in node.users))
    return fx.GraphModule(module, copied)


def ancestors(nodes: Iterable[fx.Node], start: fx.Node | None = None) -> set[fx.Node]:
    """Return the nodes that some are computed through, themselves with them; none that `start` is computed through."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend([] if node is start else node.all_input_nodes)
    return found
