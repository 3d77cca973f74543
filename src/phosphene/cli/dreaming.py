"""`phosphene dream`, `recipe` and `replay`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from phosphene.cli.huge import stream, streams
from phosphene.cli.progress import Listeners, stopped_by_interrupt
from phosphene.errors import PhospheneError, UsageError
from phosphene.recipe.settings import Recipe
from phosphene.recipe.spelling import flag

if TYPE_CHECKING:
    from phosphene.job import Dream

INTERRUPTED = 130

VIDEOS = (".mp4", ".mov", ".mkv", ".webm")
"""Endings of files whose recipe is in a container's metadata."""


Settings = Annotated[Recipe | None, Parameter(name="*", group="Settings", name_transform=flag, negative_iterable="")]
Output = Annotated[Path, Parameter(name=["--output", "-o"])]


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(dream)
    app.command(recipe)
    app.command(replay)


def dream(
    inputs: list[str],
    /,
    *,
    output: Output,
    look: str | None = None,
    preset: str | None = None,
    settings: Settings = None,
    device: str = "auto",
    memory: str | None = None,
    cluster: str | None = None,
    bits: Literal[8, 16] = 8,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    keep_partial: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    preview: Path | None = None,
    preview_every: int = 10,
    trace: Path | None = None,
) -> int:
    """Dream photographs.

    Parameters
    ----------
    inputs
        Photographs, folders of them, sample:NAME (as sample:coffee), or noise:HEIGHTxWIDTH.
    output
        The picture to write; its ending chooses the format. With several inputs or a folder: a folder.
    look
        A named style; `phosphene looks` lists each model's.
    preset
        One of the report's experiments: plain (its main loop), octaves, tiles.
    device
        auto, cpu, cuda or mps.
    memory
        What the process may take, as 2GB; without it, a safe share of what is free. A dream that does not fit is
        streamed by way of a folder beside its output.
    cluster
        The address of a Ray cluster that dreams by way of that folder, or local for one on this machine.
    bits
        Bits a channel, 16 for PNG and TIFF only.
    overwrite
        Replace what is there.
    keep_partial
        When interrupted, write what there is.
    json
        Print events as JSON lines.
    preview
        A picture that is written again and again as the dream grows.
    preview_every
        Steps between two previews.
    trace
        A CSV file of step, octave, score and time.
    """
    from phosphene.recipe.spelling import choose

    given = settings.model_dump(include=settings.model_fields_set) if settings else {}
    chosen = choose(given, look, preset)
    _introduce(chosen.model)
    tasks = plan(inputs, output)
    if len(tasks) > 1 and (preview or trace):
        raise UsageError("--preview and --trace are for one photograph at a time")
    listeners = Listeners(json=json, preview=preview, preview_every=preview_every, trace=trace)
    return dream_all(tasks, chosen, listeners, device, bits, overwrite, keep_partial, memory, cluster)


def plan(inputs: list[str], output: Path) -> list[tuple[str, Path]]:
    """Pair each photograph with its picture; several, or a folder's, go into the folder `output`."""
    from phosphene.imagefile import is_image

    folders = [Path(name) for name in inputs if Path(name).is_dir()]
    if len(inputs) == 1 and not folders and not output.is_dir():
        return [(inputs[0], output)]
    sources: list[str] = []
    for name in inputs:
        inside = (
            sorted(str(path) for path in Path(name).iterdir() if is_image(path)) if Path(name) in folders else [name]
        )
        sources.extend(inside)
    if not sources:
        raise UsageError(f"there is no photograph in {', '.join(map(str, folders))}")
    return list(zip(sources, _names_in(output, sources), strict=True))


