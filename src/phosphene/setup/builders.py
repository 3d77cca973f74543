"""A recipe's words and a network, bound together: the scoring that the recipe means, and its gradient."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import lcm, prod

import torch
from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.objective import ChannelMatch, Energy, Match, Mean, Own, Score, Scoring, asked_for
from phosphene.dreaming.stages import Stage, Stages, gradient_in_stages
from phosphene.errors import SettingsError, UsageError
from phosphene.networks.graph import ancestors
from phosphene.networks.layers import (
    channels,
    cut_channels,
    cut_points,
    describe,
    layer_sizes,
    narrow_nodes,
    receptive_fields,
)
from phosphene.networks.network import Network
from phosphene.networks.receptive_field import ReceptiveField
from phosphene.networks.registry import class_index
from phosphene.recipe.settings import Recipe, Target, Tiles
from phosphene.recipe.terms import ClassTerm, Cut, LayerTerm, OwnTerm, own_function
from phosphene.types import Activation, GradientFn, Image, Size

LARGE: Size = (2**20, 2**20)
"""The size of a picture that no window shows all of."""

PROBE: Size = (512, 512)
"""The image size for which the arithmetic that leads to a layer is counted."""


def with_default_layer(recipe: Recipe, network: Network) -> Recipe:
    """Return a recipe that raises something; one without a target gets the end of a block deep in the network.

    It is the one that about two thirds of the arithmetic leads to. That is where the networks that we know dream whole
    faces.
    """
    if recipe.objective.terms:
        return recipe
    facts = describe(network, PROBE)
    if not facts:
        raise UsageError(f"{network.card.name} has no layer to raise")
    if network.is_hooked:  # whose arithmetic is not known: two thirds of the layers that have places
        placed = [name for name, layer in facts.items() if prod(layer.shape[2:]) > 1] or list(facts)
        return recipe.but(layers=(placed[max(0, round(2 * len(placed) / 3) - 1)],))
    total = facts.get(network.logits, list(facts.values())[-1]).multiplications
    ends = [facts[name] for name in narrow_nodes(network) if name in facts] or list(facts.values())
    deep = min(ends, key=lambda layer: (abs(layer.multiplications - 2 / 3 * total), layer.name))
    return recipe.but(layers=(deep.name,))


def bind(target: Target, network: Network, guide: Image | None = None) -> Scoring:
    """Turn spelt terms into scores of the network's nodes.

    `guide` is the guide photograph, on the network's device. Raises `UnknownNameError` or `UsageError` where a term
    names what the network does not have.
    """
    scores: list[Score] = []
    given: dict[str, str] = {}
    for term in target.objective.terms:
        if isinstance(term, ClassTerm):
            scores.append(_class_score(term, network))
        elif isinstance(term, OwnTerm):
            scores.append(_own_score(term, network))
        else:
            nodes = network.resolve(term.layer)
            features = _guide_features(network, nodes, guide) if guide is not None else {}
            scores.extend(_layer_score(term, node, target, features.get(node)) for node in nodes)
            given |= {nodes[0]: term.layer} if len(nodes) == 1 else {}
    scoring = Scoring(tuple(scores), target.balanced)
    _check_channels(scoring, network, given)
    return scoring


def gradient_fn(network: Network, scoring: Scoring, tiles: Tiles) -> GradientFn:
    """Build the gradient that a recipe asks for: of the whole image, in tiles, or in stages."""
    return gradient_in_stages(stages_of(network, scoring, tiles))


def stages_of(network: Network, scoring: Scoring, tiles: Tiles) -> Stages:
    """Bind a network and a scoring to the tiles and cuts of a recipe, for pictures of any size.

    Stages of which one window shows all, as in small octaves, are one. `UsageError` where a layer of a stage in tiles
    sees the whole image, or where the network cannot be cut.
    """
    planned = planned_stages(network, scoring, tiles)

    @lru_cache(maxsize=64)
    def stages_for(size: Size) -> tuple[Stage, ...]:
        left = _joined(network, planned, size)
        ends = [stage.start for stage in left[1:]]
        return tuple(
            _stage(network, scoring, tiles, stage, end, is_alone=len(left) == 1)
            for stage, end in zip(left, [*ends, None], strict=True)
        )

    stages_for(LARGE)  # all that can be wrong is found before it is used
    return stages_for


@dataclass(frozen=True)
class PlannedStage:
    """A stage as a recipe says it: the node at which it begins (None: the pixels), and its tile in px, if any."""

    start: str | None
    tile: int | None


def planned_stages(network: Network, scoring: Scoring, tiles: Tiles) -> list[PlannedStage]:
    """Read the stages of a recipe, in the network's order."""
    points = places_to_cut(network, scoring) if tiles.cuts else []
    planned = {}
    for cut in map(Cut.parse, tiles.cuts):
        (node, *others) = network.resolve(cut.layer)
        if others or node not in points:
            raise UsageError(
                f"{network.card.name} cannot be cut at {cut.layer}, for what is raised; "
                f"it can be at {', '.join(points) or 'no layer'}"
            )
        planned[node] = PlannedStage(node, cut.tile)
    first = PlannedStage(None, tiles.tile if isinstance(tiles.tile, int) else None)
    return [first, *sorted(planned.values(), key=lambda stage: points.index(str(stage.start)))]


