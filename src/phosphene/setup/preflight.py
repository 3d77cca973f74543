"""What a dream will take, before its first step: in memory or by way of the disk, in which stages and tiles."""

import gc
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from phosphene.dreaming.objective import Scoring
from phosphene.engine import prepare
from phosphene.errors import UsageError
from phosphene.malloc import give_back
from phosphene.networks.cards import NAMED
from phosphene.networks.network import Network
from phosphene.recipe.settings import Recipe
from phosphene.recipe.terms import Cut
from phosphene.setup.builders import bind, bounded_fields, gradient_fn, with_default_layer
from phosphene.setup.memory import PictureBytes, gradient_bytes, halving_gradient, in_use, most_bytes, spell_bytes
from phosphene.setup.planning import Survey
from phosphene.types import GradientFn, Image, Size

KEPT = 35 * 10**7
"""Bytes that stay in memory behind what ran: code that oneDNN and libvips made or loaded, and gaps between blocks."""

Way = Literal["memory", "disk"]
"""Where the pictures of a dream are while it runs."""


@dataclass(frozen=True)
class Forecast:
    """A recipe with nothing left open, and what its dream will take one way."""

    way: Way
    recipe: Recipe
    scoring: Scoring
    """The recipe's terms, bound to the network."""
    needed: int
    """Bytes that a step takes at its peak."""
    allowed: int
    """Bytes that a step may take."""
    held: int
    """Bytes that the process holds beside a step's."""
    at_cuts: int = 0
    """Bytes of the activations and gradients at the cuts, on disk."""
    cost: float = 1.0
    """Of a step, as a multiple of the whole image's in memory."""

    @property
    def fits(self) -> bool:
        """Whether a step takes no more than it may."""
        return self.needed <= self.allowed

    @property
    def peak(self) -> int:
        """The most bytes that the process is to hold."""
        return self.held + self.needed

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        if not self.fits:
            return (f"a step takes about {spell_bytes(self.needed)}, and {spell_bytes(self.allowed)} are allowed",)
        said = describe_stages(self.recipe)
        return (f"dreamed {said}, with up to {spell_bytes(self.peak)} of memory",) if said else ()


def complete(
    recipe: Recipe,
    network: Network,
    guide: Image | None,
    size: Size,
    ways: Mapping[Way, PictureBytes],
    allowed: Callable[[], int],
    workers: int = 1,
) -> Forecast:
    """Fill in what a recipe leaves open, its layer and its stages, for a dream of `size` that may take `allowed` bytes.

    `allowed` is called again once the kernels are loaded, since they stay in memory. `ways` are those that are open, in
    memory before by way of the disk, each with the bytes that its pictures take. Of those in which a step fits, the one
    that costs least is taken; a whole image in memory costs least, and the disk is not asked about then. Where no way
    fits, a recipe with a tile of its own, or without tiles, takes the last; for another that is a `UsageError`.
    `workers` share the tiles, and each may take as much.
    """
    prepare(size, network.device)
    recipe = with_default_layer(recipe, network)
    scoring = bind(recipe, network, guide)
    estimate = partial(_forecast, Survey(network, scoring, recipe, size, workers), recipe, allowed)
    *others, last = ways
    fitting: list[Forecast] = []
    for way in others:
        with suppress(UsageError):
            forecast = estimate(way, ways[way])
            if forecast.fits:
                fitting.append(forecast)
    if any(forecast.cost == 1 for forecast in fitting):
        return fitting[0]
    try:
        forecast = estimate(last, ways[last])
    except UsageError:
        if not fitting:
            raise
    else:
        if forecast.fits or not fitting:
            fitting.append(forecast)
    return min(fitting, key=lambda forecast: forecast.cost)


