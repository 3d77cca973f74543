"""`phosphene animate` and `zoom`: dreams that move."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from phosphene.cli.dreaming import Output, Settings
from phosphene.cli.progress import INTERRUPTED, check_listening, stopped_by_interrupt
from phosphene.film.settings import Motion, Part
from phosphene.film.settings import Zoom as ZoomSettings
from phosphene.recipe.spelling import flag

if TYPE_CHECKING:
    from phosphene.film import zoom as zooming
    from phosphene.film.plan import Run
    from phosphene.film.run import Reached

Moving = Annotated[Motion | None, Parameter(name="*", group="Motion", name_transform=flag)]
Wanted = Annotated[Part | None, Parameter(name="*", group="Part", name_transform=flag)]
Zooming = Annotated[ZoomSettings | None, Parameter(name="*", group="Zoom", name_transform=flag)]
Several = Annotated[list[str] | None, Parameter(negative_iterable="")]

REPORT_EVERY = 10
"""Frames between two lines where there is no terminal to draw a bar on."""


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(animate)
    app.command(zoom)


def animate(
    film: str,
    /,
    *,
    output: Output,
    look: str | None = None,
    preset: str | None = None,
    at: Several = None,
    follow: Several = None,
    motion: Moving = None,
    part: Wanted = None,
    settings: Settings = None,
    device: str = "auto",
    memory: str | None = None,
    workers: int = 1,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    preview: Path | None = None,
) -> int:
    """Dream a film: held still by motion, at one strength, with its sound and its times.

    Parameters
    ----------
    film
        Any file that PyAV opens, a folder of frames, or a pattern of them, as 'frame*.png'.
    output
        The film to write; its ending chooses the format: .mp4, .mov, .mkv, .webm, .gif, .apng, .webp, or none for a
        folder of frames.
    look
        A named style; `phosphene looks` lists each model's.
    preset
        One of the report's experiments: plain (its main loop), octaves, tiles; or keras-tutorial, tensorflow-tutorial.
    at
        A setting at a time in seconds, as 0:look=strokes, 8:look=creatures or 2.5:step_size=0.01; numbers move in
        between, and looks fade into each other.
    follow
        What follows the film's sound, as sound, step_size=bass or change=treble:0.04..0.12; bands are sound, bass,
        mids and treble.
    device
        auto, cpu, cuda or mps.
    memory
        What the process may take, as 2GB; without it, a safe share of what is free.
    workers
        Processes of one thread each that share the scenes, or the frames with --no-carry; the frames are the same.
    overwrite
        Replace what is there.
    preview
        A picture that each new frame is written to.
    """
    from phosphene.film.plan import Asked, begin

    check_listening(preview, None, 1, output, film)
    asked = Asked(
        source=film,
        given=settings.model_dump(include=settings.model_fields_set) if settings else {},
        look=look,
        preset=preset,
        at=tuple(at or ()),
        follow=tuple(follow or ()),
        motion=motion or Motion(),
        part=part or Part(),
    )
    return go_on(begin(asked, output, device=device, memory=memory, workers=workers, overwrite=overwrite), preview)


def zoom(
    photo: str,
    /,
    *,
    output: Output,
    look: str | None = None,
    preset: str | None = None,
    at: Several = None,
    zoom: Zooming = None,
    settings: Settings = None,
    device: str = "auto",
    memory: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    preview: Path | None = None,
) -> int:
    """Zoom into a photograph that is dreamed all the way; 640 px unless --size says otherwise.

    Parameters
    ----------
    photo
        A photograph, sample:NAME (as sample:coffee), or noise:HEIGHTxWIDTH.
    output
        The film to write; its ending chooses the format, as for `phosphene animate`.
    look
        A named style; `phosphene looks` lists each model's.
    preset
        One of the report's experiments: plain (its main loop), octaves, tiles; or keras-tutorial, tensorflow-tutorial.
    at
        A setting at a time in seconds, as 0:look=strokes and 8:look=creatures.
    device
        auto, cpu, cuda or mps.
    memory
        What the process may take, as 2GB; without it, a safe share of what is free.
    overwrite
        Replace what is there.
    preview
        A picture that each new frame is written to.
    """
    from phosphene.film.zoom import Asked, begin

    check_listening(preview, None, 1, output, photo)
    asked = Asked(
        source=photo,
        given=settings.model_dump(include=settings.model_fields_set) if settings else {},
        look=look,
        preset=preset,
        at=tuple(at or ()),
        zoom=zoom or ZoomSettings(),
    )
    return go_on_zooming(begin(asked, output, device=device, memory=memory, overwrite=overwrite), preview)


def go_on(ready: Run, preview: Path | None = None) -> int:
    """Dream a film, or what is left of it, and return the exit code."""
    from phosphene.film.run import run

    return _go_on(ready, run, preview)


def go_on_zooming(ready: zooming.Run, preview: Path | None = None) -> int:
    """Make a zoom, or what is left of it, and return the exit code."""
    from phosphene.film.zoom import run

    return _go_on(ready, run, preview)


def _go_on(ready: Any, run: Callable[..., Path | None], preview: Path | None) -> int:
    for note in ready.notes:
        print(f"note: {note}", file=sys.stderr)
    with stopped_by_interrupt() as stop, Listener(str(ready.output), preview) as listener:
        done = run(ready, listener.frame, stop)
    if done is None:
        print(f"phosphene: stopped; `phosphene resume {ready.folder}` goes on with it", file=sys.stderr)
        return INTERRUPTED
    print(done)
    return 0


@dataclass
class Listener:
    """Hears of each frame: a bar on a terminal, elsewhere a line now and then; and the preview."""

    name: str
    preview: Path | None = None
    _bar: Progress | None = None
    _task: TaskID = field(default=TaskID(0))

    def __enter__(self) -> Listener:
        if sys.stderr.isatty():
            self._bar = Progress(
                BarColumn(), *(TextColumn(f"{{task.fields[{name}]}}") for name in ("frame", "left", "size")),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(self.name, total=1.0, frame="the first frame", left="", size="")
            self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def frame(self, now: Reached) -> None:
        """Hear of a frame."""
        from phosphene.setup.memory import spell_bytes

        frames = max(now.frames, now.frame.index)
        where = f"frame {now.frame.index} of {frames}"
        left, size = f"{spell_time(now.seconds_left)} left", f"about {spell_bytes(now.whole_bytes)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=now.frame.index / frames, frame=where, left=left, size=size)
        elif now.dreamed and (now.frame.index in (1, frames) or now.frame.index % REPORT_EVERY == 0):
            print(f"{where}, {left}, {size}", file=sys.stderr)
        if self.preview is not None and now.dreamed:
            from phosphene.imagefile import write

            write(self.preview, now.frame.image)


def spell_time(seconds: float) -> str:
    """Spell a time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