def dream_all(
    tasks: list[tuple[str, Path]],
    chosen: Recipe,
    listeners: Listeners,
    device: str,
    bits: Literal[8, 16],
    overwrite: bool,
    keep_partial: bool,
    memory: str | None = None,
    cluster: str | None = None,
) -> int:
    """Dream each photograph; one that fails does not stop the rest. Return the exit code."""
    from phosphene.imagefile import check_output
    from phosphene.job import prepare, run

    code = 0
    for source, target in tasks:
        try:
            if len(tasks) > 1:
                target.parent.mkdir(parents=True, exist_ok=True)
            if streams(source, chosen, device, memory, cluster):
                code = max(code, stream(source, target, chosen, listeners, device, memory, cluster, bits, overwrite))
                continue
            check_output(target, overwrite, bits=bits)
            job = prepare(source, chosen, device, memory)
            check_output(target, overwrite, bits=bits, size=job.made.size)
            listeners.start(source, job.made, job.recipe, [*job.photo.notes, *job.notes])
            with stopped_by_interrupt() as stop:
                dreamed = run(job, listeners.step, stop)
            listeners.finish(dreamed.trace.rows)
            if dreamed.made.unfinished:
                return _end_partial(dreamed, target, listeners, bits, keep_partial)
            dreamed.save(target, bits=bits, overwrite=True)
            listeners.saved(source, target, dreamed.trace.rows)
        except PhospheneError as error:
            if len(tasks) == 1:
                raise
            listeners.failed(source, error)
            code = max(code, 1)
    return code


def recipe(picture: Path, /) -> None:
    """Print the recipe that a picture or a film carries, as TOML.

    Parameters
    ----------
    picture
        A picture or a film that Phosphene wrote.
    """
    from phosphene.imagefile import read_recipe

    if picture.suffix.lower() in VIDEOS:
        from phosphene.film.source import read_recipe

    print(read_recipe(picture), end="")


def replay(
    picture: Path,
    /,
    *,
    output: Output,
    input: str | None = None,
    model: str | None = None,
    device: str = "auto",
    memory: str | None = None,
    cluster: str | None = None,
    bits: Literal[8, 16] = 8,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    keep_partial: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make a picture again from the recipe that it carries.

    Parameters
    ----------
    picture
        A picture that Phosphene wrote.
    output
        The picture to write.
    input
        The photograph, if it is not where the recipe says, or another one to dream in the same way.
    model
        The network, if the recipe's was your own, as package.module:callable, or another one.
    device
        auto, cpu, cuda or mps.
    memory
        What the process may take, as 2GB; without it, a safe share of what is free. A dream that does not fit is
        streamed by way of a folder beside its output.
    cluster
        The address of a Ray cluster that dreams by way of that folder, or local for one on this machine.
    bits
        Bits a channel, 16 for PNG and TIFF only.
    overwrite
        Replace what is there.
    keep_partial
        When interrupted, write what there is.
    json
        Print events as JSON lines.
    """
    from phosphene.imagefile import read_recipe
    from phosphene.job import differences
    from phosphene.recipe.provenance import from_toml

    chosen, made = from_toml(read_recipe(picture))
    if model is not None:
        _introduce(model)
        chosen = chosen.but(model=model)
    listeners = Listeners(json=json, on_start=partial(differences, made))
    return dream_all([(input or made.source, output)], chosen, listeners, device, bits, overwrite, keep_partial, memory)


def _introduce(model: str) -> None:
    """Import a network of the user's own. What a recipe names is imported only if the user names it too."""
    if ":" in model:
        from phosphene.networks.registry import introduce

        introduce(model)


def _names_in(folder: Path, sources: list[str]) -> list[Path]:
    """A PNG for each source, by its name without the ending; twins are numbered."""
    names: list[Path] = []
    for source in sources:
        stem = Path(source.partition(":")[2] or source).stem if ":" in source else Path(source).stem
        twins = sum(1 for name in names if name.stem == stem or name.stem.startswith(f"{stem}-"))
        names.append(folder / (f"{stem}-{twins + 1}.png" if twins else f"{stem}.png"))
    return names


def _end_partial(dreamed: Dream, target: Path, listeners: Listeners, bits: Literal[8, 16], keep_partial: bool) -> int:
    where = dreamed.made.unfinished
    if keep_partial:
        dreamed.save(target, bits=bits, overwrite=True)
        print(f"phosphene: {where}; what there is was written to {target}", file=sys.stderr)
    else:
        print(f"phosphene: {where}; nothing was written (--keep-partial would have)", file=sys.stderr)
    return INTERRUPTED
