"""The story of a film: frame by frame, dreamed whole where a scene begins, and carried on from there."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from phosphene.dreaming.resample import resize
from phosphene.dreaming.strength import held, rms_change
from phosphene.film.carry import Carried, after, carry, few_steps, first_of_scene, levelled
from phosphene.film.footage import Shot
from phosphene.film.moments import Moments
from phosphene.film.motion import Flow, dis
from phosphene.film.settings import Motion
from phosphene.job import MemoryJob
from phosphene.types import Image, Plane, Stop


class Stopped(Exception):  # noqa: N818
    """A film was stopped within a frame."""


@dataclass(frozen=True)
class Frame:
    """A dreamed frame: `index` counts from 1, `time` is in seconds; `image` and `photograph` are of 8 bits, 0..1.

    `begins` says that a scene begins with it, `change` how much it was changed (`rms_change`).
    """

    index: int
    pts: int
    time: float
    image: Image
    photograph: Image
    begins: bool
    change: float
    carried: Carried


Stored = Callable[[int, Image], Carried | None]
"""`stored(index, frame)`: what is there of a frame already."""


def dream_frames(
    shots: Iterable[tuple[Shot, Plane | None]],
    seconds_of: Callable[[int], float],
    moments: Moments,
    motion: Motion,
    *,
    flow: Flow = dis,
    first: int = 1,
    stored: Stored = lambda index, frame: None,
    stop: Stop | None = None,
) -> Iterator[Frame]:
    """Dream shots, each with its mask, one after the other; the first is a film's frame number `first`.

    Raises `Stopped` within a frame once `stop` is set.
    """
    last: Carried | None = None
    for index, (shot, mask) in enumerate(shots, start=first):
        time, frame = seconds_of(shot.pts), levelled(resize(shot.image, moments.size))
        found, begins = stored(index, frame), False
        if found is None:
            asked = motion.change if moments.change(time) is None else moments.change(time)
            seed = moments.timeline.at(time)[0].seed
            job = moments.job(time, frame, mask, torch.Generator().manual_seed(seed))
            if motion.carry:
                found, begins = _carried(last, job, seed + index, motion, asked, flow, stop)
            else:
                found, begins = _alone(job, asked, stop), True
        last = found
        yield Frame(index, shot.pts, time, found.dream, frame, begins, rms_change(found.dream, frame), found)


def _carried(
    last: Carried | None,
    job: MemoryJob,
    seed: int,
    motion: Motion,
    change: float | None,
    flow: Flow,
    stop: Stop | None,
) -> tuple[Carried, bool]:
    """Dream a frame on from the last one, or whole where a scene begins; say which."""
    start = None if last is None else carry(last, job.image.cpu(), flow)
    if start is None or last is None:
        return first_of_scene(job, dreamed(job, stop), change), True
    job.rng.manual_seed(seed)  # the same places would be looked at in each frame
    dream = dreamed(few_steps(job, start, motion.later_steps, motion.later_octaves), stop)
    return after(last, start, job, dream, change), False


def _alone(job: MemoryJob, change: float | None, stop: Stop | None) -> Carried:
    frame, dream = job.image.cpu(), dreamed(job, stop)
    if change is not None:
        dream = held(dream, frame, change, None if job.mask is None else job.mask.cpu())
    return Carried(frame, levelled(dream), torch.ones(frame.shape[1:]), 0.0)


def dreamed(job: MemoryJob, stop: Stop | None, few: Mapping[str, int] | None = None) -> Image:
    """Run a job, with fewer steps or octaves if they are named; raises `Stopped` after a step once `stop` is set."""
    if few is not None:
        job = replace(
            job, recipe=job.recipe.but(**{name: min(n, getattr(job.recipe, name)) for name, n in few.items()})
        )
    image = job.image
    for step in job.steps():
        image = step.image
        if stop is not None and stop.is_set():
            raise Stopped
    return resize(image, (job.image.shape[1], job.image.shape[2])).clamp(0, 1).cpu()
