"""`phosphene resume` and `replay`: what was interrupted, and what is made again; pictures and films."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from cyclopts import App

from phosphene.cli import film
from phosphene.cli.dreaming import VIDEOS, Options, Told, dream_one, introduce_own, listeners_of, run_job
from phosphene.errors import UsageError
from phosphene.places import check_folder


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(replay)
    app.command(resume)


def resume(folder: Path, /, *, cluster: str | None = None, told: Told = Told()) -> int:  # noqa: B008
    """Go on with a dream or a film that was interrupted; it ends as if nothing had happened.

    Parameters
    ----------
    folder
        The folder that the dream left beside its output, OUTPUT.phosphene.
    cluster
        The address of a Ray cluster, or local; the folder is on storage that its machines share.
    """
    check_folder(folder)
    listeners = listeners_of(told)
    if (folder / "zoom.json").exists():
        from phosphene.film.zoom import reopen as reopen_zoom

        return film.go_on_zooming(reopen_zoom(folder))
    if (folder / "film.json").exists():
        from phosphene.film.plan import reopen

        return film.go_on(reopen(folder))
    from phosphene.job import resume as go_on

    return run_job(go_on(folder, cluster), listeners)


def replay(
    picture: Path,
    /,
    *,
    input: str | None = None,
    model: str | None = None,
    options: Options,
    told: Told = Told(),  # noqa: B008
) -> int:
    """Make a picture or a film again from the recipe that it carries.

    Parameters
    ----------
    picture
        A picture or a film that Phosphene wrote.
    input
        The photograph or the film, if it is not where the recipe says, or another one to dream in the same way.
    model
        The network, if the recipe's was your own, as package.module:callable, or another one.
    """
    if picture.suffix.lower() in VIDEOS:
        if model is not None or options.bits != 8 or options.keep_partial or options.cluster:
            raise UsageError(
                "a film is made again as it was: --model, --bits, --keep-partial and --cluster are for pictures"
            )
        return film.again(picture, input, options.output, options.device, options.memory, options.overwrite)
    from phosphene.imagefile import read_recipe
    from phosphene.job import differences
    from phosphene.recipe.provenance import from_toml

    chosen, made = from_toml(read_recipe(picture))
    if model is not None:
        introduce_own(model)
        chosen = chosen.but(model=model)
    listeners = replace(listeners_of(told, options.output, picture, input), on_start=partial(differences, made))
    return dream_one(input or made.source, chosen, options, listeners)
