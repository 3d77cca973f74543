"""A job for each moment of a film: the recipe of that time, and the gradient of its look or of two that fade."""

from dataclasses import dataclass, field, replace

import torch

from phosphene.film.timeline import Levels, Timeline
from phosphene.imagefile import Photo
from phosphene.job import MemoryJob, in_memory
from phosphene.recipe.settings import Eye, Recipe, Target
from phosphene.types import GradientFn, Image, Limit, Plane, Shift, Size

LOOK = {*Eye.model_fields, *Target.model_fields}
"""The settings that a gradient depends on."""


@dataclass
class Moments:
    """Jobs over time, at one size. Networks are loaded, and gradients built, when a look is first needed."""

    timeline: Timeline
    size: Size
    device: str = "auto"
    memory: Limit | None = None
    levels: Levels | None = None
    _ready: dict[str, MemoryJob] = field(default_factory=dict)

    def job(self, time: float, image: Image, mask: Plane | None, rng: torch.Generator) -> MemoryJob:
        """Return the job that dreams `image` as asked for at `time`, in seconds."""
        first, last, share = self.timeline.at(time, self.levels)
        job = self._prepared(first)
        gradient_of = job.gradient_of
        if share:
            gradient_of = crossfaded(gradient_of, self._prepared(last).gradient_of, share)
        return replace(
            job,
            recipe=(first if share < 0.5 else last).but(
                layers=job.recipe.layers, tile=job.recipe.tile, cuts=job.recipe.cuts, mask=None
            ),
            image=image.to(job.image.device),
            mask=None if mask is None else mask.to(job.image.device),
            gradient_of=gradient_of,
            rng=rng,
        )

    def change(self, time: float) -> float | None:
        """Return the change that is asked for at a time, if one is."""
        return self.timeline.change(time, self.levels)

    def _prepared(self, recipe: Recipe) -> MemoryJob:
        key = str(recipe.model_dump(include=LOOK))
        if key not in self._ready:
            grey = Photo(torch.full((3, *self.size), 0.5), None, "", "", ())
            self._ready[key] = in_memory(grey, recipe.but(size="full", mask=None), self.device, self.memory)
        return self._ready[key]


def crossfaded(first: GradientFn, last: GradientFn, share: float) -> GradientFn:
    """Return the gradient of two looks, each brought to a mean absolute value of 1: `share` (0..1) is the last one's.

    Without that the deeper look would have all the say: gradients of layers differ by orders of magnitude.
    """

    def gradient_of(image: Image, shift: Shift) -> tuple[float, Image]:
        (score, gradient), (score_last, gradient_last) = _unit(*first(image, shift)), _unit(*last(image, shift))
        return (1 - share) * score + share * score_last, torch.lerp(gradient, gradient_last, share)

    return gradient_of


def _unit(score: float, gradient: Image) -> tuple[float, Image]:
    return score, gradient / gradient.abs().mean().clamp_min(1e-30)
