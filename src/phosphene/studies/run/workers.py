"""Who dreams the cells: this process, several processes on this machine, or a Ray cluster.

Each takes cells and yields their events, in whatever order they come; what a cell gives does not depend on who
dreamed it. A worker that dies takes its own cell with it, and no other.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from phosphene.cluster import joined
from phosphene.imagefile import Photo
from phosphene.malloc import keep_freed
from phosphene.recipe.own import is_own
from phosphene.recipe.settings import Recipe
from phosphene.setup.session import choose_device, only_here
from phosphene.studies.run.cell import Ended, Event, dream_cell, failed
from phosphene.studies.study import Cell

Task = tuple[Cell, Photo, str]
"""The arguments of `dream_cell`."""

MOST_WORKERS = 8
"""Processes that are started where nobody says how many; each holds a network."""


def usual_workers(device: str) -> int:
    """As many as there are cores, for cells on the CPU; an accelerator is one cell's at a time."""
    return min(os.cpu_count() or 1, MOST_WORKERS) if choose_device(device).type == "cpu" else 1


def is_private(recipe: Recipe) -> bool:
    """Whether only this process has all that a recipe names: a custom network, term, norm or mask."""
    return bool(only_here(recipe)) or is_own(recipe.norm) or is_own(recipe.mask)


def one_by_one(tasks: Sequence[Task]) -> Iterator[Event]:
    """Dream the cells here, one after the other."""
    for task in tasks:
        yield from dream_cell(*task)


def side_by_side(tasks: Sequence[Task], workers: int) -> Iterator[Event]:
    """Dream the cells in `workers` processes on this machine, each looked after by a thread.

    Closed before its end, it lets no process begin another cell, nor go on after its present step.
    """
    waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    closed = threading.Event()
    for task in [*tasks, *[None] * workers]:
        waiting.put(task)
    for _ in range(min(workers, len(tasks))):
        threading.Thread(target=_look_after_worker, args=(waiting, events, closed), daemon=True).start()
    left = len(tasks)
    try:
        while left:
            event = events.get()
            left -= isinstance(event, Ended)
            yield event
    finally:
        closed.set()


def on_cluster(tasks: Sequence[Task], address: str) -> Iterator[Event]:
    """Dream the cells on a Ray cluster at `address`; `local` starts one on this machine, for as long as it takes."""
    with joined(address) as ray:
        # A cell asks for a whole GPU where the cluster has some, unless it is to stay on the CPU.
        gpus = 1 if tasks[0][2] != "cpu" and ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, num_returns="streaming")(_dream_on_cluster)
        running = {remote.remote(*task): task for task in tasks}
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            event = _next_event(ray, ready, running[ready])
            if isinstance(event, Ended):
                del running[ready]
            yield event


def _look_after_worker(
    waiting: "queue.SimpleQueue[Task | None]", events: "queue.SimpleQueue[Event]", closed: threading.Event
) -> None:
    process, pipe = _start_worker()
    while not closed.is_set() and (task := waiting.get()) is not None:
        try:
            pipe.send(task)
            event: Event | None = None
            while not closed.is_set() and not isinstance(event, Ended):
                event = pipe.recv()
                events.put(event)
        except (EOFError, OSError):
            if closed.is_set():
                return
            process.join()
            events.put(Ended(failed(task[0], task[1], _why_died(process.exitcode)), b""))
            process, pipe = _start_worker()
    pipe.close()


def _start_worker() -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _work(pipe: Connection) -> None:
    """Dream what comes, until the pipe ends, as it does when the parent dies; Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed()
    try:
        while True:
            for event in dream_cell(*pipe.recv()):
                pipe.send(event)
    except (EOFError, OSError):
        return


def _dream_on_cluster(*task: Any) -> Iterator[Event]:
    keep_freed()
    yield from dream_cell(*task)


def _why_died(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"its process was killed ({name}{', as when memory runs out' if name == 'SIGKILL' else ''})"
    return f"its process ended early, with exit code {exit_code}"


def _next_event(ray: Any, events: Any, task: Task) -> Event:
    try:
        event: Event = ray.get(next(events))
        return event
    except (ray.exceptions.RayError, StopIteration) as error:
        return Ended(failed(task[0], task[1], f"its worker on the cluster failed: {error}"), b"")
