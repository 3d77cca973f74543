"""What is asked for, and whether it can be had: the film, the place, the disk; and the folder that says so.

The folder lies beside the output. It holds the plan, a journal, and each frame as it is done.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
import torch
from pydantic import Field, ValidationError

from phosphene import imagefile
from phosphene.disk import journal
from phosphene.errors import StoreError, UsageError
from phosphene.film import sink
from phosphene.film.moments import Moments
from phosphene.film.settings import Motion, Part
from phosphene.film.sink import Sink
from phosphene.film.sound import levels_of
from phosphene.film.source import Footage, Shot, at_rate, look_at, shots
from phosphene.film.timeline import Timeline, follow_of, tracks_of
from phosphene.imagefile import Photo
from phosphene.places import check_folder
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe, Settings
from phosphene.setup.memory import spell_bytes
from phosphene.types import Plane, Size

PLAN = "film.json"

O = TypeVar("O", bound=Settings)  # noqa: E741

FRAME_BYTES = 3.2
"""Bytes of a pixel on disk at most: dreams are hard to compress without loss."""


class Asked(Settings):
    """What a person asked for, as it was said."""

    source: str
    given: dict[str, Any] = Field(default_factory=dict)
    look: str | None = None
    preset: str | None = None
    at: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    motion: Motion = Motion()
    part: Part = Part()

    @property
    def timeline(self) -> Timeline:
        """The settings over time; a film keeps its size unless another is asked for."""
        given = {"size": "full", **self.given}
        tracks = tracks_of(self.at)
        still = Timeline(given, self.look, self.preset, tracks).at(0)[0]
        return Timeline(given, self.look, self.preset, tracks, tuple(follow_of(text, still) for text in self.follow))


class Plan(Settings):
    """All that it takes to make a film; written once into its folder."""

    asked: Asked
    recipe: Recipe
    made: Made
    output: str
    device: str = "auto"
    memory: str | None = None
    workers: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Film:
    """A film, ready to be dreamed or to go on."""

    asked: Asked
    footage: Footage
    moments: Moments
    recipe: Recipe
    made: Made
    notes: tuple[str, ...] = ()

    def shots(self) -> Iterator[tuple[Shot, Plane | None]]:
        """Read the frames, each with its mask."""
        found = zip(shots(self.footage), masks(self.recipe.mask, self.moments.size), strict=False)
        return found if self.footage.own_base is None else at_rate(found, self.footage)

    def seconds_of(self, pts: int) -> float:
        """Return a frame's time in seconds."""
        return float(pts * self.footage.time_base)

    @property
    def text(self) -> str:
        """The recipe as the film's file carries it: TOML, settings first."""
        return recipe_text(self.asked, self.recipe, self.made)


def recipe_text(asked: Settings, recipe: Recipe, made: Made) -> str:
    """Spell what was asked for, the recipe, and how it was made, as TOML: settings first."""
    words = asked.model_dump(mode="json", exclude_none=True, exclude={"source", "given", "look", "preset"})
    settings = recipe.model_dump(mode="json", exclude_none=True)
    return tomli_w.dumps({**settings, "film": words, "made": made.model_dump(mode="json", exclude_none=True)})


@dataclass(frozen=True)
class Run:
    """A film and the folder in which it is dreamed."""

    film: Film
    folder: Path
    output: Path
    notes: tuple[str, ...] = ()
    workers: int = 1

    def sink(self) -> Sink:
        """Open what takes the frames."""
        film = self.film
        return sink.sink_for(self.folder, self.output, film.moments.size, film.footage, film.text)


def prepare(asked: Asked, *, output: Path | None = None, device: str = "auto", memory: str | None = None) -> Film:
    """Look at a film, load the network, and bind the two. All that can be wrong is found here."""
    timeline = asked.timeline
    footage = look_at(asked.source, asked.part)
    levels = levels_of(footage, {follow.band for follow in timeline.follows}) if timeline.follows else None
    recipe = timeline.at(0.0)[0]
    size = fitted(footage.size, recipe)
    size = size if output is None else sink.fitting(output, size)
    moments = Moments(timeline, size, device, memory, levels)
    blank = torch.full((3, *size), 0.5)
    job = moments.job(0.0, blank, None, torch.Generator())
    made = job.made.model_copy(
        update={
            "source": asked.source,
            "source_sha256": footage.sha256,
            "source_size": footage.size,
            "mask_sha256": look_at_mask(recipe.mask),
        }
    )
    for time in {time for keys in timeline.tracks.values() for time, _ in keys}:
        timeline.at(time)
    recipe = job.recipe.but(mask=recipe.mask, size=recipe.size)
    return Film(asked, footage, moments, recipe, made, (*footage.notes, *job.notes))


