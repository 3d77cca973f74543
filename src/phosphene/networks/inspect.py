"""Tables of a network's layers and parts, computed from the network itself without its weights."""

from collections.abc import Mapping

from phosphene.networks import registry
from phosphene.networks.layers import Layer, describe, narrow_nodes
from phosphene.networks.network import Network


def untrained_network(model: str) -> Network:
    """Build a network for looking at its structure: its weights are there, and mean nothing."""
    card = registry.card(model)
    return Network(card, registry.build(card).eval().requires_grad_(False), "none")


def layer_table(model: str, size: int, every: bool = False) -> list[tuple[str, ...]]:
    """Return a row of words for each layer: name, other names, channels, stride, receptive field, output, arithmetic.

    The outputs are for a square image of `size` px; the arithmetic is the share of the whole network's multiply-adds
    that leads to the layer. `every` lists each operation, not only those that end a block; so it is where there are no
    blocks.
    """
    network = untrained_network(model)
    waists = narrow_nodes(network)
    facts = describe(network, (size, size))
    total = max(layer.multiplications for layer in facts.values())  # 0 where nobody knows: read by hooks
    names = other_names(network)
    ends = {name for name in facts if name in names and name in waists}
    return [
        (
            (names.get(name) or [name])[0],
            " ".join([*names.get(name, []), name][1:]),
            str(layer.channels),
            _stride(layer),
            _receptive_field(layer),
            " x ".join(map(str, layer.shape[2:])) or "1",
            f"{layer.multiplications / total:.1%}" if total else "",
        )
        for name, layer in facts.items()
        if every or not ends or name in ends
    ]


def other_names(network: Network) -> Mapping[str, list[str]]:
    """Map nodes to the names that people use for them: the modules that end with them, inner first, then aliases."""
    names: dict[str, list[str]] = {}
    for module, node in sorted(network.modules.items(), key=lambda item: -item[0].count(".")):
        names.setdefault(node, []).append(module)
    for alias in network.card.aliases:
        names.setdefault(network.resolve(alias)[0], []).append(alias)
    return names


def _stride(layer: Layer) -> str:
    return "all" if layer.receptive_field is None else str(max(layer.receptive_field.stride))


def _receptive_field(layer: Layer) -> str:
    if layer.receptive_field is None:
        return "all"
    rows, columns = layer.receptive_field.size
    return str(rows) if rows == columns else f"{columns} x {rows}"