def _forecast(survey: Survey, recipe: Recipe, allowed: Callable[[], int], way: Way, pictures: PictureBytes) -> Forecast:
    """Choose the stages, if they are left open: one without tiles if the whole image fits, or those that cost least."""
    network, scoring = survey.network, survey.scoring
    held = partial(in_use, network.device)
    if way == "memory":
        pictures = pictures.with_images(scoring.gradients - 1, survey.size)
    if way == "memory" and not isinstance(recipe.tile, int) and not recipe.cuts:
        room = allowed() - pictures.held - KEPT
        whole = KEPT + pictures.with_network(_whole_bytes(network, scoring, recipe, survey.size, room))
        if recipe.tile == "none" or network.is_hooked or whole <= allowed():
            return Forecast(way, recipe.but(tile="none"), scoring, whole, allowed(), held())
        _let_go()
    if network.is_hooked:
        bounded_fields(network, scoring.layers)  # says that it has no tiles
    survey.begin()
    _let_go()
    free, in_memory = allowed(), way == "memory"
    plan = survey.best(free - pictures.held - KEPT, in_memory) if recipe.tile == "auto" else survey.asked(in_memory)
    needed = KEPT + pictures.with_network(plan.needed)
    return Forecast(way, plan.of(recipe), scoring, needed, free, held(), plan.at_cuts, plan.cost)


def _let_go() -> None:
    """Free the networks that were looked at, whose convolutions and algorithms refer to each other."""
    gc.collect()
    give_back()


def _whole_bytes(network: Network, scoring: Scoring, recipe: Recipe, size: Size, room: int) -> int:
    """Return the bytes that the network takes for the whole image, or that it takes at most if there are so many."""
    seen = (max(size[0], network.card.min_side), max(size[1], network.card.min_side))
    most = most_bytes(seen, len(scoring.layers))
    if network.is_hooked:
        return most  # it cannot be run on paper
    if network.card in NAMED and recipe.guide is None and most <= room:
        return most  # with room to spare; to estimate it takes a second
    part = network.part(scoring.layers)  # not `features`, which are kept even if the image is then done in tiles
    return part.nbytes + gradient_bytes(part, scoring, seen)


def patient_gradient_fn(network: Network, scoring: Scoring, recipe: Recipe, size: Size) -> GradientFn:
    """Build the gradient that a recipe asks for, and let it halve its tiles if memory runs out nevertheless."""
    first = gradient_fn(network, scoring, recipe)

    def smaller(side: int) -> GradientFn:
        return gradient_fn(network, scoring, within(recipe, side))

    return halving_gradient(smaller, first, longest(recipe, size))


def describe_stages(recipe: Recipe) -> str:
    """Say how a recipe looks at a picture; nothing, if at all of it at once."""
    if not recipe.cuts:
        return f"in tiles of {recipe.tile} px" if isinstance(recipe.tile, int) else ""
    cuts = [Cut.parse(cut) for cut in recipe.cuts]
    tiles = [recipe.tile, *(cut.tile for cut in cuts)]
    looks = [f"in tiles of {tile} px" if isinstance(tile, int) else "at once" for tile in tiles]
    parts = (f"from {cut.layer} on {look}" for cut, look in zip(cuts, looks[1:], strict=True))
    return f"in {len(tiles)} stages ({', '.join([looks[0], *parts])})"


def longest(recipe: Recipe, size: Size) -> int:
    """Return the side of a recipe's largest tiles; that of the picture, where a stage has none."""
    tiles = [recipe.tile, *(Cut.parse(cut).tile for cut in recipe.cuts)]
    return max(tile if isinstance(tile, int) else max(size) for tile in tiles)


def within(recipe: Recipe, side: int) -> Recipe:
    """Return a recipe with tiles of `side` px at most in each stage.

    A stage behind a cut that is looked at at once stays so: it may see all of the picture.
    """
    cuts = [Cut.parse(cut) for cut in recipe.cuts]
    return recipe.but(
        tile=min(side, recipe.tile) if isinstance(recipe.tile, int) else side,
        cuts=tuple(str(Cut(cut.layer, cut.tile and min(side, cut.tile))) for cut in cuts),
    )
