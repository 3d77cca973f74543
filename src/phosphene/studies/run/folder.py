"""Many cells into a folder. A cell that is done and whole is not dreamed again.

FOLDER/study.json         the plan
FOLDER/dreams/NAME.png    a dream, with its recipe inside
FOLDER/dreams/NAME.json   what came of the cell (`Result`), written after its picture
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from phosphene import imagefile, places
from phosphene.errors import OutputExistsError, StoreError, UsageError
from phosphene.imagefile import Photo, write_atomically
from phosphene.studies.run.cell import Ended, Event, Result, Stepped
from phosphene.studies.run.workers import Task
from phosphene.studies.study import Cell, Study
from phosphene.types import Image

Workers = Callable[[Sequence[Task]], Iterator[Event]]

EXPECTED_TRIES = 2.5
"""Whole dreams that a calibrated cell takes, for the estimate of the time left."""


@dataclass(frozen=True)
class Progress:
    """How far a study is: cells done and in all, steps taken in this run, its share that is done (0..1), seconds left.

    The last two are guesses, since nobody knows how many tries a cell takes. `ended` is the result of the cell that has
    just ended, if one has; `cell` is the name of the one whose step or end this is.
    """

    done: int
    cells: int
    steps: int
    share: float
    seconds_left: float
    cell: str
    ended: Result | None = None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within, what cannot be written in a study's folder, as where the disk is full, is a `StoreError`."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        raise StoreError(
            f"{str(where)!r} could not be written ({error.strerror or error}): what is done is kept, and the same "
            f"command goes on from there"
        ) from error


@dataclass(frozen=True)
class Folder:
    """Where a study's dreams are. They are PNG, since a lossy format would take away some of what is measured."""

    path: Path

    def __post_init__(self) -> None:
        places.check_folder(self.path)

    def keep_plan(self, study: Study) -> None:
        """Write the plan; the folder is made if it is not there."""
        places.make_folder(self.path)
        with writing(self.path):
            write_atomically(self._plan, study.model_dump_json(indent=1).encode())

    def plan(self) -> Study:
        """Read the plan. Raises `UsageError` where there is none."""
        try:
            return Study.model_validate_json(self._plan.read_bytes())
        except (OSError, ValidationError) as error:
            raise UsageError(f"{str(self.path)!r} holds no study that can be read") from error

    def picture(self, cell: str) -> Path:
        """The file of a cell's dream."""
        return self.path / "dreams" / f"{cell}.png"

    def dream(self, cell: str) -> Image:
        """The pixels of a cell's dream, as its file has them."""
        return imagefile.read(self.picture(cell)).image

    def result(self, cell: str) -> Result | None:
        """What came of a cell, or None where nothing readable is there."""
        try:
            return Result.model_validate_json(self._facts(cell).read_bytes())
        except (OSError, ValidationError):
            return None

    def done(self, cell: Cell, sha256: str) -> Result | None:
        """The result of a cell whose picture is whole and of this recipe and photograph; None where it is not."""
        result = self.result(cell.name)
        if result is None or (result.cell, result.source_sha256) != (cell, sha256):
            return None
        try:
            whole = hashlib.sha256(self.picture(cell.name).read_bytes()).hexdigest() == result.picture_sha256
        except OSError:
            return None
        return result if whole else None

    def keep(self, ended: Ended) -> Result:
        """Write what came of a cell: its picture first, so that a result vouches for it."""
        result, name = ended.result, ended.result.cell.name
        with writing(self.path):
            if ended.picture:
                write_atomically(self.picture(name), ended.picture)
                result = result.model_copy(update={"picture_sha256": hashlib.sha256(ended.picture).hexdigest()})
            write_atomically(self._facts(name), result.model_dump_json(indent=1).encode())
        return result

    @property
    def _plan(self) -> Path:
        return self.path / "study.json"

    def _facts(self, cell: str) -> Path:
        return self.path / "dreams" / f"{cell}.json"


def check_folder(study: Study, folder: Folder, overwrite: bool) -> None:
    """Raise `OutputExistsError` where the folder holds another study's dream under the name of one of ours."""
    for cell in study.cells:
        there = folder.result(cell.name)
        ours = there is None or (there.cell, there.source_sha256) == (cell, study.source_sha256)
        if not ours and not overwrite:
            raise OutputExistsError(
                f"{str(folder.path)!r} holds {cell.name} of a study with other settings or another photograph: "
                f"choose another folder, or --overwrite it (in Python overwrite=True)"
            )


def run_cells(
    study: Study, photo: Photo, folder: Folder, workers: Workers, device: str, on_progress: Callable[[Progress], None]
) -> Mapping[str, Result]:
    """Dream what is not there yet, and return all results by the cells' names."""
    with writing(folder.path):
        (folder.path / "dreams").mkdir(parents=True, exist_ok=True)
    found = {cell.name: folder.done(cell, study.source_sha256) for cell in study.cells}
    results = {name: result for name, result in found.items() if result is not None}
    left = [cell for cell in study.cells if cell.name not in results]
    clock = _Clock({cell.name: _expected_steps(cell) for cell in left})
    for event in workers([(cell, photo, device) for cell in left]) if left else ():
        ended = folder.keep(event) if isinstance(event, Ended) else None
        if ended is not None:
            results[ended.cell.name] = ended
        clock.hear(event)
        cell = event.cell if isinstance(event, Stepped) else event.result.cell.name
        on_progress(Progress(len(results), len(study.cells), clock.steps, clock.share, clock.seconds_left, cell, ended))
    return {cell.name: results[cell.name] for cell in study.cells}


@dataclass
class _Clock:
    """Guesses the time left from the steps that cells are expected to take."""

    expected: Mapping[str, float]
    taken: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    began: float = field(default_factory=time.perf_counter)

    def hear(self, event: Event) -> None:
        """Note a step, or the end of a cell."""
        if isinstance(event, Ended):
            name = event.result.cell.name
            self.taken[name] = self.expected[name]
        else:
            self.steps += 1
            self.taken[event.cell] = min(self.taken.get(event.cell, 0) + 1, self.expected[event.cell])

    @property
    def share(self) -> float:
        return sum(self.taken.values()) / sum(self.expected.values())

    @property
    def seconds_left(self) -> float:
        return (time.perf_counter() - self.began) * (1 - self.share) / self.share


def _expected_steps(cell: Cell) -> float:
    dreams = 1.0 if cell.change is None else EXPECTED_TRIES
    return cell.recipe.octaves * cell.recipe.steps * dreams
