"""The story of a dream: a photograph, its octaves from coarse to fine, and the ascent on each. No files, no network.

The report that Phosphene starts from found its main loop's patterns faint, dreamed the photograph at several sizes
to let small patterns grow into large ones (its section 5.7), and cut the gradient into tiles when the picture grew
too large (5.8). Here the three are one loop: one octave is the main loop, several are octaves, and the tiles are in
the `GradientFn`, which this loop calls without knowing.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, runtime_checkable

import torch
from torch import Tensor

from phosphene.dreaming.ascent import P, ascend, take_step
from phosphene.dreaming.pyramid import octave_sizes, reinject_detail
from phosphene.dreaming.resample import resize
from phosphene.recipe.own import OwnNorm
from phosphene.recipe.settings import Ascent, Recipe
from phosphene.types import Image, Shift, Size, Step


def finish(dream: Image, photograph: Image, recipe: Recipe) -> Image:
    """Give the dream the photograph's colours, if the recipe keeps them."""
    return with_chroma_of(photograph, dream) if recipe.colour == "original" else dream


@runtime_checkable
class Medium(Protocol[P]):
    """What a dream does to pictures as wholes. Pictures in memory and pictures on disk have one each."""

    def resize(self, picture: P, size: Size, /) -> P:
        """Return a picture or a mask at another size."""
        ...

    def reinject(self, dream: P, base: P, previous_base: P, /) -> P:
        """Bring a dream to the size of `base`, with its detail, as `pyramid.reinject_detail`."""
        ...

    def step(self, image: P, gradient: Any, settings: Ascent, mask: P | None, /) -> P:
        """Take a step, as `ascent.take_step`."""
        ...

    def finish(self, dream: P, photograph: P, recipe: Recipe, /) -> Image:
        """Return what a listener gets to see."""
        ...


@dataclass(frozen=True)
class Memory:
    """The medium of pictures in memory; `own` is the norm, if it is a custom one."""

    own: OwnNorm | None = None
    reinject = staticmethod(reinject_detail)
    finish = staticmethod(finish)

    def step(self, image: Image, gradient: Image, settings: Ascent, mask: Tensor | None) -> Image:
        """Take a step, as `ascent.take_step`."""
        return take_step(image, gradient, settings, mask, self.own)

    @staticmethod
    def resize(picture: Tensor, size: Size) -> Tensor:
        """Resize a picture [channels, height, width] or a plane [height, width]."""
        return resize(picture, size) if picture.ndim == 3 else resize(picture[None], size)[0]


IN_MEMORY: Medium[Any] = Memory()


@dataclass(frozen=True)
class Reached(Generic[P]):
    """Where an interrupted dream goes on: `step` steps of `octave` (counted from 1) have made `dream`."""

    octave: int
    step: int
    dream: P


def render(
    photograph: P,
    gradient_of: Callable[[P, Shift], tuple[float, P]],
    recipe: Recipe,
    rng: torch.Generator,
    *,
    mask: P | None = None,
    min_side: int = 1,
    medium: Medium[P] = IN_MEMORY,
    reached: Reached[P] | None = None,
    spent: float = 0.0,
) -> Generator[Step]:
    """Dream `photograph`, and yield a `Step` after each step; the last one's image is the dream.

    `mask` has the photograph's size and says, 0..1, how strongly to dream where. Octaves smaller than `min_side` px,
    below which the network sees nothing, are left out. What was `reached` before took `spent` seconds.
    """
    began = time.perf_counter() - spent
    height, width = photograph.shape[1:]
    sizes = octave_sizes((height, width), recipe.octaves, recipe.octave_scale, min_side)
    pixels = [height * width for height, width in sizes]
    first, steps_done = (reached.octave, reached.step) if reached else (1, 0)
    base = medium.resize(photograph, sizes[first - 1])
    dream = reached.dream if reached else base
    for octave, size in enumerate(sizes[first - 1 :], start=first):
        if octave > first:
            previous_base, base = base, medium.resize(photograph, size)
            dream = medium.reinject(dream, base, previous_base) if recipe.detail else medium.resize(dream, size)
        where = None if mask is None else medium.resize(mask, size)
        ascent = ascend(dream, gradient_of, recipe, rng, where, medium.step, steps_done, octave)
        for step, (score, dream) in enumerate(ascent, start=steps_done + 1):
            seen = recipe.steps * sum(pixels[: octave - 1]) + step * pixels[octave - 1]
            yield Step(
                octave=octave,
                octaves=len(sizes),
                step=step,
                steps=recipe.steps,
                score=score,
                seconds=time.perf_counter() - began,
                progress=seen / (recipe.steps * sum(pixels)),
                image=medium.finish(dream, base, recipe),
            )
        steps_done = 0


def with_chroma_of(photograph: Image, dream: Image) -> Image:
    """Return the dream's luma with the photograph's chroma (Y'CbCr, ITU-R BT.601), clamped to 0..1.

    Adding one number to red, green and blue changes the luma by that number, and the chroma not at all.
    """
    weights = dream.new_tensor([0.299, 0.587, 0.114])
    luma_gained = torch.einsum("chw,c->hw", dream - photograph, weights)
    return (photograph + luma_gained).clamp(0, 1)
