"""Pictures on disk as the loop wants them: a `render.Medium`, and a `GradientFn`.

Each is a list of strips or tiles to which a function of `strips` or `tiles` is applied, by Python's `map` or by one
that spreads over a cluster; numbers come back, and of a step's pixels as many as a listener gets to see.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from phosphene.disk import raster, strips
from phosphene.disk.raster import CHUNK_COLUMNS, STRIP, Raster, Rolled
from phosphene.disk.strips import DiskGradient, blocks, cut
from phosphene.dreaming.exact_sums import total
from phosphene.dreaming.stages import StageRun, Stages, roll_of, run_stages
from phosphene.recipe.own import OwnNorm
from phosphene.recipe.settings import Ascent, Recipe
from phosphene.types import Image, Map, Shift, Size

SHOWN = 512
"""Long side, in px, of what a listener gets to see of a step."""


@dataclass
class Surface:
    """A folder of rasters, and who works on them; `newest` is the raster of the last step, which a listener saw.

    `own` is the norm, if it is a custom one.
    """

    folder: Path
    settings: Recipe
    map: Map = map
    own: OwnNorm | None = None
    newest: Raster | None = None

    def resize(self, picture: Raster, size: Size) -> Raster:
        """Resize a picture, first the rows and then the columns, as PyTorch does."""
        if picture.size == size:
            return picture
        channels, height, _ = picture.shape
        name = f"{picture.path.name}-{size[0]}x{size[1]}"
        between = raster.create(self.folder / f"{name}-between", (channels, height, size[1]))
        self._each(partial(strips.widen, source=picture, target=between), cut(height))
        target = raster.create(self.folder / name, (channels, *size))
        self._each(partial(strips.heighten, source=between, target=target), cut(size[1], CHUNK_COLUMNS))
        raster.remove(between.path)
        return target

    def reinject(self, dream: Raster, base: Raster, previous: Raster) -> Raster:
        """Bring a dream to the next octave, with its detail."""
        larger, smooth = self.resize(dream, base.size), self.resize(previous, base.size)
        target = self._other_buffer(dream, base.size)
        work = partial(strips.add_detail, dream=larger, base=base, previous=smooth, target=target)
        self._each(work, blocks(base.size))
        for scratch in {larger.path, smooth.path} - {dream.path, previous.path, base.path}:
            raster.remove(scratch)
        return target

    def step(self, image: Raster, gradient: DiskGradient, settings: Ascent, mask: Raster | None) -> Raster:
        """Take a step: gather what the norm must know of the whole gradient, then write the other buffer."""
        gradient = replace(gradient, settings=settings, own=self.own)
        for _ in gradient.divisions:
            gradient = gradient.with_sizes(self._sizes(gradient))
        target = self._other_buffer(image, image.size)
        work = partial(strips.climb_block, image=image, gradient=gradient, mask=mask, target=target)
        self._each(work, blocks(image.size))
        return target

    def finish(self, dream: Raster, base: Raster, recipe: Recipe) -> Image:
        """Return a small picture of the dream: every so many pixels of it."""
        self.newest = dream
        every = max(1, max(dream.size) // SHOWN)
        seen = torch.empty(3, *(ceil(side / every) for side in dream.size))
        work = partial(strips.glimpse, dream=dream, photograph=base, recipe=recipe, every=every)
        parts = blocks(dream.size)
        for (rows, columns), part in zip(parts, self.map(work, parts), strict=True):
            top, left = ceil(rows.start / every), ceil(columns.start / every)
            seen[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return seen

    def gradient_fn(self, stages_of: Stages, device: str) -> Callable[[Raster, Shift], tuple[float, DiskGradient]]:
        """Build the gradient of pictures on disk."""

        def gradient_on_disk(image: Raster, shift: Shift) -> tuple[float, DiskGradient]:
            size, first = image.size, stages_of(image.size)[0]
            allocate = partial(self._allocate, size)
            stored = allocate("gradient", (3 * first.scoring.gradients, *size), first.side)
            seen, roll, where = Rolled(image, shift), roll_of(shift, size), torch.device(device)
            scores = run_stages(StageRun(stages_of, size, 0, size, seen, stored, None, roll, where), allocate, self.map)
            gradient = DiskGradient(stored, shift, first.scoring, self.settings)
            return float(scores.sum()), self._weighed(gradient)

        return gradient_on_disk

    def _allocate(self, size: Size, name: str, shape: tuple[int, int, int], side: int | None) -> Raster:
        """Allocate a gradient, or the activation at a cut, of a picture of `size`, in chunks that cross no tiles."""
        side = side or CHUNK_COLUMNS
        chunk = _divisor(side, STRIP), _divisor(side, CHUNK_COLUMNS)
        return raster.create(self.folder / f"{name}-{size[0]}x{size[1]}-{side}", shape, chunk)

    def _weighed(self, gradient: DiskGradient) -> DiskGradient:
        if not gradient.scoring.balanced:
            return gradient
        found = list(self.map(partial(strips.squares, gradient=gradient), blocks(gradient.stored.size)))
        return replace(gradient, squares=tuple(total(term) for term in zip(*found, strict=True)))

    def _sizes(self, gradient: DiskGradient) -> tuple[float, ...]:
        division = gradient.divisions[len(gradient.sizes)]
        found = list(self.map(partial(strips.part_sums, gradient=gradient), blocks(gradient.stored.size)))
        sizes = []
        for part in zip(*found, strict=True):
            count = sum(numbers for _, numbers in part)
            sums = zip(*(sums for sums, _ in part), strict=True)
            sizes.append(division.size([total(each) / count for each in sums]))
        return tuple(sizes)

    def _other_buffer(self, dream: Raster, size: Size) -> Raster:
        """Make room for the next dream, beside the present one: a step reads one buffer and writes the other."""
        names = [f"dream-{size[0]}x{size[1]}-{letter}" for letter in "ab"]
        name = names[1] if dream.path.name == names[0] else names[0]
        return raster.create(self.folder / name, (3, *size))

    def _each(self, work: Callable[[Any], None], parts: list[Any]) -> None:
        for _ in self.map(work, parts):
            pass


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is `most` at most."""
    return next(divisor for divisor in range(most, 0, -1) if number % divisor == 0)
