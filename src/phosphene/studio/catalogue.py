"""What there is to choose from, for the page: settings with their ranges and help, models, looks, layers, samples."""

from functools import lru_cache
from typing import Any

from phosphene import imagefile
from phosphene.film.settings import Zoom
from phosphene.networks import registry, weights
from phosphene.networks.facts import skeleton
from phosphene.networks.inspect import other_names
from phosphene.networks.layers import Layer, describe, narrow_nodes
from phosphene.recipe.looks import DEFAULT_LOOK, LOOKS
from phosphene.recipe.settings import Ascent, Eye, Octaves, Picture, Recipe, Target, Tiles
from phosphene.studies.study import SIZE
from phosphene.studio.comparisons import Comparison
from phosphene.studio.films import FILMS
from phosphene.studio.loading import LOADING

LAYER_SIDE = 256

GROUPS = {
    Picture: "Picture",
    Target: "What to maximise",
    Ascent: "Steps",
    Octaves: "Sizes",
    Eye: "Network",
    Tiles: "Tiles and memory",
}
"""The groups of settings in the order of the page, what is asked for most often first, and what it calls them."""

MORE = {"fast", "terms", "balanced", "norm", "schedules", *Tiles.model_fields}
"""Settings that the page shows when one asks for more."""

ASKED_OF_A_ZOOM = ("seconds", "rate", "towards", "loop")
"""What the page asks of a zoom; an order may say the rest of `Zoom` too."""


def catalogue() -> dict[str, Any]:
    """Return all that the page builds its controls from, so that no name, range or help text is written twice."""
    return {
        "settings": Recipe.model_json_schema()["properties"],
        "groups": [_group(cls, name) for cls, name in GROUPS.items()],
        "drive": Ascent.drive.__doc__,
        "compare": {"change": Comparison.model_json_schema()["properties"]["change"], "size": SIZE},
        "zoom": {name: Zoom.model_json_schema()["properties"][name] for name in ASKED_OF_A_ZOOM},
        "models": [_model(card.name) for card in registry.named()],
        "default_look": DEFAULT_LOOK,
        "films": sorted(FILMS),
        "samples": [{"name": f"sample:{name}", "about": about} for name, about in imagefile.SAMPLES.items()],
    }


def _group(cls: type, name: str) -> dict[str, Any]:
    names = list(cls.__annotations__)
    return {
        "name": name,
        "settings": [name for name in names if name not in MORE],
        "more": [name for name in names if name in MORE],
    }


def _model(name: str) -> dict[str, Any]:
    card = registry.card(name)
    return {
        "name": name,
        "here": weights.is_here(card),
        "parameters": card.parameters,
        "looks": [{"name": look, "layers": settings["layers"]} for look, settings in LOOKS.get(name, {}).items()],
    }


@lru_cache(maxsize=8)
def layers(model: str) -> dict[str, Any]:
    """Return a model's layers in the network's order, each once, with what there is to know about it.

    `suggested` are those of its card and its looks. Raises `UnknownNameError`.
    """
    with LOADING:
        network = skeleton(model)
    side = max(LAYER_SIDE, network.card.min_side)
    facts = describe(network, (side, side))
    ours = [*network.card.layers, *(name for look in LOOKS.get(model, {}).values() for name in look["layers"])]
    suggested = {network.resolve(name)[0]: name for name in ours}
    waists = narrow_nodes(network)
    names = {node: found[0] for node, found in other_names(network).items() if node in waists} | suggested
    return {
        "model": _model(network.card.name),
        "layers": [_layer(names[node], layer, node in suggested) for node, layer in facts.items() if node in names],
    }


def _layer(name: str, layer: Layer, suggested: bool) -> dict[str, Any]:
    field = layer.receptive_field
    return {
        "name": name,
        "suggested": suggested,
        "channels": layer.channels,
        "stride": max(field.stride) if field else None,
        "sees": max(field.size) if field else None,
    }
