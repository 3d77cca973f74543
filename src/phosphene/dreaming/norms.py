"""What a gradient is divided by before a step, so that a step size means the same on every network.

Each norm of ours maps a gradient [3, height, width] to one whose mean absolute value is about 1 (exactly 1 for
`mean_abs` and `laplacian`). A zero gradient stays zero. A norm is one or more divisions; to add one, write it and its
name in `settings.Norm`. A custom one is a function, as a division whose sizes are 1.

A division needs numbers that belong to the whole gradient, and then looks at each place by itself. The two are apart,
so that a gradient on disk can be divided block by block with the same result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from torch import Tensor

from phosphene.dreaming.exact_sums import SEGMENT, SegmentSums, sums, sums_of_absolutes, sums_of_squares, total
from phosphene.dreaming.resample import Band, laplacian_bands, merge_bands
from phosphene.errors import NonFiniteGradientError, UsageError
from phosphene.recipe.own import OwnNorm, blamed_on
from phosphene.types import Image

TINY = 1e-30
LAPLACIAN_BANDS = 4


@dataclass(frozen=True)
class Division:
    """Split a gradient into parts, divide each by its own size, and put them together again.

    The kth part has 2**k times fewer rows and columns than the gradient. `sums` are what a part's size is made of,
    given the columns of a segment, and `size` makes it of their means. `margin` is how many pixels to each side a pixel
    of the divided gradient depends on, beside the sizes; a multiple of two to the power of the coarsest part.
    """

    split: Callable[[Image], list[Band]]
    merge: Callable[[list[Band]], Image]
    sums: Callable[[Band, int], list[SegmentSums]]
    size: Callable[[Sequence[float]], float]
    margin: int = 0

    def sizes(self, parts: list[Band]) -> list[float]:
        """Measure the parts of a whole gradient."""
        return [
            self.size([total([found.tolist()]) / part.numel() for found in self.sums(part, SEGMENT >> level)])
            for level, part in enumerate(parts)
        ]

    def divide(self, parts: list[Band], sizes: Sequence[float]) -> Image:
        """Divide the parts of a gradient, or of a block of one, and put them together."""
        return self.merge([part / max(size, TINY) for part, size in zip(parts, sizes, strict=True)])


def normalise(gradient: Image, divisions: Sequence[Division]) -> Image:
    """Divide a gradient as its norm says."""
    for division in divisions:
        parts = division.split(gradient)
        gradient = division.divide(parts, division.sizes(parts))
    return gradient


def divisions(norm: str, own: OwnNorm | None = None) -> tuple[Division, ...]:
    """Return what a norm is made of: one of ours, by its name, or the custom norm `own`."""
    return NORMS[norm] if own is None else (_division(norm, own),)


def _division(name: str, norm: OwnNorm) -> Division:
    def direction(gradient: Image) -> list[Band]:
        with blamed_on(f"{name}, a norm of your own"):
            found = norm.function(gradient)
        if not isinstance(found, Tensor) or found.shape != gradient.shape or found.is_complex() or found.is_meta:
            what = f"{list(found.shape)}, {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(f"{name}, a norm of your own, gave {what} for a gradient {list(gradient.shape)}")
        if not found.isfinite().all():
            raise NonFiniteGradientError(f"{name}, a norm of your own, gave numbers that are not finite")
        return [found.to(gradient)]

    return Division(direction, _only, lambda part, columns: [], lambda means: 1.0, norm.margin or 0)


def _whole(gradient: Image) -> list[Band]:
    return [gradient]


def _only(parts: list[Band]) -> Image:
    (gradient,) = parts
    return gradient


def _deviation(means: Sequence[float]) -> float:
    mean, mean_square = means
    return sqrt(max(mean_square - mean**2, 0))


MEAN_ABS = Division(_whole, _only, lambda part, columns: [sums_of_absolutes(part, columns)], lambda means: means[0])
"""Over the mean absolute value (Google's deepdream notebook, 2015)."""

STD = Division(_whole, _only, lambda part, columns: [sums(part, columns), sums_of_squares(part, columns)], _deviation)
"""Over the population standard deviation (TensorFlow's DeepDream tutorial).

The tutorial adds 1e-8 to the deviation. That weakens steps once an image is so large that its mean score's gradient is
itself near 1e-8, so it is left out here.
"""

BANDS = Division(
    lambda gradient: laplacian_bands(gradient, LAPLACIAN_BANDS),
    merge_bands,
    lambda part, columns: [sums_of_squares(part, columns)],
    lambda means: sqrt(means[0]),
    margin=32,  # 28 by the kernels of its bands, and a multiple of eight, as the coarsest band's pixels are
)
"""Each of four Laplacian bands over its own root mean square (the retired TensorFlow 1 deepdream notebook).

It balances low and high frequencies. That the mean absolute value is divided out afterwards is ours: it makes the step
size comparable with the other norms.
"""

NORMS: dict[str, tuple[Division, ...]] = {"mean_abs": (MEAN_ABS,), "std": (STD,), "laplacian": (BANDS, MEAN_ABS)}
