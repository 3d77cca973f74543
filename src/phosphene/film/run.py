"""From what is asked to a film or a zoom: its frames, one after the other, into the file."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from phosphene.disk import journal
from phosphene.errors import BrokenFilmError, StoreError
from phosphene.film.carry import Carried
from phosphene.film.film import Film
from phosphene.film.frames import Frame, Stopped, dream_frames
from phosphene.film.journal import keep, last, read
from phosphene.film.plan import Run
from phosphene.film.workers import side_by_side
from phosphene.film.zoom import Zoomed
from phosphene.film.zoom import frames as zoomed_frames
from phosphene.types import Image, Stop


@dataclass(frozen=True)
class FilmProgress:
    """How far a film is: the newest frame, of how many, the seconds since it began, and its file's bytes so far.

    `dreamed` is how many of the frames this run has dreamed itself; the first of them was there at `first`, in
    seconds.
    """

    frame: Frame
    frames: int
    dreamed: int
    pace: int
    first: float
    seconds: float
    bytes: int

    @property
    def seconds_left(self) -> float | None:
        """An estimate, without the first frame, which takes longer; None until there are `pace` frames to judge by."""
        if self.dreamed < self.pace:
            return None
        return (self.seconds - self.first) / (self.dreamed - 1) * max(self.frames - self.frame.index, 0)

    @property
    def whole_bytes(self) -> int:
        """An estimate of how large the film will be."""
        return self.bytes * max(self.frames, self.frame.index) // self.frame.index


def run(run: Run, on_frame: Callable[[FilmProgress], None] | None = None, stop: Stop | None = None) -> Path | None:
    """Dream until the film is written, and return where it is.

    Returns None where `stop` ended it early: the folder is left to go on from. Raises `BrokenFilmError` for a film that
    breaks off; what came before is written.
    """
    with journal.locked(run.folder):
        try:
            _dream(run, on_frame, stop)
        except Stopped:
            return None
        except BrokenFilmError:
            shutil.rmtree(run.folder)
            raise
        shutil.rmtree(run.folder)
    return run.output


def _dream(run: Run, on_frame: Callable[[FilmProgress], None] | None, stop: Stop | None) -> None:
    film, sink, began, count, first = run.film, run.sink(), time.perf_counter(), 0, 0.0
    there = film.there(run.folder)
    try:
        for frame in _frames(run, stop):
            with _writing(run):
                sink.add(frame.image, frame.pts)
            count = frame.index
            dreamed = max(0, count - there)
            seconds = time.perf_counter() - began
            first = seconds if dreamed <= 1 else first
            if on_frame is not None:
                on_frame(FilmProgress(frame, film.footage.frames, dreamed, film.pace, first, seconds, sink.bytes))
    except BrokenFilmError as error:
        if not count:
            raise
        with _writing(run):
            sink.close(run.output)
        raise BrokenFilmError(f"{error}; what came before is in {run.output}") from error
    if not count:
        raise BrokenFilmError(f"{film.footage.source!r} has no frame in the part that is asked for")
    with _writing(run):
        sink.close(run.output)


@contextmanager
def _writing(run: Run) -> Iterator[None]:
    """Within, what cannot be written, as where the disk is full or an encoder refuses, is a `StoreError`."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        raise StoreError(
            f"{str(run.output)!r} could not be written ({error.strerror or error}): `phosphene resume {run.folder}` "
            f"goes on once it can be"
        ) from error


def _frames(run: Run, stop: Stop | None) -> Iterator[Frame]:
    if isinstance(run.film, Zoomed):
        return zoomed_frames(run.film, run.folder, stop)
    if run.workers > 1 or run.cluster:
        return side_by_side(run.film, run.folder, run.workers, run.cluster, run.device, stop)
    return _one_by_one(run.film, run.folder, stop)


def _one_by_one(film: Film, folder: Path, stop: Stop | None) -> Iterator[Frame]:
    """Dream the frames in this process, as far as they are not in the folder."""
    entry = last(folder)

    def stored(index: int, frame: Image) -> Carried | None:
        return read(folder, index, frame, entry.strength) if index <= entry.frames else None

    for frame in dream_frames(film.shots(), film.seconds_of, film.moments, film.asked.motion, stored=stored, stop=stop):
        if frame.index > entry.frames:
            keep(folder, frame)
        yield frame
