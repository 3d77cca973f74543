"""The endless zoom: keys are dreamed, each from the inner part of the one before it, and frames are cut out of them.

Only keys are kept on the disk; frames cost little, and are cut again where a film goes on.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from phosphene import imagefile
from phosphene.disk import journal
from phosphene.errors import UsageError
from phosphene.film import sink
from phosphene.film.carry import Carried, levelled
from phosphene.film.frames import Frame, Stopped, dreamed
from phosphene.film.geometry import Course
from phosphene.film.journal import ENTRY, Entry, last
from phosphene.film.moments import Moments
from phosphene.film.plan import check_room, create, fitted, read_plan, recipe_text
from phosphene.film.run import Reached
from phosphene.film.settings import SIDE, Zoom
from phosphene.film.sink import Sink
from phosphene.film.source import Colour, Footage
from phosphene.film.timeline import Timeline, tracks_of
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe, Settings
from phosphene.setup.source import read
from phosphene.types import Image, Size

PLAN = "zoom.json"

KEY = "key-{:05d}.png"

RETURN = 8
"""How many times smaller than itself the photograph is when it comes up in a loop's own dream."""


class Asked(Settings):
    """What a person asked for, as it was said."""

    source: str
    given: dict[str, Any] = Field(default_factory=dict)
    look: str | None = None
    preset: str | None = None
    at: tuple[str, ...] = ()
    zoom: Zoom = Zoom()

    @property
    def settings(self) -> Timeline:
        """The settings over time."""
        return Timeline({"size": SIDE, **self.given}, self.look, self.preset, tracks_of(self.at))


class Plan(Settings):
    """All that it takes to make a zoom; written once into its folder."""

    asked: Asked
    recipe: Recipe
    made: Made
    output: str
    device: str = "auto"
    memory: str | None = None


@dataclass(frozen=True)
class Run:
    """A zoom, ready to be dreamed or to go on, and the folder in which it is."""

    asked: Asked
    photograph: Image
    course: Course
    moments: Moments
    recipe: Recipe
    made: Made
    folder: Path
    output: Path
    notes: tuple[str, ...] = ()

    @property
    def footage(self) -> Footage:
        """The zoom as a film: its times, and no sound."""
        rate = Fraction(self.asked.zoom.fps).limit_denominator(1001)
        return Footage(
            source=self.asked.source,
            sha256=self.made.source_sha256,
            size=self.course.size,
            frames=self.course.frames,
            rate=rate,
            time_base=1 / rate,
            seconds=self.course.seconds,
            aspect=Fraction(1),
            colour=Colour(),
            sound=(),
            notes=(),
            stills=(self.asked.source,),
        )

    @property
    def text(self) -> str:
        """The recipe as the film's file carries it."""
        return recipe_text(self.asked, self.recipe, self.made)

    def sink(self) -> Sink:
        """Open what takes the frames."""
        return sink.sink_for(self.folder, self.output, self.course.size, self.footage, self.text)


def begin(
    asked: Asked, output: Path, *, device: str = "auto", memory: str | None = None, overwrite: bool = False
) -> Run:
    """Make the folder of a new zoom beside `output`. All that can be wrong is found here."""
    sink.check_output(output, overwrite)
    ready = prepare(asked, output, device, memory)
    height, width = ready.course.key_size
    needed = int((ready.course.keys + 1) * height * width * 3 + ready.course.frames * 3 * ready.course.size[0] * 640)
    check_room(ready.folder, needed)
    create(ready.folder)
    plan = Plan(asked=asked, recipe=ready.recipe, made=ready.made, output=str(output), device=device, memory=memory)
    journal.put(ready.folder / PLAN, plan.model_dump_json())
    return ready


def prepare(asked: Asked, output: Path, device: str = "auto", memory: str | None = None) -> Run:
    """Read the photograph, load the network, and lay out the keys."""
    settings = asked.settings
    recipe = settings.at(0.0)[0]
    if recipe.mask is not None:
        raise UsageError("a zoom takes no mask: what it hides would leave the picture")
    photo = read(asked.source, torch.Generator().manual_seed(recipe.seed))
    source_size: Size = (photo.image.shape[1], photo.image.shape[2])
    size = sink.fitting(output, fitted(source_size, recipe))
    course = Course(asked.zoom, size)
    moments = Moments(settings, course.key_size, device, memory)
    job = moments.job(0.0, torch.full((3, *course.key_size), 0.5), None, torch.Generator())
    made = job.made.model_copy(
        update={
            "source": photo.source,
            "source_sha256": photo.sha256,
            "source_size": source_size,
            "size": size,
        }
    )
    height, width = course.key_size
    note = (
        f"{course.frames} frames of {size[1]} x {size[0]} px, cut out of {course.keys + 1} pictures "
        f"of {width} x {height} px"
    )
    recipe = job.recipe.but(size=recipe.size)
    folder = output.with_name(f"{output.name}.phosphene")
    return Run(asked, photo.image, course, moments, recipe, made, folder, output, (*photo.notes, *job.notes, note))


