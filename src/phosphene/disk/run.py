"""From an order to a picture: decode, dream with an entry in the journal after each step, encode."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from phosphene import imagefile
from phosphene.disk import files, journal, raster, strips
from phosphene.disk.plan import Huge, bound_tiling
from phosphene.disk.raster import Part, Raster
from phosphene.disk.strips import Block
from phosphene.disk.surface import Map, Surface
from phosphene.dreaming.render import Reached, render
from phosphene.errors import StoreError
from phosphene.imagefile.streaming import Streamed
from phosphene.recipe import provenance as record
from phosphene.recipe.settings import Recipe
from phosphene.setup.memory import halving_gradient
from phosphene.types import Image, Size, Step

Rows = list[tuple[int, int, float, float]]
"""Octave, step, score and seconds of each step."""


def run(
    huge: Huge,
    on_step: Callable[[Step], None] | None = None,
    stop: threading.Event | None = None,
    over: Map = map,
) -> Rows | None:
    """Dream until the picture is written, and return octave, step, score and seconds of each step.

    Returns None where `stop` ended it early: the folder is left to go on from. `over` is a `map` that applies a
    function to strips and tiles; a cluster brings its own.
    """
    with journal.locked(huge.folder):
        rows = _dream(huge, Surface(huge.folder, huge.order.recipe, over), on_step, stop)
        if rows is not None:
            _write(huge)
            shutil.rmtree(huge.folder)
    return rows


def _dream(
    huge: Huge, surface: Surface, on_step: Callable[[Step], None] | None, stop: threading.Event | None
) -> Rows | None:
    recipe, entry = huge.order.recipe, journal.last(huge.folder)
    rng = torch.Generator().manual_seed(recipe.seed)
    reached, rows = None, list(entry.rows) if entry else []
    if entry is None:
        _decode(huge, surface)
    else:
        entry.restore(rng)
        reached = Reached(entry.octave, entry.step, raster.reopen(huge.folder / entry.dream))
    photograph, mask = raster.reopen(huge.folder / "photograph"), _stored(huge.folder, "mask")
    newest = photograph

    def show(dream: Raster, base: Raster, recipe: Recipe) -> Image:
        nonlocal newest
        newest = dream
        return surface.show(dream, base, recipe)

    for step in render(
        photograph,
        _gradient_fn(huge, surface),
        recipe,
        rng,
        mask=mask,
        min_side=bound_tiling(recipe, huge.order.device).min_side,
        medium=replace(surface.medium, finish=show),
        reached=reached,
    ):
        rows.append((step.octave, step.step, step.score, step.seconds))
        _commit(huge.folder, step, newest, rng, rows)
        if on_step is not None:
            on_step(step)
        if stop is not None and stop.is_set() and not step.is_last:
            return None
    return rows


def _commit(folder: Path, step: Step, dream: Raster, rng: torch.Generator, rows: Rows) -> None:
    """Have the step on the disk, then in the journal, and only then remove what it made superfluous."""
    journal.sync_tree(dream.path)
    entry = journal.Entry(
        octave=step.octave, step=step.step, dream=dream.path.name, rng=journal.state_of(rng), rows=tuple(rows)
    )
    journal.commit(folder, entry)
    _clear(folder, dream.size)


def _gradient_fn(huge: Huge, surface: Surface) -> Callable[[Raster, tuple[int, int]], tuple[float, Any]]:
    """Build the gradient, which halves its tiles if memory runs out."""
    recipe, device = huge.order.recipe, huge.order.device

    def build(side: int) -> Callable[..., tuple[float, Any]]:
        return surface.gradient_fn(partial(bound_tiling, recipe.but(tile=side), device), device)

    assert isinstance(recipe.tile, int)
    return halving_gradient(build, build(recipe.tile), recipe.tile)


def _decode(huge: Huge, surface: Surface) -> None:
    """Put the photograph, its alpha and the mask into the folder, at the size of the dream."""
    made = huge.order.made
    photo = files.look(made.source)
    colours = raster.create(huge.folder / "decoded", (3, *photo.size))
    alpha = raster.create(huge.folder / "decoded-alpha", (1, *photo.size)) if photo.has_alpha else None
    files.write_blocks(photo, colours, alpha)
    _keep(huge, surface, colours, "photograph")
    if alpha is not None:
        _keep(huge, surface, alpha, "alpha")
    if huge.order.recipe.mask is not None:
        _decode_mask(huge, surface, files.look(huge.order.recipe.mask))


def _decode_mask(huge: Huge, surface: Surface, photo: Streamed) -> None:
    decoded = raster.create(huge.folder / "decoded-mask", (1, *photo.size))
    for block, part in files.decoded(photo, huge.folder):
        decoded.write(imagefile.mask_of(part[:3], part[3] if len(part) == 4 else None)[None], *block)
    _keep(huge, surface, decoded, "mask")
    mask = raster.reopen(huge.folder / "mask")
    for block in strips.blocks(mask.size):
        mask.write(mask.read(*block).clamp(0, 1), *block)


def _keep(huge: Huge, surface: Surface, decoded: Raster, name: str) -> None:
    """Resize what was decoded to the size of the dream, under its own name."""
    resized = surface.resize(decoded, huge.order.made.size)
    raster.rename(resized, name)
    raster.remove(decoded.path)


def _stored(folder: Path, name: str) -> Raster | None:
    return raster.reopen(folder / name) if (folder / name).exists() else None


def _clear(folder: Path, size: Size) -> None:
    """Remove the rasters of other octaves than that of `size`, which nothing needs any more."""
    mark = f"-{size[0]}x{size[1]}"
    for path in folder.iterdir():
        if path.is_dir() and "x" in path.name and mark not in path.name:
            raster.remove(path)


def _write(huge: Huge) -> None:
    """Encode the dream, beside its place, and put it there when it is whole."""
    folder, order = huge.folder, huge.order
    entry = journal.last(folder)
    assert entry is not None
    dream, photograph = raster.reopen(folder / entry.dream), raster.reopen(folder / "photograph")
    alpha = _stored(folder, "alpha")
    levels = folder / "levels.tif"

    def finished(block: Block) -> Part:
        pixels = strips.finished(block, dream, photograph, order.recipe)
        return pixels if alpha is None else torch.cat([pixels, alpha.read(*block)])

    try:
        shape = (4 if alpha else 3, *dream.size)
        files.pack(map(finished, strips.blocks(dream.size)), shape, order.bits, levels)
    except OSError as error:
        raise StoreError(f"{levels} could not be written: {error}") from error
    files.save(levels, order.bits, huge.output, record.to_toml(order.recipe, order.made))
