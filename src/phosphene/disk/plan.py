"""What a dream on disk is to become, in a folder that says so, and the room that it takes."""

import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

import torch
from pydantic import ValidationError

from phosphene import imagefile
from phosphene.disk import journal, raster
from phosphene.disk.strips import BLOCK
from phosphene.dreaming.exact_sums import SEGMENT
from phosphene.dreaming.stages import Stage, Stages
from phosphene.dreaming.tiling import round_up
from phosphene.errors import StoreError, UsageError
from phosphene.places import check_folder, check_writable, seen_from
from phosphene.recipe.own import bound_norm
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe, Settings
from phosphene.setup.builders import bind, stages_of
from phosphene.setup.memory import PIXEL, spell_bytes
from phosphene.setup.session import choose_device, contents, load_network, needs_top, seen_guide
from phosphene.setup.source import mask_checksum
from phosphene.types import Size

RASTERS, RASTERS_OF_ONE_OCTAVE = 9, 4
"""Rasters of the whole size that are on disk at most, beside one for each gradient and the decoded input."""

STRIP_COPIES = 8
"""Strips of full width, or blocks, in memory at the height of resizing, decoding and encoding, or of a norm."""

PLAN = "plan.json"


class Plan(Settings):
    """All that it takes to make a picture, written once into its folder. Files are named as from `place`."""

    place: str
    recipe: Recipe
    made: Made
    output: str | None
    bits: Literal[8, 16] = 8
    device: str = "auto"
    has_alpha: bool
    """Whether the photograph has alpha, so that it is missed where it is lost."""

    @property
    def source(self) -> str:
        """The photograph, as it is found from anywhere."""
        return seen_from(self.place, self.made.source)


@dataclass(frozen=True)
class Scratch:
    """The folder that a dream lives in."""

    path: Path

    def release(self) -> None:
        """Have the folder removed with the last that refers to it."""
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def place(plan: Plan, needed: int) -> Scratch:
    """Find a place for a new dream: beside its output, so that it can be gone on with, or one for this process alone.

    `StoreError` where there is no room for the bytes that are `needed`, `UsageError` where a dream was not finished.
    """
    if plan.output is None:
        try:
            scratch = Scratch(Path(mkdtemp(prefix="phosphene-")))
        except OSError as error:
            raise StoreError(f"there is no folder for temporary files: give an output ({error})") from error
        scratch.release()
    else:
        scratch = Scratch(Path(f"{plan.output}.phosphene"))
        check_new(scratch.path, PLAN, "dream")
    check_room(scratch.path, needed)
    return scratch


def begin(plan: Plan, scratch: Scratch) -> None:
    """Make the folder of a new dream, with its plan."""
    create(scratch.path, PLAN, "dream")
    journal.put(scratch.path / PLAN, plan.model_dump_json())


def reopen(folder: Path) -> Plan:
    """Find a dream to go on with. Raises where there is none, or where what it was made from has changed."""
    if (text := journal.get(folder / PLAN)) is None:
        raise UsageError(f"there is no dream to go on with in {str(folder)!r}")
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(f"the plan in {folder} is of another version of Phosphene: begin again") from error
    made, recipe = plan.made, plan.recipe
    if plan.output is not None:  # beside the folder, wherever that is seen from
        plan = plan.model_copy(update={"output": str(folder.parent / Path(plan.output).name)})
    bound_norm(recipe.norm)  # raises where a custom one was not given
    _check_place(folder, plan)
    source = plan.source if is_file(made.source) else None
    for kind, path, kept, found in (
        ("photograph", source, made.source_sha256, source and imagefile.checksum(source)),
        ("guide", recipe.guide, made.guide_sha256, recipe.guide and imagefile.checksum(recipe.guide)),
        ("mask", recipe.mask, made.mask_sha256, mask_checksum(recipe.mask, made.size)),
    ):
        if path is not None and found != kept:
            raise StoreError(f"the {kind} {path!r} has changed since the dream began: put it back, or begin again")
    device = str(choose_device(plan.device))
    if load_network(recipe.eye, recipe.seed, device, needs_top(recipe)).weights != made.weights:
        raise StoreError(
            f"the weights {recipe.weights!r} have changed since the dream began: put them back, or begin again"
        )
    return plan


def _check_place(folder: Path, plan: Plan) -> None:
    """Raise where a file that a step needs is found only from the folder in which the dream began."""
    for name in filter(None, (plan.recipe.weights, plan.recipe.guide, plan.recipe.mask)):
        if Path(plan.place, name).exists() and not Path(name).exists():
            raise UsageError(
                f"{str(folder)!r} was begun in {plan.place!r}, where {name!r} is: go on with it from there"
            )


def is_file(source: str) -> bool:
    """Whether a source can be read from a file again: neither an array nor noise."""
    return source != "array" and not source.startswith("noise:")


def strip_bytes(width: int) -> int:
    """Estimate the bytes of memory that the strips and blocks of a picture of `width` px take."""
    return STRIP_COPIES * PIXEL * max(raster.STRIP * width, BLOCK * SEGMENT)


def disk_bytes(recipe: Recipe, source: Size, size: Size, gradients: int = 1) -> int:
    """Return the bytes on disk that a dream takes at most, its output aside, with so many gradients in a step."""
    pixels = round_up(size[0], raster.STRIP) * round_up(size[1], raster.CHUNK_COLUMNS)
    rasters = RASTERS if recipe.octaves > 1 else RASTERS_OF_ONE_OCTAVE
    return PIXEL * (pixels * (rasters + gradients) + source[0] * source[1]) + 4 * pixels


def stages_in(recipe: Recipe, device: str, size: Size) -> Sequence[Stage]:
    """Return the stages of a recipe for a picture of a size; whoever asks has them from its own process."""
    return _bound(recipe, device, contents(recipe))(size)


@lru_cache(maxsize=2)
def _bound(recipe: Recipe, device: str, contents: object) -> Stages:
    """Load the network of a recipe and bind it; kept, so that a process does it once for the same contents."""
    network = load_network(recipe.eye, recipe.seed, device, needs_top(recipe))
    guide = seen_guide(recipe, torch.device(device))
    return stages_of(network, bind(recipe, network, guide), recipe)


def check_room(folder: Path, needed: int) -> None:
    """Raise `StoreError` where the disk has not room enough."""
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise StoreError(f"{folder} needs {spell_bytes(needed)} on disk, and {spell_bytes(free)} are free")


def check_new(folder: Path, plan: str, kind: str) -> None:
    """Raise `UsageError` where a `kind` that was not finished is in a folder, `ImageError` where it is read-only."""
    check_folder(folder)
    check_writable(folder)
    if (folder / plan).exists():
        raise UsageError(
            f"{folder} holds a {kind} that was not finished: `phosphene resume {folder}` goes on with it; "
            f"remove the folder to begin again"
        )


def create(folder: Path, plan: str, kind: str) -> None:
    """Make the folder of something new, a `kind`; `UsageError` where one that was not finished is in it."""
    check_new(folder, plan, kind)
    try:
        folder.mkdir(exist_ok=True)
        for entry in folder.glob("journal*.json"):  # of a folder that was not removed whole
            entry.unlink()
    except OSError as error:
        raise StoreError(f"{folder} could not be made: {error}") from error
