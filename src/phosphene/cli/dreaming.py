"""`phosphene dream` and `recipe`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from phosphene.cli.progress import INTERRUPTED, PREVIEW_EVERY, Listeners, check_listening, stopped_by_interrupt
from phosphene.errors import PhospheneError, UsageError
from phosphene.film.settings import VIDEOS
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import flag

if TYPE_CHECKING:
    from phosphene.verbs import Dream, Job

Settings = Annotated[Recipe | None, Parameter(name="*", group="Settings", name_transform=flag, negative_iterable="")]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Switch = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class Told:
    """What is reported while a dream runs."""

    json: Switch = False
    """Print events as JSON lines."""

    preview: Path | None = None
    """A picture of the dream so far, rewritten as it grows."""

    preview_every: int = PREVIEW_EVERY
    """Steps between two previews."""

    trace: Path | None = None
    """A CSV file of step, octave, score and time."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options that are not part of the recipe: where the picture goes, and on what device it is made."""

    output: Output
    """The picture to write; its ending chooses the format. A folder, if there are several inputs."""

    bits: Literal[8, 16] = 8
    """Bits per channel; 16 for PNG and TIFF only."""

    overwrite: Switch = False
    """Replace an existing output."""

    keep_partial: Switch = False
    """When interrupted, save the unfinished picture."""

    device: str = "auto"
    """auto, cpu, cuda or mps."""

    memory: str | None = None
    """Memory limit, such as 2GB; the default is a safe share of what is free. Larger dreams go by way of the disk."""

    cluster: str | None = None
    """Address of a Ray cluster, or local for one on this machine; --memory is then each worker's."""


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(dream)
    app.command(recipe)


def dream(
    inputs: list[str],
    /,
    *,
    look: str | None = None,
    preset: str | None = None,
    options: Options,
    told: Told = Told(),
    settings: Settings = None,
) -> int:
    """Dream photographs.

    Parameters
    ----------
    inputs
        Photographs, folders of photographs, sample:NAME (such as sample:coffee), or noise:HEIGHTxWIDTH.
    look
        A named style; `phosphene looks` lists those of each model.
    preset
        A set of settings: plain, octaves or tiles (as in `phosphene compare`), keras-tutorial or tensorflow-tutorial.
    """
    from phosphene.recipe.spelling import choose

    given = settings.model_dump(include=settings.model_fields_set) if settings else {}
    chosen = choose(given, look, preset)
    introduce_own(chosen.model)
    tasks = paired(inputs, options.output)
    if len(tasks) > 1 and (told.preview or told.trace):
        raise UsageError("--preview and --trace are for one photograph at a time")
    return dream_all(
        tasks, chosen, options, listeners_of(told, *(path for task in tasks for path in task), *files_of(chosen))
    )


def listeners_of(told: Told, *others: str | Path | None) -> Listeners:
    """Return who is to hear of a dream; what they write is looked at now, and is not to be one of the `others`."""
    check_listening(told.preview, told.trace, told.preview_every, *others)
    return Listeners(told.json, told.preview, told.preview_every, told.trace)


def files_of(recipe: Recipe) -> tuple[str | None, ...]:
    """Return the files that a recipe may name."""
    return recipe.weights, recipe.guide, recipe.mask


def paired(inputs: list[str], output: Path) -> list[tuple[str, Path]]:
    """Pair each photograph with its picture; several, or a folder's, go into the folder `output`."""
    from phosphene.imagefile import FORMATS, is_image
    from phosphene.places import check_folder, check_name, listed

    for name in inputs:
        check_name(name)
    check_folder(output)
    folders = [Path(name) for name in inputs if Path(name).is_dir()]
    if len(inputs) > 1 and output.suffix.lower() in FORMATS and not output.is_dir():
        raise UsageError(f"{len(inputs)} photographs go into a folder, and {str(output)!r} is a picture's name")
    if len(inputs) == 1 and not folders and not output.is_dir():
        return [(inputs[0], output)]
    sources: list[str] = []
    for name in inputs:
        inside = [str(path) for path in listed(Path(name)) if is_image(path)] if Path(name) in folders else [name]
        sources.extend(inside)
    if not sources:
        raise UsageError(f"there is no photograph in {', '.join(map(str, folders))}")
    return list(zip(sources, _names_in(output, sources), strict=True))


