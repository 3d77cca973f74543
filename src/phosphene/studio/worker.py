"""What the queues' threads do: an order into a picture, or a comparison's plan into its pictures and its report."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from phosphene import imagefile
from phosphene.errors import OutputExistsError, UnknownNameError, WeightsUnavailableError
from phosphene.job import prepare, run
from phosphene.networks import registry, weights
from phosphene.recipe.settings import Recipe
from phosphene.studies import api as studies
from phosphene.studies.run.folder import Progress
from phosphene.studies.run.workers import side_by_side, usual_workers
from phosphene.studio.films import is_film, still_of
from phosphene.studio.folder import Folder
from phosphene.studio.guard import without_places
from phosphene.studio.job_state import State, Task
from phosphene.studio.loading import LOADING
from phosphene.studio.requests import Compared, Order, photograph_of, shown
from phosphene.verbs import Dream, Job

PREVIEW_SIDE = 256


class StoppedError(Exception):
    """Ends a comparison from within, when it is asked to stop."""


def dream_or_compare(task: Task, folder: Folder) -> State:
    """Do what a task of the queue of dreams orders."""
    if isinstance(task.order, Compared):
        return compare(task, task.order.comparison, folder)
    if task.order.zoom is not None or is_film(task.order.photograph):
        return animate(task, task.order, folder)
    return dream(task, task.order, folder)


def dream(task: Task, order: Order, folder: Folder) -> State:
    """Dream an order at its full size, and save the picture; a stopped one is saved as far as it came."""
    job = _prepared(task, order, folder, order.recipe(folder))
    if task.stop.is_set():
        return "stopped"
    dreamed = run(job, task.hear, task.stop)
    task.command = shown(job.recipe, folder.photograph(order.photograph))["command"]
    path = _save(dreamed, order, folder)
    folder.keep_curve(imagefile.checksum(path), dreamed.trace.rows)
    task.picture = path.name
    return "stopped" if dreamed.made.unfinished else "done"


def animate(task: Task, order: Order, folder: Folder) -> State:
    """Dream a film, or zoom into a photograph, and save the film; a stopped one goes on on the command line."""
    from phosphene.film.asked import AskedFilm, AskedZoom
    from phosphene.film.plan import begin
    from phosphene.film.run import run

    source = folder.photograph(order.photograph)
    words: dict[str, Any] = {"source": source, "given": order.recipe(folder).model_dump(mode="json")}
    with LOADING:
        asked = AskedFilm(**words) if order.zoom is None else AskedZoom(**words, zoom=order.zoom)
        ready = begin(asked, folder.free_name(order.title, ".mp4"))
    task.notes, task.size = _told(ready.film.notes, folder), ready.film.size
    task.command = shown(ready.film.recipe, source, order.zoom)["command"]
    written = run(ready, task.hear_of_frame, task.stop)
    if written is None:
        task.notes = (*task.notes, f"`phosphene resume {ready.folder}` goes on with it")
        return "stopped"
    task.picture = written.name
    return "done"


def compare(task: Task, name: str, folder: Folder) -> State:
    """Dream what is left of a comparison, in processes of their own, and write its report."""
    there = folder.comparison(name)
    study = there.plan()
    photograph = photograph_of(study, folder)
    if photograph is None:
        raise UnknownNameError("photograph", Path(study.source).name, [])

    def on_progress(progress: Progress) -> None:
        task.hear_of_cells(progress)
        if (result := progress.ended) and result.picture_sha256:
            folder.keep_curve(result.picture_sha256, result.trace)
        if task.stop.is_set() and progress.done < progress.cells:
            raise StoppedError

    workers = partial(side_by_side, workers=usual_workers("auto"))
    try:
        studies.run(study, imagefile.read(folder.photograph(photograph)), there, workers, on_progress=on_progress)
    except StoppedError:
        return "stopped"
    return "done"


def preview(task: Task, folder: Folder) -> State:
    """Dream an order small; nothing is saved."""
    order = task.order
    assert isinstance(order, Order)
    recipe = order.recipe(folder)
    stay_here(recipe)
    side = PREVIEW_SIDE if recipe.size == "full" else min(PREVIEW_SIDE, recipe.size)
    job = _prepared(task, order, folder, recipe.but(size=side, enlarge=False))
    dreamed = run(job, task.hear, task.stop)
    task.frame()
    return "stopped" if dreamed.made.unfinished else "done"


def stay_here(recipe: Recipe) -> None:
    """Raise `WeightsUnavailableError` where a dream would have to fetch weights; only Dream itself may do that."""
    if recipe.weights == "pretrained" and not weights.is_here(registry.card(recipe.model)):
        raise WeightsUnavailableError(
            f"the weights of {recipe.model} are not on this machine, so there is no preview; Dream fetches them"
        )


def _prepared(task: Task, order: Order, folder: Folder, recipe: Recipe) -> Job:
    with LOADING:
        source = folder.photograph(order.photograph)
        job = prepare(still_of(source) if is_film(source) else source, recipe)
    task.notes, task.size = _told(job.notes, folder), job.made.size
    return job


def _told(notes: Iterable[str], folder: Folder) -> tuple[str, ...]:
    return tuple(without_places(note, folder.root) for note in notes)


def _save(dreamed: Dream, order: Order, folder: Folder) -> Path:
    while True:
        try:
            return dreamed.save(folder.free_name(order.title))
        except OutputExistsError:  # another program took the name in between
            continue
