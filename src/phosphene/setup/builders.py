"""A recipe's words and a network, bound together: the scoring that the recipe means, and its gradient."""

from collections.abc import Mapping
from functools import lru_cache, partial
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.gradient import whole_image_gradient
from phosphene.dreaming.objective import ChannelMatch, Energy, Match, Mean, Own, Score, Scoring, asked_for
from phosphene.dreaming.tiling import Reach, Tiling, tiled_gradient
from phosphene.errors import SettingsError, UsageError
from phosphene.networks import layers as layer_facts
from phosphene.networks.network import Network
from phosphene.networks.registry import class_index
from phosphene.recipe.settings import Recipe, Target, Tiles
from phosphene.recipe.terms import ClassTerm, LayerTerm, OwnTerm, own_function
from phosphene.types import Activation, GradientFn, Image, Size

PROBE: Size = (512, 512)
"""The image size for which the arithmetic that leads to a layer is counted."""


def with_default_layer(recipe: Recipe, network: Network) -> Recipe:
    """Return a recipe that raises something; one without a target gets the end of a block deep in the network.

    It is the one that about two thirds of the arithmetic leads to. That is where the networks that we know dream whole
    faces.
    """
    if recipe.objective.terms:
        return recipe
    facts = layer_facts.describe(network, PROBE)
    total = facts[network.logits].multiplications
    ends = [facts[name] for name in layer_facts.narrow_nodes(network) if name in facts]
    deep = min(ends, key=lambda layer: (abs(layer.multiplications - 2 / 3 * total), layer.name))
    return recipe.but(layers=(deep.name,))


def bind(target: Target, network: Network, guide: Image | None = None) -> Scoring:
    """Turn spelt terms into scores of the network's nodes.

    `guide` is the guide photograph, on the network's device. Raises `UnknownNameError` or `UsageError` where a term
    names what the network does not have.
    """
    scores: list[Score] = []
    for term in target.objective.terms:
        if isinstance(term, ClassTerm):
            scores.append(_class_score(term, network))
        elif isinstance(term, OwnTerm):
            scores.append(_own_score(term, network))
        else:
            nodes = network.resolve(term.layer)
            features = _guide_features(network, nodes, guide) if guide is not None else {}
            scores.extend(_layer_score(term, node, target, features.get(node)) for node in nodes)
    scoring = Scoring(tuple(scores), target.balanced)
    _check_channels(scoring, network)
    return scoring


def gradient_fn(network: Network, scoring: Scoring, tiles: Tiles) -> GradientFn:
    """Build the gradient that a recipe asks for: of the whole image, or in tiles of a given side."""
    if isinstance(tiles.tile, int):
        return tiled_gradient(tiling_of(network, scoring, tiles, tiles.tile))
    return whole_image_gradient(network.features(scoring.layers), scoring, network.card.min_side)


def tiling_of(network: Network, scoring: Scoring, tiles: Tiles, tile: int) -> Tiling:
    """Bind a network and a scoring to tiles of `tile` px; `UsageError` where a layer sees the whole image."""
    if scoring.whole:
        raise UsageError(
            f"{scoring.whole[0]} sees whole activations, so no tile has its exact gradient; leave tiles out "
            f"(--tile none), or dream smaller"
        )
    reaches, features = reach_of(network, scoring.layers), network.features(scoring.layers)
    return Tiling(
        features=features,
        scoring=scoring,
        tile=tile,
        halo=halo_of(network, scoring, tiles, reaches),
        stride=features.grid * lcm(*(reach.stride for reach in reaches.values())),
        layer_sizes=lru_cache(maxsize=64)(partial(layer_facts.layer_sizes, network, scoring.layers)),
        layer_strides={name: reach.stride for name, reach in reaches.items()},
        min_side=network.card.min_side,
        batch=tiles.batch,
    )


def halo_of(network: Network, scoring: Scoring, tiles: Tiles, reaches: Mapping[str, Reach]) -> int:
    """Return the margin in px; `auto` is the exact one for layers whose error was not measured."""
    if isinstance(tiles.halo, int):
        return tiles.halo
    exact = {name: reach.exact_halo() for name, reach in reaches.items()}
    measured = measured_halos(network) if tiles.halo == "auto" else {}
    return max(min(measured.get(name, halo), halo) for name, halo in exact.items())


def measured_halos(network: Network) -> Mapping[str, int]:
    """Return the halos of the network's card by node."""
    return {network.resolve(layer)[0]: halo for layer, halo in network.card.halos.items()}


def reach_of(network: Network, nodes: tuple[str, ...]) -> dict[str, Reach]:
    """Return stride and receptive field of some layers; `UsageError` where a layer sees the whole image."""
    extents = layer_facts.extents(network)
    reaches = {}
    for name in nodes:
        extent = extents[name]
        if extent is None:
            if network.is_heard:
                raise UsageError(
                    f"{network.card.name} cannot be traced, so it looks at whole images only: leave tiles out "
                    f"(--tile none), or dream smaller"
                )
            raise UsageError(
                f"{name} of {network.card.name} sees the whole image at once, so no tile has its exact gradient; "
                f"leave tiles out (--tile none) or choose a layer in front of it"
            )
        reaches[name] = Reach(lcm(*extent.stride), max(extent.receptive_field))
    return reaches


def _layer_score(
    term: LayerTerm, node: str, target: Target, guide: Float[Tensor, "channels positions"] | None
) -> Score:
    if guide is not None:
        guided = Match if target.guide_by == "match" else ChannelMatch
        return guided(node, term.channels, term.position, term.weight, guide)
    kind = Energy if target.score == "l2" else Mean
    return kind(node, term.channels, term.position, term.weight)


def _class_score(term: ClassTerm, network: Network) -> Score:
    if network.card.classes == 1000:
        index = class_index(term.label)
    elif term.label.isdecimal() and int(term.label) < network.card.classes:
        index = int(term.label)
    else:
        raise SettingsError(
            f"{network.card.name} has classes by number, 0 to {network.card.classes - 1}; "
            f"{term.label!r} is none of them"
        )
    return Mean(network.logits, (index,), None, term.weight)


def _own_score(term: OwnTerm, network: Network) -> Score:
    function = own_function(term.name)
    side = network.card.min_side

    def look(layer: str) -> tuple[str, Activation]:
        (node, *others) = network.resolve(layer)
        if others:
            raise UsageError(f"{term.name} asks for {layer!r}, which are several layers of {network.card.name}")
        images = torch.full((1, 3, side, side), 0.5, device=network.device)
        with torch.no_grad():
            return node, network.features([node])(images)[node]

    return Own(term.name, (), None, term.weight, function, asked_for(function, term.name, look))


def _guide_features(
    network: Network, nodes: tuple[str, ...], guide: Image
) -> dict[str, Float[Tensor, "channels positions"]]:
    with torch.no_grad():
        return {name: a[0].flatten(1) for name, a in network.features(nodes)(guide[None]).items()}


def _check_channels(scoring: Scoring, network: Network) -> None:
    if not any(score.channels for score in scoring.scores):
        return
    counts = layer_facts.channels(network, scoring.layers)
    for score in scoring.scores:
        channels = counts[score.layer]
        if score.channels and max(score.channels) >= channels:
            raise SettingsError(
                f"{score.layer} of {network.card.name} has channels 0 to {channels - 1}; "
                f"{max(score.channels)} is not one"
            )