def begin(
    asked: Asked,
    output: Path,
    *,
    device: str = "auto",
    memory: str | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> Run:
    """Make the folder of a new film beside `output`, and say what there is to know before the first frame."""
    if workers < 1:
        raise UsageError(f"{workers} workers dream nothing: give 1 or more")
    check_folder(asked.source)
    sink.check_output(output, overwrite)
    film = prepare(asked, output=output, device=device, memory=memory)
    folder = output.with_name(f"{output.name}.phosphene")
    needed = disk_bytes(film)
    check_room(folder, needed)
    create(folder)
    plan = Plan(
        asked=asked,
        recipe=film.recipe,
        made=film.made,
        output=str(output),
        device=device,
        memory=memory,
        workers=workers,
    )
    journal.put(folder / PLAN, plan.model_dump_json())
    size, wanted = film.moments.size, fitted(film.footage.size, film.recipe)
    even = f"{output.suffix} holds even sides: {size[1]} x {size[0]} px, not {wanted[1]} x {wanted[0]}"
    notes = (
        *film.notes,
        *((even,) if size != wanted else ()),
        *sink.sound_notes(output, film.footage),
        f"{film.footage.frames} frames of {size[1]} x {size[0]} px; up to {spell_bytes(needed)} on disk, in {folder}",
    )
    return Run(film, folder, output, notes, workers)


def reopen(folder: Path) -> Run:
    """Find a film to go on with. Raises where there is none, or where what it is made from has changed."""
    plan = read_plan(folder / PLAN, Plan)
    film = prepare(plan.asked, output=Path(plan.output), device=plan.device, memory=plan.memory)
    for kind, then, now in (
        ("film", plan.made.source_sha256, film.made.source_sha256),
        ("mask", plan.made.mask_sha256, film.made.mask_sha256),
        ("guide", plan.made.guide_sha256, film.made.guide_sha256),
    ):
        if then != now:
            raise StoreError(f"the {kind} has changed since the dream began: put it back, or begin again")
    return Run(film, folder, Path(plan.output), film.notes, plan.workers)


def read_plan(path: Path, kind: type[O]) -> O:
    """Read the plan in a film's folder."""
    if (text := journal.get(path)) is None:
        raise UsageError(f"there is no film to go on with in {str(path.parent)!r}")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(f"the plan in {path.parent} is of another version of Phosphene: begin again") from error


def disk_bytes(film: Film) -> int:
    """Return the bytes on disk that a film takes at most, its frames and itself."""
    height, width = film.moments.size
    return int(film.footage.frames * height * width * (FRAME_BYTES + 1))


def fitted(size: Size, recipe: Recipe) -> Size:
    """Return the size at which a recipe dreams a film of `size`."""
    scale = 1.0 if recipe.size == "full" else recipe.size / max(size)
    if scale == 1 or (scale > 1 and not recipe.enlarge):
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def masks(mask: str | None, size: Size) -> Iterator[Plane | None]:
    """Give a mask for each frame, for ever: a picture, or a film whose last frame stays."""
    if mask is None or imagefile.is_image(Path(mask)):
        still = None if mask is None else imagefile.as_mask(imagefile.read(mask), size)
        while True:
            yield still
    for shot in shots(look_at(mask)):
        plane = imagefile.as_mask(Photo(shot.image, None, mask, "", ()), size)
        yield plane
    while True:
        yield plane


def look_at_mask(mask: str | None) -> str | None:
    """Return the checksum of a mask, which may be a film; raises where it is neither film nor picture."""
    if mask is None:
        return None
    return imagefile.checksum(mask) if imagefile.is_image(Path(mask)) else look_at(mask).sha256


def check_room(folder: Path, needed: int) -> None:
    """Raise `StoreError` where the disk has not room enough."""
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise StoreError(f"{folder} needs {spell_bytes(needed)} on disk, and {spell_bytes(free)} are free")


def create(folder: Path) -> None:
    """Make the folder of a film; `UsageError` where one that was not finished is in it."""
    if any((folder / name).exists() for name in ("film.json", "zoom.json")):
        raise UsageError(
            f"{folder} holds a film that was not finished: `phosphene resume {folder}` goes on with it; "
            f"remove the folder to begin again"
        )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} could not be made: {error}") from error
