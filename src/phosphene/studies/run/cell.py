"""One cell of a study, from its recipe to its picture. No folder: what comes of it is data, which a caller stores.

On the CPU a cell has one thread, wherever it runs, because a convolution's last bits depend on the number of threads.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
from pydantic import Field

from phosphene.errors import PhospheneError
from phosphene.imagefile import Photo
from phosphene.job import MemoryDream, in_memory
from phosphene.networks.facts import skeleton
from phosphene.recipe.provenance import Made
from phosphene.recipe.settings import Recipe, Settings
from phosphene.setup.builders import bind, bounded_fields
from phosphene.studies.run.calibrate import Tries, calibrated
from phosphene.studies.study import Cell
from phosphene.types import Step


class Result(Settings):
    """What came of a cell: the recipe that was found, and how the score rose; or the reason why nothing did."""

    cell: Cell
    source_sha256: str
    failure: Annotated[str | None, Field(description="Why there is no picture.")] = None
    recipe: Annotated[Recipe | None, Field(description="With the step size that was found.")] = None
    made: Made | None = None
    tries: Annotated[
        tuple[tuple[float, float], ...], Field(description="Step sizes tried, and the root-mean-square changes.")
    ] = ()
    score_before: Annotated[float | None, Field(description="The photograph's score, at full size.")] = None
    score_after: Annotated[float | None, Field(description="The dream's.")] = None
    trace: Annotated[
        tuple[tuple[int, int, float], ...], Field(description="Octave, step, and score before the step.")
    ] = ()
    seconds: Annotated[float, Field(description="All tries together.")] = 0.0
    seconds_per_step: Annotated[float | None, Field(description="In the last octave.")] = None
    picture_sha256: str | None = None


@dataclass(frozen=True)
class Stepped:
    """A step of a cell was taken; `tried` counts whole dreams before this one."""

    cell: str
    tried: int


@dataclass(frozen=True)
class Ended:
    """A cell came to its end: its result, and its picture as the bytes of a PNG, empty where it failed."""

    result: Result
    picture: bytes


Event = Stepped | Ended


def check_recipe(recipe: Recipe) -> None:
    """Raise the `UsageError` that dreaming the recipe would, as of a layer that is not there; no weights are needed."""
    network = skeleton(recipe.model)
    scoring = bind(recipe, network)
    if isinstance(recipe.tile, int):
        bounded_fields(network, scoring.layers)


def dream_cell(cell: Cell, photo: Photo, device: str) -> Iterator[Event]:
    """Dream a cell; yield an event for each step, and what came of it. Never raises: a failure is a result too."""
    began = time.perf_counter()
    try:
        with one_thread():
            result, picture = yield from _dream(cell, photo, device)
    except Exception as error:  # one cell's failure, whatever it is, is a fact about that cell
        yield Ended(failed(cell, photo, error), b"")
    else:
        yield Ended(result.model_copy(update={"seconds": time.perf_counter() - began}), picture)


def failed(cell: Cell, photo: Photo, error: Exception | str) -> Result:
    """Return the result of a cell that failed."""
    unforeseen = isinstance(error, Exception) and not isinstance(error, PhospheneError)
    reason = f"{type(error).__name__}: {error}" if unforeseen else str(error)
    return Result(cell=cell, source_sha256=photo.sha256, failure=reason)


def _dream(cell: Cell, photo: Photo, device: str) -> Generator[Event, None, tuple[Result, bytes]]:
    job = in_memory(photo, cell.recipe, device)
    dream, tries = yield from _told(cell, calibrated(job, cell.change))
    with TemporaryDirectory() as folder:
        picture = dream.save(Path(folder, "dream.png")).read_bytes()
    last = [row for row in dream.trace.rows if row[0] == dream.trace.rows[-1][0]]
    return Result(
        cell=cell,
        source_sha256=photo.sha256,
        recipe=dream.recipe,
        made=dream.made,
        tries=tries,
        score_before=job.gradient_of(job.image, (0, 0))[0],
        score_after=job.gradient_of(dream.image.to(job.image.device), (0, 0))[0],
        trace=tuple(row[:3] for row in dream.trace.rows),
        seconds_per_step=(last[-1][3] - last[0][3]) / (len(last) - 1) if len(last) > 1 else None,
    ), picture


def _told(
    cell: Cell, search: Generator[Step, None, tuple[MemoryDream, Tries]]
) -> Generator[Event, None, tuple[MemoryDream, Tries]]:
    tried = 0
    while True:
        try:
            step = next(search)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield Stepped(cell.name, tried)
        tried += step.is_last


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
