"""`phosphene animate` and `zoom`: dreams that move."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from phosphene.cli.dreaming import Output, Settings, Switch, introduce_own
from phosphene.cli.progress import INTERRUPTED, check_listening, spell_time, stopped_by_interrupt, write_preview
from phosphene.film.settings import Motion, Part
from phosphene.film.settings import Zoom as ZoomSettings
from phosphene.places import check_folder
from phosphene.recipe.spelling import flag

if TYPE_CHECKING:
    from phosphene.film.asked import AskedFilm, AskedZoom
    from phosphene.film.plan import Run
    from phosphene.film.run import FilmProgress

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


@Parameter(name="*")
@dataclass(frozen=True)
class Asked:
    """What films and zooms have in common."""

    look: str | None = None
    """A named style; `phosphene looks` lists those of each model."""

    preset: str | None = None
    """A set of settings: plain, octaves or tiles (as in `phosphene compare`), keras-tutorial or tensorflow-tutorial."""

    at: Several = None
    """SECONDS:SETTING=VALUE, such as 8:look=creatures or 2.5:step_size=0.01; numbers glide, looks cross-fade."""

    settings: Settings = None

    def words(self) -> dict[str, Any]:
        """Return what was said, by name; a network of the user's own is imported."""
        given = self.settings.model_dump(include=self.settings.model_fields_set) if self.settings else {}
        introduce_own(str(given.get("model", "")))
        return {"given": given, "look": self.look, "preset": self.preset, "at": tuple(self.at or ())}


@Parameter(name="*")
@dataclass(frozen=True)
class Means:
    """Where a film goes, and on what device it is made."""

    output: Output
    """The film to write: .mp4, .mov, .mkv, .webm, .gif, .apng or .webp; without an ending, a folder of frames."""

    device: str = "auto"
    """auto, cpu, cuda or mps."""

    memory: str | None = None
    """Memory limit, such as 2GB; the default is a safe share of what is free."""

    overwrite: Switch = False
    """Replace an existing output."""

    preview: Path | None = None
    """A picture of the latest frame, rewritten with each."""

    def begin(self, asked: AskedFilm | AskedZoom, **workers: Any) -> Run:
        """Look at all that can be wrong, and make the folder in which the film is dreamed."""
        from phosphene.film.plan import begin

        check_preview(self.preview, self.output, asked)
        return begin(asked, self.output, device=self.device, memory=self.memory, overwrite=self.overwrite, **workers)


def animate(
    film: str,
    /,
    *,
    asked: Asked = Asked(),
    follow: Several = None,
    motion: Moving = None,
    part: Wanted = None,
    means: Means,
    workers: int = 1,
    cluster: str | None = None,
) -> int:
    """Dream a film: held still along the motion, at constant strength, at its own size, with its sound.

    Parameters
    ----------
    film
        A film, a folder of frames, or a pattern of them such as 'frame*.png'.
    follow
        A number that follows the sound: step_size=bass or change=treble:0.04..0.12; `sound` alone moves the step size.
        Bands are sound, bass, mids and treble.
    workers
        Processes that share the scenes, or with --no-carry the frames; the result does not depend on their number.
    cluster
        Address of a Ray cluster whose workers share the scenes, or local for one on this machine.
    """
    from phosphene.film.asked import AskedFilm

    wanted = AskedFilm(
        source=film, **asked.words(), follow=tuple(follow or ()), motion=motion or Motion(), part=part or Part()
    )
    return go_on(means.begin(wanted, workers=workers, cluster=cluster), means.preview)


def zoom(photo: str, /, *, asked: Asked = Asked(), zoom: Zooming = None, means: Means) -> int:
    """Zoom endlessly into a photograph that keeps dreaming; 640 px unless --size is given.

    Parameters
    ----------
    photo
        A photograph, sample:NAME (such as sample:coffee), or noise:HEIGHTxWIDTH.
    """
    from phosphene.film.asked import AskedZoom

    return go_on(means.begin(AskedZoom(source=photo, **asked.words(), zoom=zoom or ZoomSettings())), means.preview)


def again(text: str, source: str | None, model: str | None, means: Means) -> int:
    """Make a film or a zoom again from its recipe, and return the exit code."""
    from phosphene.film.asked import from_toml
    from phosphene.job import differences

    asked, made = from_toml(text)
    given = asked.given if model is None else {**asked.given, "model": model}
    ready = means.begin(asked.model_copy(update={"given": given, "source": asked.source if source is None else source}))
    return go_on(replace(ready, notes=(*ready.notes, *differences(made, ready.film.made))), means.preview)


def check_preview(preview: Path | None, output: Path, asked: AskedFilm | AskedZoom) -> None:
    """Raise now, before the first frame, what would be wrong with a preview."""
    from phosphene.film.stills import stills_of
    from phosphene.recipe.settings import FILES

    if preview is not None:
        check_folder(asked.source)
        given = [asked.given.get(name) for name in FILES]
        check_listening(preview, None, 1, output, asked.source, *stills_of(asked.source), *given)


def go_on(ready: Run, preview: Path | None = None) -> int:
    """Dream a film or make a zoom, or what is left of it, and return the exit code."""
    from phosphene.film.run import run

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

    def frame(self, now: FilmProgress) -> None:
        """Hear of a frame."""
        from phosphene.setup.memory import spell_bytes

        frames = max(now.frames, now.frame.index)
        where = f"frame {now.frame.index} of {frames}"
        left = "" if now.seconds_left is None else f"{spell_time(now.seconds_left)} left"
        size = f"about {spell_bytes(now.whole_bytes)}" if now.bytes else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=now.frame.index / frames, frame=where, left=left, size=size)
        elif now.dreamed and (now.frame.index in (1, frames) or now.frame.index % REPORT_EVERY == 0):
            print(", ".join(filter(None, (where, left, size))), file=sys.stderr)
        if self.preview is not None and now.dreamed:
            self.preview = write_preview(self.preview, now.frame.image)
