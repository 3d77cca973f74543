"""Facts of an architecture, computed from the network itself, without its weights.

Depth is counted as the papers count it: convolutions and linear layers on the longest way from the image to a layer.
The trunk are the layers that everything passes through: the ends of Inception's modules and of ResNet's blocks, and
every layer of VGG. They are what a depth can be compared at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from torch import fx, nn

from phosphene.networks import registry
from phosphene.networks.layers import Layer, describe, narrow_nodes
from phosphene.networks.network import Network
from phosphene.networks.receptive_field import ReceptiveField
from phosphene.types import Size

USUAL_SIDE = {"inception_v3": 299}
"""Side in px of the images that a network's paper tabulates, where it is not 224."""


@dataclass(frozen=True)
class Trunk:
    """A layer that everything passes through: its names as node and as people say it, and its depth."""

    node: str
    name: str
    depth: int
    layer: Layer


@dataclass(frozen=True)
class TrunkStage:
    """The part of the trunk that has one output size.

    `first` and `last` are layers' names; `size`, `channels` and `receptive_field` (None where it sees the whole image)
    are those of the last; `layers` are convolutions and linear layers on the longest way; `multiplications` are
    multiply-adds.
    """

    first: str
    last: str
    size: Size
    channels: int
    layers: int
    receptive_field: ReceptiveField | None
    parameters: int
    multiplications: int


@dataclass(frozen=True)
class Facts:
    """A network in numbers, for a square image of `side` px.

    `layers` is its depth, `parameters` are those of the layers that lead to the logits, `multiplications` its
    multiply-adds, `receptive_field` (rows, px) that of the last layer that does not see everything.
    """

    model: str
    side: int
    layers: int
    parameters: int
    multiplications: int
    receptive_field: int | None
    stages: tuple[TrunkStage, ...]


@lru_cache(maxsize=32)
def skeleton(model: str) -> Network:
    """Return a network whose tensors have shapes, and no values."""
    card = registry.card(model)
    return Network(card, registry.skeleton(card).eval().requires_grad_(False), "none")


@lru_cache(maxsize=32)
def facts_of(model: str) -> Facts:
    """Compute a network's facts."""
    network, side = skeleton(model), USUAL_SIDE.get(model, 224)
    layers = describe(network, (side, side))
    fields = [layer.receptive_field.size[0] for layer in layers.values() if layer.receptive_field]
    return Facts(
        model=model,
        side=side,
        layers=max(_depths(network).values()),
        parameters=sum(layer.parameters for layer in layers.values()),
        multiplications=max(layer.multiplications for layer in layers.values()),
        receptive_field=max(fields, default=None),
        stages=tuple(_stages(network, side, layers)),
    )


def trunk(network: Network, side: int) -> list[Trunk]:
    """Return the layers that everything passes through, from the image on, for a square image of `side` px."""
    depth, layers = _depths(network), describe(network, (side, side))
    narrow = narrow_nodes(network)
    return [Trunk(name, _spoken(name, network), depth[name], layers[name]) for name in layers if name in narrow]


@lru_cache(maxsize=32)
def relative_depths(model: str) -> Mapping[str, float]:
    """Map the trunk's blocks and unnested layers to their share of the network's depth; those with rows and columns.

    Of several at one depth, such as a convolution, its norm and its ReLU, the last of the same size stands for all.
    """
    network = skeleton(model)
    layers = trunk(network, 512)
    total = layers[-1].depth
    spatial = [part for part in layers if part.depth and _has_rows(part) and _stands_alone(part, network)]
    chosen = {}
    for depth, parts in groupby(spatial or layers[:-1], key=lambda part: part.depth):
        alike = list(parts)
        last = [part for part in alike if part.layer.shape == alike[0].layer.shape][-1]
        chosen[last.name] = depth / total
    return chosen


def layer_at(model: str, depth: float) -> str:
    """Return the layer of the trunk that is nearest to a relative depth (0..1); of two as near, the less deep."""
    shares = relative_depths(model)
    return min(shares, key=lambda name: round(abs(shares[name] - depth), 9))


def _depths(network: Network) -> dict[str, int]:
    found: dict[fx.Node, int] = {}
    for node in network.graph.nodes:
        behind = max((found[source] for source in node.all_input_nodes), default=0)
        found[node] = behind + _has_weights(node, network.module)
    return {name: found[node] for name, node in network.nodes.items()}


def _has_weights(node: fx.Node, root: nn.Module) -> int:
    return int(node.op == "call_module" and isinstance(root.get_submodule(str(node.target)), nn.Conv2d | nn.Linear))


def _spoken(node: str, network: Network) -> str:
    """The innermost module that ends with a node, or its alias, or its own name."""
    modules = [module for module, last in network.modules.items() if last == node]
    aliases = [alias for alias, target in network.card.aliases.items() if target == node]
    return max(modules, key=len) if modules else (aliases or [node])[0]


def _has_rows(part: Trunk) -> bool:
    return max(part.layer.shape[2:], default=1) > 1


def _stands_alone(part: Trunk, network: Network) -> bool:
    """Whether a layer ends a block, or is one of a plain sequence."""
    if part.name != part.node:
        return True
    parent = network.module.get_submodule(part.node.rpartition(".")[0])
    return parent is network.module or isinstance(parent, nn.Sequential)


def _stages(network: Network, side: int, layers: dict[str, Layer]) -> Iterator[TrunkStage]:
    order, depth, done = list(layers), 0, 0
    multiplications = 0
    for size, run in groupby(trunk(network, side), key=lambda part: (*part.layer.shape[2:], 1, 1)[:2]):
        parts = list(run)
        last = parts[-1]
        end = order.index(last.node) + 1
        if last.depth > depth:
            yield TrunkStage(
                first=parts[0].name,
                last=last.name,
                size=(size[0], size[1]),
                channels=last.layer.channels,
                layers=last.depth - depth,
                receptive_field=last.layer.receptive_field,
                parameters=sum(layers[name].parameters for name in order[done:end]),
                multiplications=last.layer.multiplications - multiplications,
            )
            depth, multiplications, done = last.depth, last.layer.multiplications, end
