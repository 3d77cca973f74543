"""What a step will take, before the first: the tile that fits the memory, and a gradient that copes if it does not."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from phosphene.dreaming.objective import Scoring
from phosphene.engine import prepare
from phosphene.networks.cards import NAMED
from phosphene.networks.network import Network
from phosphene.recipe.settings import Recipe
from phosphene.setup.builders import gradient_fn, tiling_of
from phosphene.setup.memory import (
    fitting_tile,
    gradient_bytes,
    halving_gradient,
    image_bytes,
    most_bytes,
    spell_bytes,
    tile_bytes,
)
from phosphene.types import GradientFn, Size


@dataclass(frozen=True)
class Plan:
    """The tile of a dream's last octave, the bytes that a step takes, about or at most, and those that it may take."""

    tile: int | Literal["none"]
    needed: int
    allowed: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        if self.needed > self.allowed:
            return (f"a step takes about {spell_bytes(self.needed)}, and {spell_bytes(self.allowed)} are allowed",)
        if self.tile == "none":
            return ()
        return (f"dreamed in tiles of {self.tile} px: a step takes about {spell_bytes(self.needed)}",)


def plan_step(network: Network, scoring: Scoring, recipe: Recipe, size: Size, allowed: int) -> Plan:
    """Choose the tile, if the recipe leaves it open: none if the whole image fits, or else the largest that does.

    Raises `UsageError` where the recipe leaves it open and nothing fits.
    """
    images = image_bytes(size)
    bind = partial(tiling_of, network, scoring, recipe)
    if isinstance(recipe.tile, int):
        return Plan(recipe.tile, images + tile_bytes(bind(recipe.tile), size), allowed)
    smallest = network.card.min_side
    seen = (max(size[0], smallest), max(size[1], smallest))
    most = most_bytes(seen, len(scoring.layers))
    if network.is_heard:
        return Plan("none", most, allowed)  # it cannot be run on paper, and has no tiles
    if network.card in NAMED and recipe.guide is None and most <= allowed:
        return Plan("none", most, allowed)  # with room to spare; to foretell it takes a second
    whole = images + gradient_bytes(network.features(scoring.layers), scoring, seen)
    if recipe.tile == "none" or whole <= allowed:
        return Plan("none", whole, allowed)
    tile = fitting_tile(bind, size, allowed - images)
    return Plan(tile, images + tile_bytes(bind(tile), size), allowed)


def patient_gradient_fn(network: Network, scoring: Scoring, recipe: Recipe, size: Size) -> GradientFn:
    """Build the gradient that a recipe asks for, and let it halve its tiles if memory runs out nevertheless."""
    prepare(size, network.device)
    first = gradient_fn(network, scoring, recipe)
    tile = recipe.tile if isinstance(recipe.tile, int) else max(size)

    def smaller(side: int) -> GradientFn:
        return gradient_fn(network, scoring, recipe.but(tile=side))

    return halving_gradient(smaller, first, tile)
