"""Octaves: their sizes, and the detail that goes back in between them. No model, no gradient."""

from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.resample import resize
from phosphene.recipe.settings import Picture
from phosphene.types import Image, Size

CoarseImage = Float[Tensor, "3 coarse_height coarse_width"]


def octave_sizes(size: Size, octaves: int, scale: float, min_side: int = 1) -> list[Size]:
    """Sizes `round(size / scale**k)`, coarse to fine, ending at `size` itself.

    Octaves with a side below `min_side` px are left out, all but the last.
    """
    sizes = [(round(size[0] / scale**k), round(size[1] / scale**k)) for k in reversed(range(1, octaves))]
    return [coarse for coarse in sizes if min(coarse) >= max(1, min_side)] + [size]


def fitted_size(size: Size, settings: Picture) -> Size:
    """Return the size at which a picture of `size` is dreamed: its own, or with the long side that is asked for."""
    if settings.size == "full":
        return size
    return fit_within(size, settings.size, settings.enlarge)


def fit_within(size: Size, side: int, enlarge: bool = False) -> Size:
    """Shrink a size until its long side is `side` px at most, or with `enlarge` exactly; no side is below 1 px."""
    scale = side / max(size)
    if scale >= 1 and not enlarge:
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reinject_detail(dream: CoarseImage, base: Image, previous_base: CoarseImage) -> Image:
    """Bring a dream to the size of the next octave's photograph, with the detail that the smaller one lost.

    `resize(dream) + (base - resize(previous_base))`, in 0..1; as in Google's deepdream notebook of 2015.
    """
    size = (base.shape[1], base.shape[2])
    return (resize(dream, size) + base - resize(previous_base, size)).clamp(0, 1)
