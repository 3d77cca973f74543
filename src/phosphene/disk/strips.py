"""What a dream does to whole pictures, done part by part: each function works on one strip or block, in any process.

The results are those of the functions on tensors to the last bit, because they are those functions: a block is read
with as much around it as they look at, and PyTorch's resize works on one axis after the other: on full rows or columns.
"""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from phosphene.disk.raster import STRIP, Block, Part, Raster
from phosphene.dreaming.ascent import climb
from phosphene.dreaming.exact_sums import SEGMENT, condensed, sums_of_squares
from phosphene.dreaming.norms import Division, divisions
from phosphene.dreaming.objective import Scoring
from phosphene.dreaming.render import finish
from phosphene.dreaming.resample import blur, resize
from phosphene.dreaming.tiling import round_up
from phosphene.recipe.own import OwnNorm
from phosphene.recipe.settings import Ascent, Recipe
from phosphene.types import Shift, Size

RESIZED = 2**20
"""Pixels that are resized at a time, so that memory does not grow with the picture; at least one row or column."""

BLOCK = 512
"""Rows of a block: the more, the less is read twice, since a block is read with a margin."""

ALL = slice(None)


def cut(length: int, size: int = STRIP) -> list[slice]:
    """Cut rows or columns into strips."""
    return pieces(slice(0, length), size)


def pieces(part: slice, size: int) -> list[slice]:
    """Cut some rows or columns into strips."""
    return [slice(start, min(start + size, part.stop)) for start in range(part.start, part.stop, size)]


def blocks(size: Size, rows: int = BLOCK) -> list[Block]:
    """Cut a picture into blocks, which do not share chunks and are a segment of `sums` wide."""
    return [(down, across) for down in cut(size[0], rows) for across in cut(size[1], SEGMENT)]


def widen(rows: slice, source: Raster, target: Raster) -> None:
    """Resize some rows of `source` to the width of `target`."""
    for some in pieces(rows, _lines(source.shape[2], target.shape[2])):
        part = source.read(some)
        target.write(resize(part, (part.shape[1], target.shape[2])), some)


def heighten(columns: slice, source: Raster, target: Raster) -> None:
    """Resize some columns of `source` to the height of `target`."""
    for some in pieces(columns, _lines(source.shape[1], target.shape[1])):
        part = source.read(ALL, some)
        target.write(resize(part, (target.shape[1], part.shape[2])), ALL, some)


def _lines(*lengths: int) -> int:
    """How many rows or columns of these lengths are resized at a time."""
    return max(1, RESIZED // max(lengths))


def add_detail(block: Block, dream: Raster, base: Raster, previous: Raster, target: Raster) -> None:
    """Put back the detail that a smaller octave lost, as `pyramid.reinject_detail`; all have one size."""
    target.write((dream.read(*block) + base.read(*block) - previous.read(*block)).clamp(0, 1), *block)


@dataclass(frozen=True)
class DiskGradient:
    """A gradient on disk, in the frame rolled by `shift`, and what is known of it as a whole.

    `squares` are the sums of squares of the terms' gradients, where they are balanced. `sizes` are what the first of
    the norm's divisions divide by. `own` is a custom norm, which another process does not know by its name.
    """

    stored: Raster
    shift: Shift
    scoring: Scoring
    settings: Ascent
    squares: tuple[float, ...] = ()
    sizes: tuple[tuple[float, ...], ...] = ()
    own: OwnNorm | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3, *self.stored.size)

    @property
    def divisions(self) -> tuple[Division, ...]:
        """What the norm is made of."""
        return divisions(self.settings.norm, self.own)

    @property
    def margin(self) -> int:
        """Pixels to each side that a pixel depends on; a multiple of eight, as the blocks are and the bands' pixels."""
        blurred = round_up(max(1, round(3 * self.settings.blur)), 8) if self.settings.blur else 0
        return blurred + sum(division.margin for division in self.divisions)

    def window(self, block: Block) -> Block:
        """What to read, so that `block` comes out right."""
        rows, columns = (
            slice(max(0, part.start - self.margin), min(length, part.stop + self.margin))
            for part, length in zip(block, self.stored.size, strict=True)
        )
        return rows, columns

    def terms(self, block: Block) -> Float[Tensor, "gradients 3 rows columns"]:
        """Read a block of the terms' gradients, in the image's own frame."""
        part = self.stored.read_rolled(*block, (-self.shift[0], -self.shift[1]))
        return part.reshape(-1, 3, *part.shape[1:])

    def divided(self, window: Block) -> Part:
        """The gradient, blurred and divided as far as `sizes` are known; right but for `margin` at its edges."""
        gradient = blur(self.scoring.weigh(self.terms(window), self.squares), self.settings.blur)
        for division, sizes in zip(self.divisions, self.sizes, strict=False):
            gradient = division.divide(division.split(gradient), sizes)
        return gradient

    def with_sizes(self, sizes: tuple[float, ...]) -> "DiskGradient":
        """With one more division known."""
        return replace(self, sizes=(*self.sizes, sizes))


def squares(block: Block, gradient: DiskGradient) -> list[list[float]]:
    """Sum the squares of each term's block."""
    return [condensed(sums_of_squares(term)) for term in gradient.terms(block)]


def part_sums(block: Block, gradient: DiskGradient) -> list[tuple[list[list[float]], int]]:
    """Return the sums that the next division needs of each of its parts, and how many numbers they are of."""
    division = gradient.divisions[len(gradient.sizes)]
    window = gradient.window(block)
    found = []
    for level, part in enumerate(division.split(gradient.divided(window))):
        own = own_part(part, block, window, level)
        found.append(([condensed(each) for each in division.sums(own, SEGMENT >> level)], own.numel()))
    return found


def own_part(part: Part, block: Block, window: Block, level: int) -> Float[Tensor, "channels own_rows own_columns"]:
    """Cut the block out of a window that is 2**level times smaller than the picture."""
    rows, columns = (
        slice((own.start - read.start) >> level, -(-(own.stop - read.start) // 2**level))
        for own, read in zip(block, window, strict=True)
    )
    return part[:, rows, columns]


def climb_block(block: Block, image: Raster, gradient: DiskGradient, mask: Raster | None, target: Raster) -> None:
    """Take a step on a block."""
    window = gradient.window(block)
    own = own_part(gradient.divided(window), block, window, 0)
    where = None if mask is None else mask.read(*block)
    target.write(climb(image.read(*block), own, gradient.settings, where), *block)


def finished(block: Block, dream: Raster, photograph: Raster, recipe: Recipe) -> Part:
    """Return a block of the finished picture."""
    own = dream.read(*block)
    return finish(own, photograph.read(*block) if recipe.colour == "original" else own, recipe)


def glimpse(block: Block, dream: Raster, photograph: Raster, recipe: Recipe, every: int) -> Part:
    """Return those pixels of a finished block whose row and column in the picture are multiples of `every`."""
    rows, columns = block
    whole = finished(block, dream, photograph, recipe)
    return whole[:, -rows.start % every :: every, -columns.start % every :: every].clone()