def dream_all(tasks: list[tuple[str, Path]], chosen: Recipe, options: Options, listeners: Listeners) -> int:
    """Dream each photograph; one that fails does not stop the rest. Return the exit code."""
    from phosphene.places import make_folder

    code = 0
    for source, target in tasks:
        try:
            if target != options.output:  # it is a folder
                make_folder(options.output)
            code = max(code, dream_one(source, chosen, replace(options, output=target), listeners))
        except PhospheneError as error:
            if len(tasks) == 1:
                raise
            listeners.failed(source, error)
            code = max(code, 1)
        if code == INTERRUPTED:
            break
    return code


def dream_one(source: str, chosen: Recipe, options: Options, listeners: Listeners) -> int:
    """Dream a photograph into `options.output`, and return the exit code."""
    from phosphene.job import prepare

    job = prepare(
        source,
        chosen,
        options.device,
        options.memory,
        options.cluster,
        output=options.output,
        bits=options.bits,
        overwrite=options.overwrite,
    )
    return run_job(job, listeners, options.keep_partial)


def recipe(picture: Path, /) -> None:
    """Print the recipe inside a picture or a film, as TOML.

    Parameters
    ----------
    picture
        A picture or a film that Phosphene wrote.
    """
    print(recipe_of(picture), end="")


def recipe_of(picture: Path) -> str:
    """Return the recipe that a picture or a film carries; only films need PyAV."""
    if picture.suffix.lower() in VIDEOS:
        from phosphene.film.sink import read_recipe
    else:
        from phosphene.imagefile import read_recipe
    return read_recipe(picture)


def run_job(job: Job, listeners: Listeners, keep_partial: bool = False) -> int:
    """Run a job, save its dream, and return the exit code."""
    from phosphene.job import run

    source = job.made.source
    listeners.start(source, job.made, job.recipe, job.notes)
    try:
        with stopped_by_interrupt() as stop:
            dreamed = run(job, listeners.step, stop)
    finally:
        listeners.rest()
    if dreamed.made.unfinished:
        code = _end_partial(job, dreamed, keep_partial)
    else:
        listeners.saved(source, dreamed.save(), dreamed.trace.rows[-1][3])
        code = 0
    return code if listeners.finish(dreamed.trace) else code or PhospheneError.exit_code


def introduce_own(model: str) -> None:
    """Import a network of the user's own. What a recipe names is imported only if the user names it too."""
    if ":" in model:
        from phosphene.networks.registry import introduce

        introduce(model)


def _names_in(folder: Path, sources: list[str]) -> list[Path]:
    """A PNG for each source, by its name without the ending; twins are numbered."""
    names: dict[str, Path] = {}
    for source in sources:
        stem = Path(source.partition(":")[2] or source).stem if ":" in source else Path(source).stem
        numbered = (f"{stem}-{number}" for number in count(2))
        name = next(name for name in chain([stem], numbered) if name not in names)
        names[name] = folder / f"{name}.png"
    return list(names.values())


def _end_partial(job: Job, dreamed: Dream, keep_partial: bool) -> int:
    done = "nothing was written (--keep-partial would have)"
    if job.resumable:
        done = f"`phosphene resume {job.resumable}` goes on with it"
    if keep_partial:
        done = f"what there is was written to {dreamed.save()}" + (f"; {done}" if job.resumable else "")
    print(f"phosphene: {dreamed.made.unfinished}; {done}", file=sys.stderr)
    return INTERRUPTED
