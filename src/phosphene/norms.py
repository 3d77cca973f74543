"""What a gradient is divided by before a step, so that a step size means the same on every network.

Each norm maps a gradient [3, height, width] to one whose mean absolute value is about 1 (exactly 1 for `mean_abs`
and `laplacian`). A zero gradient stays zero. To add one, write the function and its name in `settings.Norm`.
"""

from collections.abc import Callable

from phosphene.resample import laplacian_bands, merge_bands
from phosphene.settings import Norm
from phosphene.types import Image

TINY = 1e-30
LAPLACIAN_BANDS = 4


def mean_abs(gradient: Image) -> Image:
    """Over the mean absolute value (Google's deepdream notebook, 2015)."""
    return gradient / gradient.abs().mean().clamp_min(TINY)


def std(gradient: Image) -> Image:
    """Over the population standard deviation (TensorFlow's DeepDream tutorial).

    The tutorial adds 1e-8 to the deviation. That weakens steps once an image is so large that its mean score's
    gradient is itself near 1e-8, so it is left out here.
    """
    return gradient / gradient.std(correction=0).clamp_min(TINY)


def laplacian(gradient: Image) -> Image:
    """Each of four Laplacian bands over its own root mean square, added up, then over the mean absolute value.

    After the retired TensorFlow 1 deepdream notebook, which balances low and high frequencies so; the last division
    is ours: it makes the step size comparable with the other norms.
    """
    bands = laplacian_bands(gradient, LAPLACIAN_BANDS)
    return mean_abs(merge_bands([band / band.square().mean().sqrt().clamp_min(TINY) for band in bands]))


NORMS: dict[Norm, Callable[[Image], Image]] = {"mean_abs": mean_abs, "std": std, "laplacian": laplacian}
