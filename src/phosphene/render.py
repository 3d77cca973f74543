"""The story of a dream: a photograph, its octaves from coarse to fine, and the ascent on each. No files, no network.

The report that Phosphene starts from found its main loop's patterns faint, dreamed the photograph at several sizes
to let small patterns grow into large ones (its section 5.7), and cut the gradient into tiles when the picture grew
too large (5.8). Here the three are one loop: one octave is the main loop, several are octaves, and the tiles are in
the `GradientFn`, which this loop calls without knowing.
"""

import time
from collections.abc import Iterator

import torch

from phosphene.ascent import ascend
from phosphene.pyramid import octave_sizes, reinject_detail
from phosphene.resample import resize
from phosphene.settings import Recipe
from phosphene.types import GradientFn, Image, Plane, Step


def render(
    photograph: Image,
    gradient_of: GradientFn,
    recipe: Recipe,
    rng: torch.Generator,
    *,
    mask: Plane | None = None,
    min_side: int = 1,
) -> Iterator[Step]:
    """Dream `photograph`, and yield a `Step` after each step; the last one's image is the dream.

    `mask` has the photograph's size and says, 0..1, how strongly to dream where. Octaves smaller than `min_side` px,
    below which the network sees nothing, are left out.
    """
    began = time.perf_counter()
    size = (photograph.shape[1], photograph.shape[2])
    sizes = octave_sizes(size, recipe.octaves, recipe.octave_scale, min_side)
    pixels_to_see = recipe.steps * sum(height * width for height, width in sizes)
    pixels_seen = 0
    dream = base = resize(photograph, sizes[0])
    for octave, size in enumerate(sizes, start=1):
        previous_base, base = base, resize(photograph, size)
        dream = reinject_detail(dream, base, previous_base) if recipe.detail else resize(dream, size)
        where = None if mask is None else resize(mask[None], size)[0]
        ascent = ascend(dream, gradient_of, recipe, rng, where)
        for step, (score, dream) in enumerate(ascent, start=1):
            pixels_seen += size[0] * size[1]
            yield Step(
                octave=octave,
                octaves=len(sizes),
                step=step,
                steps=recipe.steps,
                score=score,
                seconds=time.perf_counter() - began,
                progress=pixels_seen / pixels_to_see,
                image=finish(dream, base, recipe),
            )


def finish(dream: Image, photograph: Image, recipe: Recipe) -> Image:
    """Give the dream the photograph's colours, if the recipe keeps them."""
    return with_chroma_of(photograph, dream) if recipe.colour == "original" else dream


def with_chroma_of(photograph: Image, dream: Image) -> Image:
    """Return the dream's luma with the photograph's chroma (Y'CbCr, ITU-R BT.601), clamped to 0..1.

    Adding one number to red, green and blue changes the luma by that number, and the chroma not at all.
    """
    weights = dream.new_tensor([0.299, 0.587, 0.114])
    luma_gained = torch.einsum("chw,c->hw", dream - photograph, weights)
    return (photograph + luma_gained).clamp(0, 1)
