"""What each layer of a network is: its size, how far it sees, and how much arithmetic leads to it."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from phosphene.networks.graph import ONE_AT_A_TIME, ancestors, may_have_channels_last, on_paper
from phosphene.networks.network import Features, Network
from phosphene.networks.receptive_field import ReceptiveField, module_of, window_of
from phosphene.networks.sizes import as_planes, first_fitting
from phosphene.types import Size


@dataclass(frozen=True)
class Layer:
    """A layer that can be dreamed, for an image of one size.

    `receptive_field` is None where the layer sees all of the image (behind a squeeze-excite, an attention or a pooling
    to one place). `parameters` are the operation's own; `multiplications` are multiply-adds of all that leads to it.
    """

    name: str
    shape: tuple[int, ...]
    receptive_field: ReceptiveField | None
    parameters: int
    multiplications: int

    @property
    def channels(self) -> int:
        """Number of channels, or of a vector's elements."""
        return self.shape[1]


def describe(network: Network, size: Size) -> dict[str, Layer]:
    """Return every node of the network, by name, for an image of `size` px; nothing is computed but shapes."""
    traced = fx.GraphModule(network.module, network.graph)
    size, values = first_fitting(
        lambda tried: _shapes(traced, (len(network.card.mean), *tried), network.is_hooked),
        size,
        network.card.name,
        network.card.min_side,
    )
    fields, is_last = receptive_fields(network), may_have_channels_last(traced)
    upstream: dict[fx.Node, frozenset[fx.Node]] = {}
    layers = {}
    names = {node: name for name, node in network.nodes.items()}
    for node in network.graph.nodes:
        upstream[node] = frozenset({node}).union(*(upstream[source] for source in node.all_input_nodes))
        value = values.get(node.name)
        if node in names and isinstance(value, Tensor) and value.ndim >= 2:
            layers[names[node]] = Layer(
                name=names[node],
                shape=tuple((as_planes(value, 1, size, is_last) if value.ndim > 2 else value).shape),
                receptive_field=fields[names[node]],
                parameters=sum(p.numel() for p in module_of(node, network.module).parameters()),
                multiplications=sum(_multiplications(a, network.module, values) for a in upstream[node]),
            )
    return layers


def receptive_fields(network: Network, start: str | None = None) -> dict[str, ReceptiveField | None]:
    """Return how far every node of the network sees, by name; nothing is computed.

    With a `start`, how far the nodes behind it see of its units.
    """
    if network.is_hooked:
        return dict.fromkeys(network.nodes)
    found = network.receptive_fields(start)
    return {name: found[node] for name, node in network.nodes.items() if node in found}


def channels(network: Network, nodes: tuple[str, ...], side: int = 1) -> Mapping[str, int]:
    """Return how many channels some layers have, by looking at an image of `side` px, or as little as can be seen."""
    side = max(side, network.card.min_side)
    seen = _seen(network, network.part(nodes, is_frozen=False), (side, side))
    return {name: activation.shape[1] for name, activation in seen.items()}


def cut_channels(network: Network, cut: str) -> int:
    """Return how many channels there are where the network is cut."""
    field = receptive_fields(network)[cut]
    return channels(network, (cut,), max(field.size) if field else 1)[cut]


