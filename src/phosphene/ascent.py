"""Gradient ascent on the pixels of one octave. Blind to tiles, devices and files."""

from collections.abc import Iterator

import torch

from phosphene.norms import NORMS
from phosphene.resample import blur
from phosphene.settings import Ascent
from phosphene.types import GradientFn, Image, Plane, Shift


def ascend(
    image: Image, gradient_of: GradientFn, settings: Ascent, rng: torch.Generator, mask: Plane | None = None
) -> Iterator[tuple[float, Image]]:
    """Take `settings.steps` steps uphill; after each, yield the score before it and the image after it.

    A step is `image + step_size * gradient / norm(gradient)`, clamped to 0..1. `mask` (0..1) says how much of it
    each pixel takes. Where the image is shifted to is drawn from `rng` alone.
    """
    normalise = NORMS[settings.norm]
    for _ in range(settings.steps):
        score, gradient = gradient_of(image, draw_shift(rng, settings.jitter))
        step = settings.step_size * normalise(blur(gradient, settings.blur))
        image = (image + (step if mask is None else step * mask)).clamp(0, 1)
        yield score, image


def draw_shift(rng: torch.Generator, jitter: int) -> Shift:
    """Draw a shift, uniform over -jitter..jitter px in both directions."""
    down, right = torch.randint(-jitter, jitter + 1, (2,), generator=rng).tolist()
    return down, right
