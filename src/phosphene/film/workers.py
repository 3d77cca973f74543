"""Frames by several processes, here or on a cluster: each dreams stretches that begin with a scene, or anywhere if
nothing is carried over.

A stretch has a journal of its own in the film's folder, so one that was dreamed before the film was stopped is there.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from phosphene import imagefile
from phosphene.cluster import Submit, cluster_pool
from phosphene.dreaming.resample import resize
from phosphene.dreaming.strength import rms_change
from phosphene.errors import BrokenFilmError, StoreError
from phosphene.film.carry import levelled
from phosphene.film.film import Film
from phosphene.film.frames import Frame, Stopped, dream_frames
from phosphene.film.journal import keep, last, read
from phosphene.film.motion import consistency_mask, dis, is_cut
from phosphene.film.plan import PLAN, reopen
from phosphene.malloc import keep_freed
from phosphene.networks.registry import introduce
from phosphene.types import Image, Stop

T = TypeVar("T")

STRETCHES = 4
"""Stretches for each worker, where frames stand alone."""

LOOK = 0.05
"""Seconds between two looks whether a frame is there."""


@dataclass(frozen=True)
class Stretch:
    """Frames from `first` on, of which `size` are dreamed one after the other, and who dreams them."""

    first: int
    size: int
    done: "Future[None]"


def side_by_side(
    film: Film, folder: Path, workers: int, cluster: str | None, device: str, stop: Stop | None
) -> Iterator[Frame]:
    """Yield a film's frames in order, dreamed by `workers` processes here, or by those of a Ray cluster.

    They are those that one process dreams. Raises `Stopped` once `stop` is set, and `BrokenFilmError` after the last
    frame of a film that breaks off.
    """
    stop = stop or threading.Event()
    with (
        cluster_pool(cluster, device) if cluster else processes(workers, folder) as (submit, count),
        closing(_taken_ahead(partial(_ordered, film, folder, submit, count), stop)) as stretches,
    ):
        frames = _frames(film)
        for stretch in stretches:
            for index, (pts, photograph) in enumerate(islice(frames, stretch.size), start=stretch.first):
                strength = _strength(folder, stretch, index, stop)
                found = read(folder, index, photograph, strength)
                change = rms_change(found.dream, photograph)
                time = film.seconds_of(pts)
                yield Frame(index, pts, time, found.dream, photograph, index == stretch.first, change, found)


@contextmanager
def processes(count: int, folder: Path) -> Iterator[tuple[Submit, int]]:
    """Within, there are `count` processes on this machine, of one thread each, for a film in `folder`."""
    context = multiprocessing.get_context("spawn")
    stopped = context.Event()
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(stopped,))
    try:
        yield pool.submit, count
    except BrokenProcessPool as error:
        raise StoreError(
            f"a worker was killed, as when memory runs out: `phosphene resume {folder}` goes on"
        ) from error
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _taken_ahead(items: Callable[[Callable[[], bool]], Iterator[T]], stop: Stop) -> Generator[T]:
    """Yield what a thread takes from `items(stopped)` as fast as it can; what it raises is raised here, in its turn."""
    taken: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    ended = threading.Event()

    def take() -> None:
        try:
            for item in items(lambda: stop.is_set() or ended.is_set()):
                taken.put((item, None))
            taken.put((None, None))
        except BaseException as error:
            taken.put((None, error))

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while (next_taken := taken.get()) != (None, None):
            item, error = next_taken
            if error is not None:
                raise error
            assert item is not None
            yield item
    finally:
        ended.set()
        thread.join()


def _ordered(film: Film, folder: Path, submit: Submit, workers: int, stopped: Callable[[], bool]) -> Iterator[Stretch]:
    """Have the stretches of a film dreamed, each as soon as its end is known, and yield them.

    Raises `Stopped` once it is `stopped`, and `BrokenFilmError` after the last stretch of a film that breaks off.
    """
    first, size, plan = 1, 0, imagefile.checksum(folder / PLAN)

    def order() -> Stretch:
        return Stretch(first, size, submit(_dream, folder, first, size, film.recipe.model, plan))

    broken, before = None, None
    try:
        for _, frame in _frames(film):
            if stopped():
                raise Stopped
            if before is not None and _ends(film, workers, size, before, frame):
                yield order()
                first, size = first + size, 0
            before, size = frame, size + 1
    except BrokenFilmError as error:
        broken = error
    if size:
        yield order()
    if broken is not None:
        raise broken


def _ends(film: Film, workers: int, size: int, before: Image, frame: Image) -> bool:
    """Whether a stretch of `size` frames that ends with `before` need not go on with `frame`."""
    if not film.asked.motion.carry:
        return size >= film.footage.frames / (STRETCHES * workers)
    return is_cut(consistency_mask(dis(frame, before), dis(before, frame)))


def _frames(film: Film) -> Iterator[tuple[int, Image]]:
    """The frames as they are dreamed, and when they are shown."""
    for shot, _ in film.shots():
        yield shot.pts, levelled(resize(shot.image, film.size))


def _strength(folder: Path, stretch: Stretch, index: int, stop: Stop) -> float:
    """Wait for a frame, and return the strength of its scene."""
    while (entry := last(folder, stretch.first)).frames < index:
        if stop.is_set():
            raise Stopped
        if stretch.done.done():
            stretch.done.result()
        time.sleep(LOOK)
    return entry.strength


# --- in the worker

_stopped: Any = None


def _begin(stopped: Any) -> None:
    """Make a process ready: one thread, an end with its parent's, and no ear for Ctrl-C, which is for the parent."""
    global _stopped
    _stopped = stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@lru_cache(maxsize=1)
def _film(folder: Path, model: str, plan: str) -> Film:
    """Find a film; kept for as long as its plan has the checksum `plan`."""
    introduce(model)  # the parent has; it may be a custom one
    film = reopen(folder).film
    assert isinstance(film, Film)
    return film


def _dream(folder: Path, first: int, size: int, model: str, plan: str) -> None:
    """Dream a stretch as far as it is not there."""
    film, done = _film(folder, model, plan), last(folder, first)
    if done.frames >= first + size - 1:
        return
    shots = islice(film.shots(), first - 1, first - 1 + size)
    frames = dream_frames(
        shots,
        film.seconds_of,
        film.moments,
        film.asked.motion,
        first=first,
        stored=lambda index, frame: read(folder, index, frame, done.strength) if index <= done.frames else None,
        stop=_stopped,
    )
    try:
        for frame in frames:
            if frame.index > done.frames:
                keep(folder, frame, first)
    except Stopped:
        return
