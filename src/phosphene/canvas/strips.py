"""What a dream does to whole pictures, done strip by strip: each function works on one strip, in any process.

The results are those of the functions on tensors to the last bit, because they are those functions: a strip is read
with as many rows around it as they look at, and PyTorch's resize works on one axis after the other.
"""

from dataclasses import dataclass, replace

from phosphene.ascent import climb
from phosphene.canvas.raster import STRIP, Part, Raster
from phosphene.norms import NORMS
from phosphene.objective import Scoring
from phosphene.render import finish
from phosphene.resample import blur, resize
from phosphene.settings import Ascent, Recipe
from phosphene.sums import RowSums, row_sums_of_squares
from phosphene.types import Shift

BANDS_MARGIN = 32
"""Rows that the Laplacian bands of a row depend on, to each side; 28 by their kernels."""

ALL = slice(None)


def cut(length: int, size: int = STRIP) -> list[slice]:
    """Cut rows or columns into strips."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def widen(rows: slice, source: Raster, target: Raster) -> None:
    """Resize some rows of `source` to the width of `target`."""
    part = source.read(rows)
    target.write(resize(part, (part.shape[1], target.shape[2])), rows)


def heighten(columns: slice, source: Raster, target: Raster) -> None:
    """Resize some columns of `source` to the height of `target`. A lone column takes a neighbour along.

    PyTorch resizes a picture that is one pixel wide in another way.
    """
    first = columns.start - 1 if columns.stop - columns.start == 1 and columns.start > 0 else columns.start
    part = source.read(ALL, slice(first, columns.stop))
    resized = resize(part, (target.shape[1], part.shape[2]))
    target.write(resized[:, :, columns.start - first :], ALL, columns)


def add_detail(rows: slice, dream: Raster, base: Raster, previous: Raster, target: Raster) -> None:
    """Put back the detail that a smaller octave lost, as `pyramid.reinject_detail`; all have one size."""
    target.write((dream.read(rows) + base.read(rows) - previous.read(rows)).clamp(0, 1), rows)


@dataclass(frozen=True)
class Slope:
    """A gradient on disk, in the frame rolled by `shift`, and what is known of it as a whole.

    `squares` are the sums of squares of the terms' gradients, where they are balanced, and `sizes` what the first of
    the norm's divisions divide by.
    """

    gradient: Raster
    shift: Shift
    scoring: Scoring
    settings: Ascent
    squares: tuple[float, ...] = ()
    sizes: tuple[tuple[float, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3, *self.gradient.size)

    @property
    def margin(self) -> int:
        """Rows to each side that a row depends on; a multiple of eight, as the coarsest band's rows are."""
        blurred = -(-max(1, round(3 * self.settings.blur)) // 8) * 8 if self.settings.blur else 0
        return blurred + (BANDS_MARGIN if self.settings.norm == "laplacian" else 0)

    def window(self, rows: slice) -> slice:
        """The rows to read, so that `rows` come out right."""
        return slice(max(0, rows.start - self.margin), min(self.shape[1], rows.stop + self.margin))

    def terms(self, rows: slice) -> Part:
        """Read rows of the terms' gradients, in the image's own frame."""
        back = (-self.shift[0], -self.shift[1])
        return self.gradient.read_rolled(rows, slice(0, self.shape[2]), back)

    def divided(self, rows: slice) -> Part:
        """Rows of the gradient, blurred and divided as far as `sizes` are known; right but for `margin` at its ends."""
        terms = self.terms(rows)
        gradient = self.scoring.weigh(terms.reshape(-1, 3, *terms.shape[1:]), self.squares)
        gradient = blur(gradient, self.settings.blur)
        for division, sizes in zip(NORMS[self.settings.norm], self.sizes, strict=False):
            gradient = division.divide(gradient, sizes)
        return gradient

    def with_sizes(self, sizes: tuple[float, ...]) -> "Slope":
        """With one more division known."""
        return replace(self, sizes=(*self.sizes, sizes))


def squares(rows: slice, slope: Slope) -> list[RowSums]:
    """Sum the squares of each term's rows."""
    terms = slope.terms(rows)
    return [row_sums_of_squares(term) for term in terms.reshape(-1, 3, *terms.shape[1:])]


def part_sums(rows: slice, slope: Slope) -> list[tuple[list[RowSums], int]]:
    """Return the sums that the next division needs of each of its parts, and how many numbers they are of."""
    division = NORMS[slope.settings.norm][len(slope.sizes)]
    window = slope.window(rows)
    found = []
    for level, part in enumerate(division.split(slope.divided(window))):
        start, stop = (rows.start - window.start) >> level, -(-(rows.stop - window.start) // 2**level)
        own = part[:, start:stop]
        found.append((division.sums(own), own.numel()))
    return found


def climb_strip(rows: slice, image: Raster, slope: Slope, mask: Raster | None, target: Raster) -> None:
    """Take a step on some rows."""
    window = slope.window(rows)
    own = slope.divided(window)[:, rows.start - window.start : rows.stop - window.start]
    where = None if mask is None else mask.read(rows)
    target.write(climb(image.read(rows), own, slope.settings, where), rows)


def finished(rows: slice, dream: Raster, photograph: Raster, recipe: Recipe) -> Part:
    """Rows of the finished picture."""
    own = dream.read(rows)
    return finish(own, photograph.read(rows) if recipe.colour == "original" else own, recipe)
