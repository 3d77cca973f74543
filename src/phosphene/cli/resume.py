"""`phosphene resume`: what was interrupted, pictures and films."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from phosphene.cli import film, huge
from phosphene.cli.progress import Listeners


def add_to(app: App) -> None:
    """Register the command."""
    app.command(resume)


def resume(
    folder: Path, /, *, cluster: str | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> int:
    """Go on with a dream or a film that was interrupted; it ends as if nothing had happened.

    Parameters
    ----------
    folder
        The folder that the dream left beside its output, OUTPUT.phosphene.
    cluster
        The address of a Ray cluster, or local; the folder is on storage that its machines share.
    json
        Print events as JSON lines.
    """
    if (folder / "zoom.json").exists():
        from phosphene.film.zoom import reopen as reopen_zoom

        return film.go_on_zooming(reopen_zoom(folder))
    if (folder / "film.json").exists():
        from phosphene.film.plan import reopen as reopen_film

        return film.go_on(reopen_film(folder))
    from phosphene.disk.plan import reopen

    return huge.go_on(reopen(folder), Listeners(json=json), cluster)
