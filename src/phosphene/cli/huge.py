"""Dreams that do not fit into memory."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from phosphene.cli.progress import Listeners, stopped_by_interrupt

if TYPE_CHECKING:
    from phosphene.disk.plan import Huge
    from phosphene.recipe.settings import Recipe

INTERRUPTED = 130


def add_to(app: App) -> None:
    """Register the commands."""
    app.command(thumbnail)


def streams(source: str, chosen: Recipe, device: str, memory: str | None, cluster: str | None) -> bool:
    """Whether a dream has to go by way of the disk; never, where the libraries for it are missing."""
    if cluster is not None:
        return True
    if find_spec("zarr") is None or find_spec("pyvips") is None:
        return False
    from phosphene.disk.plan import is_too_large

    return is_too_large(source, chosen, device, memory)


def stream(
    source: str,
    target: Path,
    chosen: Recipe,
    listeners: Listeners,
    device: str,
    memory: str | None,
    cluster: str | None,
    bits: Literal[8, 16],
    overwrite: bool,
) -> int:
    """Dream by way of the disk, and return the exit code."""
    from phosphene.disk.plan import begin

    huge = begin(source, chosen, target, device=device, memory=memory, bits=bits, overwrite=overwrite)
    return go_on(huge, listeners, cluster)


def thumbnail(
    picture: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    size: int = 1024,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make a small picture of a large one, without reading all of it where it has a pyramid.

    Parameters
    ----------
    picture
        A picture file of any size.
    output
        The small picture to write.
    size
        Its long side, in px.
    overwrite
        Replace what is there.
    """
    from phosphene.disk.files import thumbnail as write_thumbnail
    from phosphene.imagefile import check_output

    check_output(output, overwrite)
    write_thumbnail(picture, output, size)
    print(output)


def go_on(huge: Huge, listeners: Listeners, cluster: str | None) -> int:
    """Dream by way of the disk, or what is left of it, and return the exit code."""
    from phosphene.cluster import cluster_map
    from phosphene.disk.run import run

    made = huge.order.made
    listeners.start(made.source, made, huge.order.recipe, huge.notes)
    workers = cluster_map(cluster, huge.order.device) if cluster else nullcontext(map)
    with stopped_by_interrupt() as stop, workers as over:
        rows = run(huge, listeners.step, stop, over)
    if rows is None:
        listeners.finish([])
        print(f"phosphene: stopped; `phosphene resume {huge.folder}` goes on with it", file=sys.stderr)
        return INTERRUPTED
    listeners.finish(rows)
    listeners.saved(made.source, huge.output, rows)
    return 0
