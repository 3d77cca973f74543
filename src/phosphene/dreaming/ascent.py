"""Gradient ascent on the pixels of one octave. Blind to tiles, devices and files."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from phosphene.dreaming.norms import divisions, normalise
from phosphene.dreaming.resample import blur
from phosphene.recipe.own import OwnNorm
from phosphene.recipe.settings import Ascent
from phosphene.types import Image, Mask, Picture, Shift

P = TypeVar("P", bound=Picture)
"""A picture, or its gradient: an `Image`, or one on disk."""


def take_step(image: Image, gradient: Image, settings: Ascent, mask: Mask | None, own: OwnNorm | None = None) -> Image:
    """Return `image + step_size * gradient / norm(gradient)`, clamped to 0..1; the gradient is blurred first.

    `own` is the norm where `settings` names a custom one.
    """
    return climb(image, normalise(blur(gradient, settings.blur), divisions(settings.norm, own)), settings, mask)


def climb(image: Image, gradient: Image, settings: Ascent, mask: Mask | None) -> Image:
    """Take the last part of a step, which looks at each pixel by itself. `mask` is how much of it a pixel takes."""
    step = settings.step_size * gradient
    if mask is not None:
        step *= mask
    return step.add_(image).clamp_(0, 1)


def ascend(
    image: P,
    gradient_of: Callable[[P, Shift], tuple[float, P]],
    settings: Ascent,
    rng: torch.Generator,
    mask: P | None = None,
    step: Callable[..., Any] = take_step,
    done: int = 0,
    octave: int = 1,
) -> Iterator[tuple[float, P]]:
    """Take `settings.steps` steps uphill; after each, yield the score before it and the image after it.

    `mask` (0..1) says how much of a step each pixel takes. Where the image is shifted to is drawn from `rng` alone.
    `step` is how one is taken; pictures on disk bring their own. `done` steps have been taken before. What is scheduled
    is looked up for `octave`.
    """
    for number in range(done + 1, settings.steps + 1):
        now = settings.at(octave, number)
        score, gradient = gradient_of(image, draw_shift(rng, now.jitter))
        image = step(image, gradient, now, mask)
        del gradient  # as large as the image, and the next one would stand beside it
        yield score, image


def draw_shift(rng: torch.Generator, jitter: int) -> Shift:
    """Draw a shift, uniform over -jitter..jitter px in both directions."""
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=rng).tolist()
    return down, right
