"""`phosphene resume` and `replay`: what was interrupted, and what is made again; pictures and films."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

from cyclopts import App

from phosphene.cli import film
from phosphene.cli.dreaming import Options, Told, dream_one, files_of, introduce_own, listeners_of, recipe_of, run_job
from phosphene.cli.progress import check_listening
from phosphene.errors import UsageError
from phosphene.places import check_folder


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(replay)
    app.command(resume)


def resume(
    folder: Path,
    /,
    *,
    model: str | None = None,
    cluster: str | None = None,
    told: Told = Told(),  # noqa: B008
) -> int:
    """Continue a dream or a film that was interrupted; the result is the same as without the interruption.

    Parameters
    ----------
    folder
        The folder left beside the output, OUTPUT.phosphene.
    model
        Your own network, if the dream uses one: package.module:callable.
    cluster
        Address of a Ray cluster, or local; the folder has to be on storage that its machines share.
    """
    check_folder(folder / "film.json")
    listeners = listeners_of(told, folder.with_suffix("") if folder.suffix == ".phosphene" else None)
    if model is not None:
        introduce_own(model)
    if (folder / "film.json").exists():
        from phosphene.film.plan import reopen

        _check_told_of_film(told)
        ready = reopen(folder, cluster)
        film.check_preview(told.preview, ready.output, ready.film.asked)
        return film.go_on(ready, told.preview)
    from phosphene.job import resume as go_on

    job = go_on(folder, cluster)
    check_listening(told.preview, told.trace, told.preview_every, job.made.source, *files_of(job.recipe))
    return run_job(job, listeners)


def replay(
    picture: Path,
    /,
    *,
    input: str | None = None,
    model: str | None = None,
    options: Options,
    told: Told = Told(),  # noqa: B008
) -> int:
    """Make a picture or a film again from the recipe inside it.

    Parameters
    ----------
    picture
        A picture or a film that Phosphene wrote.
    input
        The photograph or film, if it has moved, or another one to dream in the same way.
    model
        Your own network, if the recipe used one (package.module:callable), or a different one.
    """
    text = recipe_of(picture)
    if model is not None:
        introduce_own(model)
    if "film" in tomllib.loads(text):
        _check_told_of_film(told)
        if options.bits != 8 or options.keep_partial or options.cluster:
            raise UsageError("--bits, --keep-partial and --cluster are for making pictures again, and this is a film")
        means = film.Means(options.output, options.device, options.memory, options.overwrite, told.preview)
        return film.again(text, input, model, means)
    from phosphene.job import differences
    from phosphene.recipe.provenance import from_toml

    chosen, made = from_toml(text)
    chosen = chosen if model is None else chosen.but(model=model)
    source = made.again(input)
    listeners = replace(
        listeners_of(told, options.output, picture, source, *files_of(chosen)), on_start=partial(differences, made)
    )
    return dream_one(source, chosen, options, listeners)


def _check_told_of_film(told: Told) -> None:
    if told.json or told.trace:
        raise UsageError("--json and --trace are for pictures, and this is a film")
