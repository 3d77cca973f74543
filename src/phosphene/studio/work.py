"""What the queues' threads do: one order into one picture."""

import threading

from phosphene.errors import OutputExistsError, WeightsUnavailableError
from phosphene.job import Dream, Job, prepare, run
from phosphene.models import registry, weights
from phosphene.settings import Recipe
from phosphene.studio.folder import Folder
from phosphene.studio.orders import shown
from phosphene.studio.queue import State, Task

PREVIEW_SIDE = 256

LOADING = threading.Lock()
"""Held while a network is built or loaded: two threads would load it twice, and share torch's random state."""


def dream(task: Task, folder: Folder) -> State:
    """Dream an order at its full size, and save the picture; a stopped one is saved as far as it came."""
    job = _prepared(task, folder, task.order.recipe(folder))
    if task.stop.is_set():
        return "stopped"
    dreamed = run(job, task.hear, task.stop)
    task.command = shown(job.recipe, folder.photograph(task.order.photograph))["command"]
    task.picture = _save(dreamed, task, folder)
    return "stopped" if dreamed.made.unfinished else "done"


def preview(task: Task, folder: Folder) -> State:
    """Dream an order small; nothing is saved."""
    recipe = task.order.recipe(folder)
    stay_here(recipe)
    side = PREVIEW_SIDE if recipe.size == "full" else min(PREVIEW_SIDE, recipe.size)
    job = _prepared(task, folder, recipe.but(size=side, enlarge=False))
    dreamed = run(job, task.hear, task.stop)
    task.frame()
    return "stopped" if dreamed.made.unfinished else "done"


def stay_here(recipe: Recipe) -> None:
    """Raise `WeightsUnavailableError` where a dream would have to fetch weights; only Dream itself may do that."""
    if recipe.weights == "pretrained" and not weights.is_here(registry.card(recipe.model)):
        raise WeightsUnavailableError(
            f"the weights of {recipe.model} are not on this machine, so there is no preview; Dream fetches them"
        )


def _prepared(task: Task, folder: Folder, recipe: Recipe) -> Job:
    with LOADING:
        job = prepare(folder.photograph(task.order.photograph), recipe)
    task.notes, task.size = (*job.photo.notes, *job.notes), job.made.size
    return job


def _save(dreamed: Dream, task: Task, folder: Folder) -> str:
    while True:
        try:
            return dreamed.save(folder.free_name(task.order.title)).name
        except OutputExistsError:  # another program took the name in between
            continue
