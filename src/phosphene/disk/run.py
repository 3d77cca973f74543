"""A dream by way of the disk: decode, dream with an entry in the journal after each step, look, and encode."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from phosphene import imagefile
from phosphene.disk import files, journal, raster, strips
from phosphene.disk.plan import Plan, Scratch, begin, stages_in
from phosphene.disk.raster import STRIP, Block, Part, Raster
from phosphene.disk.strips import ALL
from phosphene.disk.surface import Surface
from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.render import Reached, finish, render
from phosphene.errors import StoreError, UsageError
from phosphene.imagefile import Photo, streaming
from phosphene.imagefile.formats import format_of
from phosphene.imagefile.streaming import Streamed
from phosphene.recipe import provenance
from phosphene.recipe.arguments import checked
from phosphene.recipe.own import OwnNorm, is_own
from phosphene.recipe.settings import Recipe
from phosphene.setup.memory import halving_gradient
from phosphene.setup.preflight import longest, within
from phosphene.setup.source import mask_checksum, read_mask
from phosphene.types import Image, Map, Plane, Size, Step, Trace
from phosphene.verbs import LOOKED_AT, Dream, Job, Side


@dataclass(frozen=True)
class DiskJob(Job):
    """A dream by way of the disk, ready to begin or to go on.

    `photo` is a photograph that is in memory, where it is no file. `workers` gives a `map` that applies a function to
    strips and tiles; a cluster brings its own. `own` is the norm, if it is a custom one. The folder
    of a `new` dream is made with its first step.
    """

    plan: Plan
    scratch: Scratch
    rng: torch.Generator
    photo: Photo | None = None
    workers: Callable[[], AbstractContextManager[Map]] = lambda: nullcontext(map)
    own: OwnNorm | None = None
    new: bool = False

    @property
    def resumable(self) -> Path | None:
        """The folder to go on with where the dream is interrupted."""
        return self.scratch.path if self.plan.output else None

    def begun(self) -> Trace:
        """The steps that were taken before."""
        entry = journal.last(self.scratch.path)
        return Trace(list(entry.rows) if entry else [])

    def steps(self) -> Generator[Step]:
        """Dream, step by step, from where it was interrupted; each is on disk before it is told."""
        if self.new:
            begin(self.plan, self.scratch)
        with journal.locked(self.scratch.path), self.workers() as over:
            yield from self._steps(Surface(self.scratch.path, self.recipe, over, self.own))

    def _steps(self, surface: Surface) -> Generator[Step]:
        folder, rng, reached = self.scratch.path, self.rng, None
        if entry := journal.last(folder):
            entry.restore(rng)
            reached = Reached(entry.octave, entry.step, raster.reopen(folder / entry.dream))
        else:
            _decode(self.plan, surface, self.photo or streaming.look(self.plan.source))
        trace = self.begun()
        spent = trace.rows[-1][3] if trace.rows else 0.0
        for step in render(
            raster.reopen(folder / "photograph"),
            _gradient_fn(self.plan, surface),
            self.recipe,
            rng,
            mask=raster.reopen(folder / "mask") if self.recipe.mask is not None else None,
            min_side=stages_in(self.recipe, self.plan.device, self.made.size)[0].min_side,
            medium=surface,
            reached=reached,
            spent=spent,
        ):
            trace.add(step)
            assert surface.newest is not None
            _commit(folder, step, surface.newest, rng, trace)
            yield step

    def dreamed(self, image: Image | None, trace: Trace, unfinished: str | None = None) -> "DiskDream":
        """Return the dream as far as it came; `image` is what the last step showed."""
        made = self.made.model_copy(update={"unfinished": unfinished})
        return DiskDream(self.recipe, made, trace, self.plan, self.scratch)


@dataclass(frozen=True, repr=False)
class DiskDream(Dream):
    """A dream on disk: it can be looked at and saved, and is in memory only where `image` is asked for.

    Its folder is removed with it, once it was saved where it was to be, or if it was to be nowhere.
    """

    plan: Plan
    scratch: Scratch

    @property
    def image(self) -> Image:
        """The whole picture, in memory."""
        return self.look(max(self.made.size))

    @property
    def photograph(self) -> Image:
        """The photograph at the dream's size, in memory."""
        return raster.reopen(self.scratch.path / "photograph").read(ALL)

    @checked
    def look(self, side: Side = LOOKED_AT) -> Image:
        """Return the picture within `side` px."""
        size = fit_within(self.made.size, side)
        with self._at(size) as (dream, photograph):
            return finish(dream.read(ALL), photograph.read(ALL), self.recipe)

    @checked
    def save(
        self, path: str | Path | None = None, *, bits: Literal[8, 16] | None = None, overwrite: bool = False
    ) -> Path:
        """Write the picture, in the format of its file's ending, with the recipe inside; whole or not at all.

        Without a path, it is written where it was prepared to be.
        """
        target, bits = imagefile.output_of(path, self.plan.output), bits or self.plan.bits
        imagefile.check_output(target, overwrite or path is None, bits=bits, size=self.made.size)
        with journal.locked(self.scratch.path):
            self._write(target, bits)
        if str(target) == self.plan.output and not self.made.unfinished:
            self.scratch.release()
        return target

    @contextmanager
    def _at(self, size: Size) -> Iterator[tuple[Raster, Raster]]:
        """Give the newest dream and the photograph at a size."""
        folder = self.scratch.path
        entry = journal.last(folder)
        newest = folder / (entry.dream if entry else "photograph")
        kept = [raster.reopen(newest), raster.reopen(folder / "photograph")]
        surface = Surface(folder, self.recipe)
        dream, photograph = (surface.resize(picture, size) for picture in kept)
        try:
            yield dream, photograph
        finally:
            for picture in {dream, photograph} - {*kept}:
                raster.remove(picture.path)

    def _write(self, path: Path, bits: int) -> None:
        """Encode the dream, beside its place, and put it there when it is whole."""
        folder, kind = self.scratch.path, format_of(path, bits)
        alpha, levels = raster.reopen(folder / "alpha") if self.plan.has_alpha else None, folder / "levels.tif"
        with self._at(self.made.size) as (dream, photograph):

            def finished(block: Block) -> Part:
                pixels = strips.finished(block, dream, photograph, self.recipe)
                return pixels if alpha is None else torch.cat([pixels, alpha.read(*block)])

            try:
                shape = (4 if alpha else 3, *dream.size)
                files.pack(map(finished, strips.blocks(dream.size, STRIP)), shape, bits, levels)
            except OSError as error:
                reason = error.strerror or f"No space left on the disk ({error})"  # of NumPy, which wrote a part
                raise StoreError(f"{levels} could not be written: {reason}") from error
        files.save(levels, kind, path, provenance.to_toml(self.recipe, self.made))