def reopen(folder: Path) -> Run:
    """Find a zoom to go on with. Raises where there is none, or where its photograph has changed."""
    plan = read_plan(folder / PLAN, Plan)
    ready = prepare(plan.asked, Path(plan.output), plan.device, plan.memory)
    if ready.made.source_sha256 != plan.made.source_sha256:
        raise UsageError(f"the photograph {plan.asked.source!r} has changed since the zoom began: put it back")
    return ready


def run(
    ready: Run, on_frame: Callable[[Reached], None] | None = None, stop: threading.Event | None = None
) -> Path | None:
    """Zoom until the film is written, and return where it is; None where `stop` ended it early."""
    with journal.locked(ready.folder):
        try:
            film, began = ready.sink(), time.perf_counter()
            kept = last(ready.folder).frames
            for frame, key in frames(ready, stop):
                film.add(frame.image, frame.pts)
                if on_frame is not None:
                    new = 0 if key <= kept else frame.index
                    on_frame(Reached(frame, ready.course.frames, new, time.perf_counter() - began, film.bytes))
        except Stopped:
            return None
        film.close(ready.output)
        shutil.rmtree(ready.folder)
    return ready.output


def frames(ready: Run, stop: threading.Event | None = None) -> Iterator[tuple[Frame, int]]:
    """Cut the frames, as soon as the keys that they lie between are there; each with the number of the later key."""
    course, found = ready.course, keys(ready, stop)
    number, before, after = 1, next(found), next(found)
    for index in range(course.frames):
        moment = index / ready.asked.zoom.fps
        while number < course.keys and moment >= number * course.step:
            number, before, after = number + 1, after, next(found)
        image = levelled(course.frame(moment, number - 1, before, after))
        carried = Carried(image, image, torch.ones(image.shape[1:]), 0.0)
        yield Frame(index + 1, index, moment, image, image, index == 0, 0.0, carried), number


def keys(ready: Run, stop: threading.Event | None = None) -> Iterator[Image]:
    """Dream the keys, or read those that are there."""
    course, done = ready.course, last(ready.folder).frames
    first = key = None
    for number in range(course.keys + 1):
        path = ready.folder / KEY.format(number)
        if number < done:
            key = imagefile.read(path).image
        else:
            key = levelled(_key(ready, number, key, first, stop))
            imagefile.write(path, key)
            journal.put(ready.folder / ENTRY, Entry(frames=number + 1).model_dump_json())
        first = key if first is None else first
        yield key


def _key(ready: Run, number: int, before: Image | None, first: Image | None, stop: threading.Event | None) -> Image:
    """Dream one key: the first one whole, and the others on from the inner part of the one before."""
    course, zoom, moments = ready.course, ready.asked.zoom, ready.moments
    moment = number * course.step
    rng = torch.Generator().manual_seed(ready.recipe.seed + number)
    if before is None or first is None:
        return dreamed(moments.job(moment, course.key_of(ready.photograph), None, rng), stop)
    start = course.next_key(before, number)
    if zoom.loop and course.ratio ** (course.keys - number) <= RETURN:
        start = course.with_end(start, number, first)
        if number == course.keys:
            return start
    few = {"steps": zoom.key_steps, "octaves": zoom.key_octaves}
    dream = dreamed(moments.job(moment, start, None, rng), stop, few)
    return exposed_as(dream, first)


def exposed_as(picture: Image, first: Image) -> Image:
    """Return a picture with each channel's mean and contrast as in the first one; nothing else keeps a zoom from
    burning out."""
    mean, spread = picture.mean((1, 2), keepdim=True), picture.std((1, 2), keepdim=True)
    wanted = first.std((1, 2), keepdim=True) / spread.clamp_min(1e-6)
    return ((picture - mean) * wanted + first.mean((1, 2), keepdim=True)).clamp(0, 1)