def places_to_cut(network: Network, scoring: Scoring) -> list[str]:
    """Return the nodes where a network can be cut: what sees whole activations must have them all in the last stage."""
    whole = {layer for score in scoring.scores if score.layer in scoring.whole for layer in score.layers}
    points = cut_points(network, scoring.layers)
    return [point for point in points if whole <= {*layers_behind(network, scoring, point)}]


def sees_whole(scoring: Scoring, nodes: Collection[str]) -> str | None:
    """Return the name of a score that sees whole activations, of some layers."""
    names = (score.layer for score in scoring.scores if score.layer in scoring.whole and {*score.layers} & {*nodes})
    return next(names, None)


def _joined(network: Network, planned: list[PlannedStage], size: Size) -> list[PlannedStage]:
    """Leave tiles out where one window shows all, and make one stage of those without that follow each other."""
    left: list[PlannedStage] = []
    for stage in planned:
        shows_all = stage.tile is None or stage.tile >= max(size) or min(size) < network.card.min_side
        if not (left and shows_all and left[-1].tile is None):
            left.append(PlannedStage(stage.start, None if shows_all else stage.tile))
    return left


def _stage(
    network: Network, scoring: Scoring, tiles: Tiles, stage: PlannedStage, end: str | None, is_alone: bool
) -> Stage:
    start, tile = stage.start, stage.tile
    nodes = nodes_between(network, scoring, start, end)
    if tile is not None and (name := sees_whole(scoring, nodes)):
        raise UsageError(
            f"{name} sees whole activations, so no tile has its exact gradient; leave tiles out (--tile none), "
            f"--cut the network in front of it, or dream smaller"
        )
    features = network.features(nodes, start)
    fields = {} if tile is None else bounded_fields(network, nodes, start)
    return Stage(
        features=features,
        scoring=scoring,
        cut=end,
        channels=cut_channels(network, end) if end else 0,
        gradient_indices=scoring.gradients_of(layers_behind(network, scoring, start)),
        downstream_indices=scoring.gradients_of(layers_behind(network, scoring, end)) if end else (),
        tile=None if tile is None else -(-tile // cut_stride(network, start)),
        halo=halo_of(network, tiles, fields, is_alone),
        stride=features.grid * lcm(*(field.tile_stride for field in fields.values())),
        sizes=lru_cache(maxsize=64)(partial(layer_sizes, network, nodes, start=start)),
        strides={name: field.tile_stride for name, field in fields.items()},
        min_side=network.card.min_side if start is None else 1,
        batch=tiles.batch,
    )


def nodes_between(network: Network, scoring: Scoring, start: str | None, end: str | None) -> tuple[str, ...]:
    """Return what a stage gives: the layers that are raised in it, and the cut where it ends."""
    behind = () if end is None else layers_behind(network, scoring, end)
    here = [layer for layer in layers_behind(network, scoring, start) if layer not in behind]
    return tuple(dict.fromkeys([*here, *([end] if end else [])]))


def layers_behind(network: Network, scoring: Scoring, start: str | None) -> tuple[str, ...]:
    """Return the layers that are raised behind a cut."""
    before = ancestors([] if start is None else [network.nodes[start]])
    return tuple(name for name in scoring.layers if network.nodes[name] not in before)


def cut_stride(network: Network, start: str | None) -> int:
    """Return the side, in px, of what one unit of a cut stands for."""
    return 1 if start is None else bounded_fields(network, (start,))[start].tile_stride


def halo_of(network: Network, tiles: Tiles, fields: Mapping[str, ReceptiveField], is_alone: bool = True) -> int:
    """Return the margin in px; `auto` is the exact one for layers whose error was not measured.

    That of a stage among others is the exact one always, which is short.
    """
    if not fields:
        return 0
    exact = {name: field.exact_halo for name, field in fields.items()}
    if is_alone and isinstance(tiles.halo, int):
        return tiles.halo
    measured = measured_halos(network) if is_alone and tiles.halo == "auto" else {}
    return max(min(measured.get(name, halo), halo) for name, halo in exact.items())


def measured_halos(network: Network) -> Mapping[str, int]:
    """Return the halos of the network's card by node."""
    return {network.resolve(layer)[0]: halo for layer, halo in network.card.halos.items()}


def bounded_fields(network: Network, nodes: tuple[str, ...], start: str | None = None) -> dict[str, ReceptiveField]:
    """Return the receptive fields of some layers, in units of `start`; `UsageError` if one sees everything."""
    bounded, fields = {}, receptive_fields(network, start)
    for name in nodes:
        field = fields[name]
        if field is None:
            if network.is_hooked:
                raise UsageError(
                    f"{network.card.name} cannot be traced, so it looks at whole images only: leave tiles out "
                    f"(--tile none), or dream smaller"
                )
            raise UsageError(
                f"{name} of {network.card.name} sees the whole image at once, so no tile has its exact gradient; "
                f"leave --tile out, choose a layer in front of it, or --cut the network there"
            )
        bounded[name] = field
    return bounded


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


def _check_channels(scoring: Scoring, network: Network, given: Mapping[str, str]) -> None:
    """Raise `SettingsError` for a channel that a layer does not have; `given` is what people called the nodes."""
    if not any(score.channels for score in scoring.scores):
        return
    counts = channels(network, scoring.layers)
    for score in scoring.scores:
        if score.channels and max(score.channels) >= (known := counts[score.layer]):
            name = given.get(score.layer, score.layer)
            raise SettingsError(
                f"{name} of {network.card.name} has channels 0 to {known - 1}; {max(score.channels)} is not one"
            )