def _commit(folder: Path, step: Step, dream: Raster, rng: torch.Generator, trace: Trace) -> None:
    """Have the step on the disk, then in the journal, and only then remove what it made superfluous."""
    journal.sync_tree(dream.path)
    entry = journal.Entry(
        octave=step.octave, step=step.step, dream=dream.path.name, rng=journal.state_of(rng), rows=tuple(trace.rows)
    )
    journal.commit(folder, entry)
    _clear(folder, dream.size)


def _gradient_fn(plan: Plan, surface: Surface) -> Callable[[Raster, tuple[int, int]], tuple[float, Any]]:
    """Build the gradient, which halves its tiles if memory runs out."""

    def build(recipe: Recipe) -> Callable[..., tuple[float, Any]]:
        return surface.gradient_fn(partial(stages_in, recipe, plan.device), plan.device)

    def smaller(side: int) -> Callable[..., tuple[float, Any]]:
        recipe = within(plan.recipe, side)
        stages_in(recipe, plan.device, plan.made.size)  # raises where there are no tiles
        return build(recipe)

    return halving_gradient(smaller, build(plan.recipe), longest(plan.recipe, plan.made.size))


def _decode(plan: Plan, surface: Surface, photo: Photo | Streamed) -> None:
    """Put the photograph, its alpha and the mask into the folder, at the size of the dream."""
    folder, size = surface.folder, plan.made.size
    colours = raster.create(folder / "decoded", (3, *photo.size))
    alpha = raster.create(folder / "decoded-alpha", (1, *photo.size)) if plan.has_alpha else None
    files.write_blocks(photo, colours, alpha)
    _keep(surface, colours, size, "photograph")
    if alpha is not None:
        _keep(surface, alpha, size, "alpha")
    if is_own(plan.recipe.mask):
        if mask_checksum(plan.recipe.mask, size) != plan.made.mask_sha256:
            raise UsageError(f"{plan.recipe.mask} was given anew since this dream was prepared: name them apart")
        _write_mask(surface, read_mask(str(plan.recipe.mask), size))
    elif plan.recipe.mask is not None:
        _decode_mask(surface, streaming.look(plan.recipe.mask), size)


def _decode_mask(surface: Surface, photo: Streamed, size: Size) -> None:
    decoded = raster.create(surface.folder / "decoded-mask", (1, *photo.size))
    for block, part in files.decoded(photo, surface.folder):
        decoded.write(imagefile.mask_of(part[:3], part[3] if len(part) == 4 else None)[None], *block)
    _keep(surface, decoded, size, "mask")
    mask = raster.reopen(surface.folder / "mask")
    for block in strips.blocks(mask.size):
        mask.write(mask.read(*block).clamp(0, 1), *block)


def _write_mask(surface: Surface, plane: Plane) -> None:
    mask = raster.create(surface.folder / "mask", (1, *plane.shape))
    for block in strips.blocks(mask.size):
        mask.write(plane[block][None], *block)


def _keep(surface: Surface, decoded: Raster, size: Size, name: str) -> None:
    """Resize what was decoded to the size of the dream, under its own name."""
    resized = surface.resize(decoded, size)
    raster.rename(resized, name)
    raster.remove(decoded.path)


def _clear(folder: Path, size: Size) -> None:
    """Remove the rasters of other octaves than that of `size`, which nothing needs any more."""
    mark = f"-{size[0]}x{size[1]}"
    for path in folder.iterdir():
        if path.is_dir() and "x" in path.name and mark not in path.name:
            raster.remove(path)
