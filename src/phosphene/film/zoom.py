"""The endless zoom: keys are dreamed, each from the inner part of the one before it, and frames are cut out of them.

Only keys are kept on the disk; frames cost little, and are cut again where a zoom goes on.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from phosphene.disk import journal
from phosphene.dreaming.pyramid import fitted_size
from phosphene.errors import UsageError
from phosphene.film import sink
from phosphene.film.asked import AskedZoom
from phosphene.film.carry import Carried, levelled
from phosphene.film.footage import Colour, Footage
from phosphene.film.frames import Frame, dreamed
from phosphene.film.geometry import Course
from phosphene.film.journal import ENTRY, Entry, last
from phosphene.film.moments import Moments
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe
from phosphene.setup.source import read
from phosphene.types import Image, Limit, Size, Stop

KEY = "key-{:05d}.png"

RETURN = 8
"""How many times smaller than itself the photograph is when it comes up in a loop's own dream."""


@dataclass(frozen=True)
class Zoomed:
    """A zoom, ready to be made or to go on."""

    asked: AskedZoom
    photograph: Image
    course: Course
    moments: Moments
    recipe: Recipe
    made: Made
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """Height and width of a frame."""
        return self.course.size

    @property
    def disk_bytes(self) -> int:
        """What it takes on disk at most: its keys and itself."""
        keys, frames = (self.course.keys + 1) * math.prod(self.course.key_size), self.course.frames
        return 3 * (keys + frames * math.prod(self.size))

    @property
    def footage(self) -> Footage:
        """The zoom as a film: its times, and no sound."""
        rate = Fraction(self.asked.zoom.fps).limit_denominator(1001)
        return Footage(
            source=self.asked.source,
            sha256=self.made.source_sha256,
            size=self.size,
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
    def pace(self) -> int:
        """How many frames show what a frame takes: those until a key has been dreamed after the first frame."""
        return math.ceil(self.course.step * self.asked.zoom.fps) + 1

    def there(self, folder: Path) -> int:
        """Return how many frames can be cut out of the keys that are in a folder already."""
        return math.ceil(max(0, last(folder).frames - 1) * self.course.step * self.asked.zoom.fps)


def prepare(asked: AskedZoom, output: Path, device: str = "auto", memory: Limit | None = None) -> Zoomed:
    """Read the photograph, load the network, and lay out the keys. All that can be wrong is found here."""
    timeline = asked.timeline
    timeline.check()
    recipe = timeline.at(0.0)[0]
    if recipe.mask is not None:
        raise UsageError("a zoom takes no mask: what it hides would leave the picture")
    photo = read(asked.source, torch.Generator().manual_seed(recipe.seed))
    source_size: Size = (photo.image.shape[1], photo.image.shape[2])
    course = Course(asked.zoom, sink.fitting(output, fitted_size(source_size, recipe)))
    height, width = course.key_size
    moments = Moments(timeline, (height, width), device, memory)
    job = moments.job(0.0, torch.full((3, height, width), 0.5), None, torch.Generator())
    facts = {"source": photo.source, "source_sha256": photo.sha256, "source_size": source_size, "size": course.size}
    made, recipe = job.made.model_copy(update=facts), job.recipe.but(size=recipe.size)
    note = f"frames are cut out of {course.keys + 1} pictures of {width} x {height} px"
    return Zoomed(asked, photo.image, course, moments, recipe, made, (*photo.notes, *job.notes, note))


def frames(zoom: Zoomed, folder: Path, stop: Stop | None = None) -> Iterator[Frame]:
    """Cut the frames, as soon as the keys that they lie between are in the folder."""
    course, found = zoom.course, keys(zoom, folder, stop)
    number, before, after = 1, next(found), next(found)
    for index in range(course.frames):
        moment = index / zoom.asked.zoom.fps
        while number < course.keys and moment >= number * course.step:
            number, before, after = number + 1, after, next(found)
        image = levelled(course.frame(moment, number - 1, before, after))
        carried = Carried(image, image, torch.ones(image.shape[1:]), 0.0)
        yield Frame(index + 1, index, moment, image, image, index == 0, 0.0, carried)


def keys(zoom: Zoomed, folder: Path, stop: Stop | None = None) -> Iterator[Image]:
    """Dream the keys, or read those that are in the folder."""
    done, first, key = last(folder).frames, None, None
    for number in range(zoom.course.keys + 1):
        path = folder / KEY.format(number)
        if number < done:
            key = sink.get_picture(path).image
        else:
            key = levelled(_key(zoom, number, key, first, stop))
            sink.put_picture(path, key)
            journal.put(folder / ENTRY, Entry(frames=number + 1).model_dump_json())
        first = key if first is None else first
        yield key


def _key(zoom: Zoomed, number: int, before: Image | None, first: Image | None, stop: Stop | None) -> Image:
    """Dream one key: the first one whole, and the others on from the inner part of the one before."""
    course, asked, moments = zoom.course, zoom.asked.zoom, zoom.moments
    moment = number * course.step
    rng = torch.Generator().manual_seed(zoom.recipe.seed + number)
    if before is None or first is None:
        return dreamed(moments.job(moment, course.key_of(zoom.photograph), None, rng), stop)
    start = course.next_key(before, number)
    if asked.loop and course.ratio ** (course.keys - number) <= RETURN:
        start = course.with_end(start, number, first)
        if number == course.keys:
            return start
    few = {"steps": asked.key_steps, "octaves": asked.key_octaves}
    return exposed_as(dreamed(moments.job(moment, start, None, rng), stop, few), first)


def exposed_as(picture: Image, first: Image) -> Image:
    """Return a picture with each channel's mean and contrast as in the first one; nothing else keeps a zoom from
    burning out."""
    mean, spread = picture.mean((1, 2), keepdim=True), picture.std((1, 2), keepdim=True)
    wanted = first.std((1, 2), keepdim=True) / spread.clamp_min(1e-6)
    return ((picture - mean) * wanted + first.mean((1, 2), keepdim=True)).clamp(0, 1)