def layer_sizes(
    network: Network, nodes: tuple[str, ...], size: Size, start: str | None = None
) -> Mapping[str, tuple[int, int]]:
    """Return rows and columns of units of some layers, for an image of `size` px, or as many units of `start`.

    An image that is smaller by a multiple of their strides has as many units less, and is quickly looked at. Where a
    layer sees the whole image, only shapes are computed; for that PyTorch loads its compiler, which takes two seconds.
    """
    features, given = network.features(nodes, start), 3 if start is None else cut_channels(network, start)
    fields = [receptive_fields(network, start)[name] for name in nodes]
    known = [field for field in fields if field]
    if len(known) < len(nodes):
        with on_paper(features):
            activations = _seen(network, features, size, given)
        return {name: (a.shape[2], a.shape[3]) for name, a in activations.items()}
    rows, columns = (
        _shortened(side, [(field.stride[axis], field.size[axis]) for field in known]) for axis, side in enumerate(size)
    )
    return {
        name: (a.shape[2] + (size[0] - rows) // field.stride[0], a.shape[3] + (size[1] - columns) // field.stride[1])
        for (name, a), field in zip(_seen(network, features, (rows, columns), given).items(), known, strict=True)
    }


@torch.no_grad()
def _seen(network: Network, features: Features, size: Size, given: int = 3) -> Mapping[str, Tensor]:
    """What some layers have of a black image, or of zeros of `given` channels."""
    weights = next(network.module.parameters(), torch.empty(0, device=network.device))
    return features(torch.zeros(1, given, *size, device=weights.device, dtype=weights.dtype))


def _shortened(side: int, fields: list[tuple[int, int]]) -> int:
    """Return the shortest side that covers the largest receptive field and equals `side` modulo all strides, in px; or
    `side`, if that is shorter. `fields` are (stride, size) of each layer."""
    seen = max(field for _, field in fields)
    return min(side, seen + (side - seen) % lcm(*(stride for stride, _ in fields)))


def cut_points(network: Network, nodes: tuple[str, ...]) -> list[str]:
    """Return the nodes where the way to some layers can be cut in stages, from the first to the last.

    All later nodes on the way are computed through them, they see a part of the image, and no batch norm or activation
    alone reads them, which would be computed together with what is in front of it.
    """
    behind = ancestors(network.nodes[name] for name in nodes)
    names, fields = {node: name for name, node in network.nodes.items()}, receptive_fields(network)
    points, open_until, order = [], 0, {node: index for index, node in enumerate(network.graph.nodes)}
    for node in (node for node in network.graph.nodes if node in behind):
        readers = [user for user in node.users if user in behind]
        if order[node] >= open_until and node in names and fields[names[node]] and not _reads_each(readers, network):
            points.append(names[node])
        open_until = max([open_until, *(order[reader] for reader in readers)])
    return points


def _reads_each(readers: list[fx.Node], network: Network) -> bool:
    """Whether all that is done with a value looks at one unit of it at a time."""
    root = network.module
    return all(
        window_of(reader, root) == ((1, 1), (1, 1)) and not isinstance(module_of(reader, root), nn.Conv2d)
        for reader in readers
    )


@dataclass(frozen=True)
class Work:
    """What is done between two places of a network: multiply-adds, and how many numbers are given and written."""

    multiplications: int
    given: int
    written: int


def work_between(network: Network, nodes: tuple[str, ...], cuts: tuple[str, ...], size: Size) -> list[Work]:
    """Return what leads to some layers, for an image of `size` px: as far as the first cut, to the next, and so on."""
    shape = (len(network.card.mean), *size)
    values = _shapes(fx.GraphModule(network.module, network.graph), shape, network.is_hooked)
    done: set[fx.Node] = set()
    found, given = [], 3 * prod(size)
    for ends in (*((cut,) for cut in cuts), nodes):
        section = ancestors(network.nodes[name] for name in ends) - done
        numbers = [values[node.name].numel() for node in section if isinstance(values.get(node.name), Tensor)]
        work = sum(_multiplications(node, network.module, values) for node in section)
        found.append(Work(work, given, sum(numbers)))
        given, done = values[network.nodes[ends[0]].name].numel(), done | section
    return found


def narrow_nodes(network: Network) -> set[str]:
    """Return the nodes that all later ones are computed through: ends of blocks, not branches within them."""
    order = {node: index for index, node in enumerate(network.graph.nodes)}
    names = {node: name for name, node in network.nodes.items()}
    farthest, narrow = 0, set()
    for node, index in order.items():
        if index >= farthest and node in names:
            narrow.add(names[node])
        farthest = max([farthest, *(order[user] for user in node.users)])
    return narrow


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def _shapes(module: fx.GraphModule, shape: tuple[int, int, int], is_hooked: bool) -> dict[str, Any]:
    """Run a network without computing anything; one whose course depends on what it sees has to look at something."""
    weights = next(module.parameters(), torch.empty(0))
    recorder = _Recorder(module)
    with ONE_AT_A_TIME, torch.no_grad(), nullcontext() if is_hooked else on_paper(module):
        recorder.run(torch.zeros(1, *shape, device=weights.device, dtype=weights.dtype))
    return recorder.values


def _multiplications(node: fx.Node, root: nn.Module, values: Mapping[str, Any]) -> int:
    module = module_of(node, root)
    if isinstance(module, nn.Conv2d):
        return int(prod(values[node.name].shape) * module.weight[0].numel())
    if isinstance(module, nn.Linear):
        return int(prod(values[node.name].shape) * module.in_features)
    return 0
