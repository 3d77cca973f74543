"""What an order will cost, estimated before it is queued, and how much of that a visitor may ask for."""

import math
from collections.abc import Iterable
from functools import lru_cache

from phosphene.dreaming.pyramid import fitted_size, octave_sizes
from phosphene.errors import SettingsError
from phosphene.networks.cards import DEFAULT_MODEL
from phosphene.networks.facts import facts_of
from phosphene.recipe.settings import Recipe
from phosphene.recipe.terms import Cut
from phosphene.studio.loading import LOADING
from phosphene.types import Size

USUAL_MOST = 2000.0
"""Megapixel-steps of the default network in a visitor's order, where others can reach the studio and nothing is set."""

USUAL_HALO = 200
"""Px around a tile that are computed with it, about; the network's own number is known when it is loaded."""


def megapixel_steps(recipe: Recipe, size: Size) -> float:
    """Estimate a dream's work: steps x millions of pixels, over its octaves, for a photograph of `size`."""
    octaves = octave_sizes(fitted_size(size, recipe), recipe.octaves, recipe.octave_scale)
    return recipe.steps * sum(_computed(recipe, h) * _computed(recipe, w) for h, w in octaves) / 1e6


def check_cost(order: Iterable[tuple[str, float]], most: float | None) -> None:
    """Raise SettingsError where an order costs more than `most`; it is networks and their megapixel-steps."""
    if most is not None and (cost := sum(weight(model) * steps for model, steps in order)) > most:
        raise SettingsError(
            f"this takes {cost:,.0f} megapixel-steps (steps x millions of pixels, over the octaves; of other networks "
            f"than {DEFAULT_MODEL} in proportion to their arithmetic), and this studio takes {most:,.0f} for an order: "
            f"ask for fewer steps or octaves, a smaller size, or a smaller network"
        )


@lru_cache(maxsize=64)
def weight(model: str) -> float:
    """The arithmetic of a whole network for a pixel, as a multiple of the default network's."""
    with LOADING:
        ours, default = facts_of(model), facts_of(DEFAULT_MODEL)
    return ours.multiplications / ours.side**2 / (default.multiplications / default.side**2)


def _computed(recipe: Recipe, side: int) -> int:
    """Px along a side that are computed: a picture in tiles is computed with the margins of all of them."""
    tiles = [recipe.tile, *(Cut.parse(cut).tile for cut in recipe.cuts)]
    smallest = min((tile for tile in tiles if isinstance(tile, int)), default=side)
    halo = recipe.halo if isinstance(recipe.halo, int) else USUAL_HALO
    return max(side, math.ceil(side / smallest) * min(side, smallest + 2 * halo))
