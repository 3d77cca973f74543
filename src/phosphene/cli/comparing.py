"""`phosphene compare` and `sweep`: many dreams of one photograph, with measures and a report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from phosphene.cli.dreaming import Settings
from phosphene.cli.progress import INTERRUPTED, spell_time
from phosphene.recipe.settings import PRESETS, Ascent, LongSide, Octaves, OctaveScale, Picture, Tiles
from phosphene.recipe.spelling import flag
from phosphene.studies.study import CHANGE, DEPTHS, MODELS, MODES, SEEDS, SIZE

if TYPE_CHECKING:
    from phosphene.studies.api import Finished
    from phosphene.studies.run.folder import Progress as Reached
    from phosphene.studies.survey import Survey


class Conditions(Picture, Tiles, Ascent, Octaves):
    """The settings that are the same for all dreams of a comparison, which has sizes and octaves of its own."""

    size: LongSide = SIZE
    octave_scale: OctaveScale = PRESETS["octaves"]["octave_scale"]


Shared = Annotated[Conditions | None, Parameter(name="*", group="Settings", name_transform=flag, negative_iterable="")]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Overwrite = Annotated[bool, Parameter(negative="")]


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(compare)
    app.command(sweep)


def compare(
    photo: str,
    /,
    *others: str,
    output: Output,
    models: str = ",".join(MODELS),
    modes: str = ",".join(MODES),
    depths: int = DEPTHS,
    weights: Literal["pretrained", "untrained", "both"] = "pretrained",
    seeds: int = SEEDS,
    change: float = CHANGE,
    settings: Shared = None,
    workers: int | None = None,
    cluster: str | None = None,
    device: str = "auto",
    overwrite: Overwrite = False,
) -> int:
    """Compare what networks see in photographs, at equal strength, and write a report.

    Running the same command again continues where it was stopped.

    Parameters
    ----------
    photo
        A photograph, or sample:NAME.
    others
        More photographs; each gets its own folder within the output, and one page covers all.
    output
        The folder to write into.
    models
        Networks, separated by commas: the rows of the grids.
    modes
        Experiments, separated by commas: plain (one size), octaves, tiles.
    depths
        Relative depths to show each trained network at (each untrained one if none is trained); 0 for none.
    weights
        pretrained, untrained (random), or both.
    seeds
        How many seeds to dream each cell with, from --seed on.
    change
        Root-mean-square change from the photograph, 0 to 1, that every dream is calibrated to.
    workers
        Processes that share the cells; by default one for each core, up to 8.
    cluster
        Address of a Ray cluster that dreams the cells, or local for one on this machine.
    device
        auto, cpu, cuda or mps.
    overwrite
        Replace dreams of the same names with other settings.
    """
    from phosphene.studies.api import compare
    from phosphene.studies.survey import survey

    given = settings.model_dump(include=settings.model_fields_set) if settings else {}
    study = partial(survey, [photo, *others]) if others else partial(compare, photo)
    return _run(
        partial(
            study,
            output,
            models=_names(models),
            modes=_names(modes),
            depths=depths,
            weights=weights,
            seeds=seeds,
            change=change,
            workers=_workers(workers, device),
            cluster=cluster,
            device=device,
            overwrite=overwrite,
            **given,
        )
    )


def sweep(
    photo: str,
    /,
    *,
    output: Output,
    vary: Annotated[list[str], Parameter(negative_iterable="")],
    look: str | None = None,
    preset: str | None = None,
    settings: Settings = None,
    workers: int | None = None,
    cluster: str | None = None,
    device: str = "auto",
    overwrite: Overwrite = False,
) -> int:
    """Dream a photograph over a grid of settings, and write a report.

    Running the same command again continues where it was stopped.

    Parameters
    ----------
    photo
        A photograph, or sample:NAME.
    output
        The folder to write into.
    vary
        A setting and its values, such as octave_scale=1.2,1.4 or layer=blocks.3.2,blocks.4.2; the last is the columns.
    look
        A named style; `phosphene looks` lists those of each model.
    preset
        A set of settings: plain, octaves or tiles (as in `phosphene compare`), keras-tutorial or tensorflow-tutorial.
    workers
        Processes that share the cells; by default one for each core, up to 8.
    cluster
        Address of a Ray cluster that dreams the cells, or local for one on this machine.
    device
        auto, cpu, cuda or mps.
    overwrite
        Replace dreams of the same names with other settings.
    """
    from phosphene.studies import api
    from phosphene.studies.plans.sweep import parse_vary

    given = settings.model_dump(include=settings.model_fields_set) if settings else {}
    return _run(
        partial(
            api.sweep,
            photo,
            output,
            vary=parse_vary(vary),
            look=look,
            preset=preset,
            workers=_workers(workers, device),
            cluster=cluster,
            device=device,
            overwrite=overwrite,
            **given,
        )
    )


def _run(study: Callable[..., Finished | Survey]) -> int:
    reached: list[Reached] = []
    try:
        with _progress(reached) as on_progress:
            finished = study(on_progress=on_progress)
    except KeyboardInterrupt:
        done = (
            f"{reached[-1].done} of {reached[-1].cells} cells are done" if reached else "nothing has been dreamed yet"
        )
        print(f"phosphene: interrupted; {done}, and the same command continues from there", file=sys.stderr)
        return INTERRUPTED
    for name, reason in finished.failures.items():
        print(f"phosphene: {name} failed: {reason}", file=sys.stderr)
    for absent in finished.absent:
        print(
            f"phosphene: {absent.model} has no trained weights here: `phosphene models fetch {absent.model}` gets them",
            file=sys.stderr,
        )
    print(finished.page)
    return 1 if finished.failures else 0


@contextmanager
def _progress(reached: list[Reached]) -> Iterator[Callable[[Reached], None]]:
    """Show cells, steps and the time left: a bar on a terminal, elsewhere a line for each cell."""
    columns: list[Any] = [BarColumn(), *(TextColumn(f"{{task.fields[{name}]}}") for name in ("cells", "steps", "left"))]
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=1.0, cells="planning", steps="", left="")

        def on_progress(now: Reached) -> None:
            reached[:] = [now]
            cells, steps = f"{now.done} of {now.cells} cells", f"{now.steps} steps"
            left = f"{spell_time(now.seconds_left)} left"
            bar.update(task, completed=now.share, cells=cells, steps=steps, left=left)
            if now.ended is not None and not sys.stderr.isatty():
                failed = " failed" if now.ended.failure else ""
                print(f"{now.ended.cell.name}{failed}: {cells}, {steps}, {left}", file=sys.stderr)

        yield on_progress


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _workers(workers: int | None, device: str) -> int:
    from phosphene.studies.run.workers import usual_workers

    return usual_workers(device) if workers is None else workers
