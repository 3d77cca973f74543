"""Listeners to a dream's steps: a bar, lines, JSON, a preview file, a trace."""

from __future__ import annotations

import csv
import io
import json as jsonlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from phosphene.errors import PhospheneError, UsageError

if TYPE_CHECKING:
    from phosphene.recipe.provenance import Made
    from phosphene.recipe.settings import Recipe
    from phosphene.types import Image, Step, Trace

INTERRUPTED = 130
"""What the command line ends with when it is interrupted."""

PREVIEW_EVERY = 10
"""Steps between two previews."""

REPORT_EVERY = 100
"""Steps between two lines where there is no terminal to draw a bar on (the report's section 5.6)."""


def check_listening(preview: Path | None, trace: Path | None, every: int, *others: str | Path | None) -> None:
    """Raise now, before the first step, what would be wrong with a preview and a trace."""
    from phosphene.imagefile.formats import beside, endings, format_of
    from phosphene.places import check_told

    if every < 1:
        raise UsageError(f"preview-every = {every} will not do: it should be 1 or more")
    if preview is not None and format_of(preview).whole is None:
        raise UsageError(f"a preview cannot be {preview.name!r}: its ending must be one of {endings(strips=False)}")
    beside_them = [name for other in others if other is not None for name in beside(Path(other))]
    check_told({"--preview": preview, "--trace": trace}, *others, *beside_them)


@dataclass
class Listeners:
    """All who hear of a dream; events go to standard output only as JSON, everything else to standard error."""

    json: bool = False
    preview: Path | None = None
    preview_every: int = PREVIEW_EVERY
    trace: Path | None = None
    on_start: Callable[[Made], Iterable[str]] = lambda made: ()
    _steps: int = 0
    _bar: Progress | None = None
    _task: TaskID = field(default=TaskID(0))

    def start(self, source: str, made: Made, recipe: Recipe, notes: Iterable[str]) -> None:
        """Say what is dreamed, and what there is to know about it."""
        self._steps = 0
        self._event("start", source=source, size=list(made.size), recipe=recipe.model_dump(mode="json"))
        for note in [*notes, *self.on_start(made)]:
            self._event("note", text=note)
            self._say(f"note: {note}")
        if sys.stderr.isatty() and not self.json:
            self._bar = _bar()
            self._task = self._bar.add_task(source, total=1.0, octave="", step="", score="", left="")
            self._bar.start()

    def step(self, step: Step) -> None:
        """Hear of a step."""
        self._steps += 1
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=step.progress,
                octave=f"octave {step.octave}/{step.octaves}",
                step=f"step {step.step}/{step.steps}",
                score=f"score {step.score:.4g}",
                left=f"{spell_time(step.seconds_left)} left",
            )
        elif self._steps % REPORT_EVERY == 0 or step.step == step.steps:
            self._say(
                f"octave {step.octave}/{step.octaves}, step {step.step}/{step.steps}, "
                f"score {step.score:.4g}, {spell_time(step.seconds_left)} left"
            )
        self._event(
            "step",
            octave=step.octave,
            octaves=step.octaves,
            step=step.step,
            steps=step.steps,
            score=step.score,
            seconds=step.seconds,
            seconds_left=step.seconds_left,
        )
        if self.preview is not None and self._steps % self.preview_every == 0:
            self.preview = write_preview(self.preview, step.image)

    def rest(self) -> None:
        """Put the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def finish(self, trace: Trace) -> bool:
        """Write the trace; say so, and return False, where that fails: the picture is not lost for it."""
        if self.trace is not None:
            from phosphene.imagefile import write_atomically

            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([trace.columns, *trace.rows])
            try:
                write_atomically(self.trace, text.getvalue().encode())
            except OSError as error:
                reason = f"the trace {str(self.trace)!r} could not be written: {error.strerror}"
                print(f"phosphene: {reason}", file=sys.stderr)
                return False
        return True

    def saved(self, source: str, target: Path, seconds: float) -> None:
        """Say where the picture is."""
        self._event("saved", source=source, output=str(target), seconds=seconds)
        if not self.json:
            print(f"{target}")

    def failed(self, source: str, error: Exception) -> None:
        """Say that one of several photographs could not be dreamed."""
        self._event("failed", source=source, error=str(error))
        self._say(f"{source}: {error}")

    def _event(self, kind: str, **facts: Any) -> None:
        if self.json:
            print(jsonlib.dumps({"event": kind, **facts}), flush=True)

    def _say(self, line: str) -> None:
        if not self.json:
            print(line, file=sys.stderr)


@contextmanager
def stopped_by_interrupt() -> Iterator[threading.Event]:
    """Within, the first Ctrl-C sets the event; a second one interrupts at once."""
    stop = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        stop.set()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


def _bar() -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn()]
    columns += [TextColumn(f"{{task.fields[{name}]}}") for name in ("octave", "step", "score", "left")]
    return Progress(*columns, console=Console(stderr=True), transient=True)


def write_preview(path: Path, image: Image) -> Path | None:
    """Write a preview, and return where the next one goes: nowhere once one fails; no dream is lost for it."""
    from phosphene.imagefile import write

    try:
        write(path, image.cpu())
    except PhospheneError as error:
        print(f"phosphene: no more previews: {error}", file=sys.stderr)
        return None
    return path


def spell_time(seconds: float) -> str:
    """Spell a time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
