"""What a dream will take, before its first step: in memory or by way of the disk, in which tiles."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from phosphene.dreaming.objective import Scoring
from phosphene.engine import prepare
from phosphene.errors import UsageError
from phosphene.networks.cards import NAMED
from phosphene.networks.network import Network
from phosphene.recipe.settings import Recipe
from phosphene.setup.builders import bind, gradient_fn, tiling_of, with_default_layer
from phosphene.setup.memory import (
    fitting_tile,
    gradient_bytes,
    halving_gradient,
    most_bytes,
    spell_bytes,
    tile_bytes,
)
from phosphene.types import GradientFn, Image, Size

Way = Literal["memory", "disk"]
"""Where the pictures of a dream are while it runs."""


@dataclass(frozen=True)
class Forecast:
    """A whole recipe, bound to its network; the way of its dream, and the bytes that a step takes and may take."""

    way: Way
    recipe: Recipe
    scoring: Scoring
    needed: int
    allowed: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        if self.needed > self.allowed:
            return (f"a step takes about {spell_bytes(self.needed)}, and {spell_bytes(self.allowed)} are allowed",)
        if self.recipe.tile == "none":
            return ()
        return (f"dreamed in tiles of {self.recipe.tile} px: a step takes about {spell_bytes(self.needed)}",)


def complete(
    recipe: Recipe, network: Network, guide: Image | None, size: Size, ways: Mapping[Way, int], allowed: int
) -> Forecast:
    """Fill in what a recipe leaves open, its layer and its tile, for a dream of `size` that may take `allowed` bytes.

    `ways` are those that are open, the better one first, each with the bytes that its pictures take. The first in
    which a step fits is taken. Where none does, a recipe with a tile of its own, or none, takes the last; for another
    that is a `UsageError`.
    """
    recipe = with_default_layer(recipe, network)
    scoring = bind(recipe, network, guide)
    foretell = partial(_foretell, network, scoring, recipe, size, allowed)
    *others, last = ways
    for way in others:
        with suppress(UsageError):
            forecast = foretell(way, ways[way])
            if forecast.needed <= allowed:
                return forecast
    return foretell(last, ways[last])


def _foretell(
    network: Network, scoring: Scoring, recipe: Recipe, size: Size, allowed: int, way: Way, pictures: int
) -> Forecast:
    """Choose the tile, if it is left open: none if the whole image fits in memory, or else the largest that does."""
    tile, room = recipe.tile, allowed - pictures
    bind_tile = partial(tiling_of, network, scoring, recipe)
    if way == "memory" and not isinstance(tile, int):
        whole = _whole_bytes(network, scoring, recipe, size, room)
        tile = "none" if whole <= room or network.is_heard else tile
    if tile == "auto":
        tile = fitting_tile(bind_tile, size, room)
    needed = tile_bytes(bind_tile(tile), size) if isinstance(tile, int) else whole
    return Forecast(way, recipe.but(tile=tile), scoring, pictures + needed, allowed)


def _whole_bytes(network: Network, scoring: Scoring, recipe: Recipe, size: Size, room: int) -> int:
    """Return the bytes that the network takes for the whole image, or that it takes at most if there are so many."""
    seen = (max(size[0], network.card.min_side), max(size[1], network.card.min_side))
    most = most_bytes(seen, len(scoring.layers))
    if network.is_heard:
        return most  # it cannot be run on paper
    if network.card in NAMED and recipe.guide is None and most <= room:
        return most  # with room to spare; to foretell it takes a second
    return gradient_bytes(network.features(scoring.layers), scoring, seen)


def patient_gradient_fn(network: Network, scoring: Scoring, recipe: Recipe, size: Size) -> GradientFn:
    """Build the gradient that a recipe asks for, and let it halve its tiles if memory runs out nevertheless."""
    prepare(size, network.device)
    first = gradient_fn(network, scoring, recipe)
    tile = recipe.tile if isinstance(recipe.tile, int) else max(size)

    def smaller(side: int) -> GradientFn:
        return gradient_fn(network, scoring, recipe.but(tile=side))

    return halving_gradient(smaller, first, tile)
