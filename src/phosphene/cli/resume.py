"""`phosphene resume`: what was interrupted, pictures and films."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from phosphene.cli import film
from phosphene.cli.dreaming import Told, listeners_of, run_job
from phosphene.places import check_folder


def add_to(app: App) -> None:
    """Register the command."""
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
