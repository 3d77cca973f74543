"""Octaves: their sizes, and the detail that goes back in between them. No model, no gradient."""

from jaxtyping import Float
from torch import Tensor

from phosphene.dreaming.resample import resize
from phosphene.types import Image, Size

CoarseImage = Float[Tensor, "3 coarse_height coarse_width"]


def octave_sizes(size: Size, octaves: int, scale: float, min_side: int = 1) -> list[Size]:
    """Sizes `round(size / scale**k)`, coarse to fine, ending at `size` itself.

    Octaves with a side below `min_side` px are left out, all but the last.
    """
    sizes = [(round(size[0] / scale**k), round(size[1] / scale**k)) for k in reversed(range(1, octaves))]
    return [coarse for coarse in sizes if min(coarse) >= max(1, min_side)] + [size]


def reinject_detail(dream: CoarseImage, base: Image, previous_base: CoarseImage) -> Image:
    """Bring a dream to the size of the next octave's photograph, with the detail that the smaller one lost.

    `resize(dream) + (base - resize(previous_base))`, in 0..1; as in Google's deepdream notebook of 2015.
    """
    size = (base.shape[1], base.shape[2])
    return (resize(dream, size) + base - resize(previous_base, size)).clamp(0, 1)
