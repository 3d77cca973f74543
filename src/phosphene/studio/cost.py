"""What an order will cost, foretold before it waits in the queue, and how much of that a visitor may ask for."""

from collections.abc import Iterable

from phosphene.dreaming.pyramid import octave_sizes
from phosphene.errors import SettingsError
from phosphene.recipe.settings import Recipe
from phosphene.types import Size

USUAL_MOST = 2000.0
"""Megapixel-steps of a visitor's order where others can reach the studio and its owner sets nothing."""


def megapixel_steps(recipe: Recipe, size: Size) -> float:
    """Foretell a dream's cost: steps x millions of pixels, over its octaves, for a photograph of `size`."""
    scale = 1.0 if recipe.size == "full" else recipe.size / max(size)
    scale = scale if scale < 1 or recipe.enlarge else 1.0
    dreamed = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    pixels = sum(h * w for h, w in octave_sizes(dreamed, recipe.octaves, recipe.octave_scale))
    return recipe.steps * pixels / 1e6


def check_cost(recipes: Iterable[Recipe], size: Size, most: float | None, frames: int = 1) -> None:
    """Raise SettingsError where dreams, of so many frames each, cost more than `most` together."""
    cost = max(1, frames) * sum(megapixel_steps(recipe, size) for recipe in recipes)
    if most is not None and cost > most:
        raise SettingsError(
            f"this takes {cost:,.0f} megapixel-steps (steps x millions of pixels, over the octaves), and this studio "
            f"takes {most:,.0f} for an order: ask for fewer steps or octaves, or a smaller size"
        )
