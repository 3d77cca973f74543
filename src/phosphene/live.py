"""Dreams in the middle of a program: steps to be pulled, settings that change on the way, running event loops."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

from phosphene.api import dream, ready
from phosphene.dreaming.render import Reached
from phosphene.errors import SettingsError
from phosphene.job import MemoryJob
from phosphene.modes import undisturbed
from phosphene.recipe.own import bound_norm, without
from phosphene.recipe.settings import Ascent, Recipe
from phosphene.recipe.spelling import validated
from phosphene.setup.source import Source
from phosphene.types import Step, Trace
from phosphene.verbs import Dream


class Steps:
    """The steps of a dream, for `for` and for `async for`: the next one is taken when it is asked for.

    `change` takes other settings for the steps to come, and `dream` is the dream as far as it has come.
    """

    def __init__(self, job: MemoryJob) -> None:
        self._job = job
        self._began = perf_counter()
        self._trace = Trace()
        self._last: Step | None = None
        self._changes: list[str] = []
        self._coming = job.steps()
        self._ended = False
        self._awaited: asyncio.Future[Step | None] | None = None

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        with undisturbed():
            if (coming := next(self._coming, None)) is None:
                self._ended = True
                raise StopIteration
        step = replace(coming, seconds=perf_counter() - self._began)
        self._trace.add(step)
        self._last = step
        return step

    def __aiter__(self) -> AsyncIterator[Step]:
        return self

    async def __anext__(self) -> Step:
        """Take a step in a thread, so that the event loop goes on; one that was not waited for is the next one's."""
        if self._awaited is None:
            self._awaited = asyncio.ensure_future(asyncio.to_thread(next, self, None))
        step = await asyncio.shield(self._awaited)
        self._awaited = None
        if step is None:
            raise StopAsyncIteration
        return step

    def change(self, **settings: Any) -> None:
        """Take the steps to come with other settings of the ascent: steps, step_size, norm, jitter, blur, schedules.

        Raises `SettingsError` for another setting or a value out of range. A number takes the place of its schedule.
        """
        for name in settings:
            if name not in Ascent.model_fields:
                allowed = ", ".join(Ascent.model_fields)
                raise SettingsError(f"{name} cannot change within a dream; {allowed} can")
        if self._job.recipe.colour == "original":
            raise SettingsError("a dream in the photograph's colours keeps its settings; colour it when it is done")
        recipe = _changed(self._job.recipe, settings)
        own = bound_norm(recipe.norm) if "norm" in settings else self._job.own
        self._job = replace(self._job, recipe=recipe, own=own)
        where = f"octave {self._last.octave}, step {self._last.step}" if self._last else "the beginning"
        self._changes.append(f"at {where}: {', '.join(f'{name}={value}' for name, value in settings.items())}")
        self._ended = False
        reached = Reached(self._last.octave, self._last.step, self._last.image) if self._last else None
        self._coming = self._job.steps(reached)

    @property
    def recipe(self) -> Recipe:
        """The recipe, with the settings of the steps to come."""
        return self._job.recipe

    @property
    def dream(self) -> Dream:
        """The dream as far as it has come. Its recipe has the last settings; what was changed on the way is said."""
        stopped = "" if self._ended or (self._last and self._last.is_last) else "stopped before its end"
        changed = f"changed {'; '.join(self._changes)}" if self._changes else ""
        image = self._last.image if self._last else None
        with undisturbed():
            return self._job.dreamed(image, self._trace, "; ".join(filter(None, (stopped, changed))) or None)


def _changed(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    kept = {**recipe.model_dump(), "schedules": without(recipe.schedules, *settings)}
    return validated({**kept, **settings})


def steps(image: Source, **settings: Any) -> Steps:
    """Prepare a dream, and return its steps to be pulled: `for step in phosphene.steps("photo.jpg"): ...`.

    Arguments and errors are those of `dream`; the dream is `steps(...).dream`, at any moment.
    """
    return Steps(ready(image, **settings))


async def dream_async(image: Source, **settings: Any) -> Dream:
    """Dream in a thread, while the event loop goes on; cancelled, it ends after the present step.

    Arguments and errors are those of `dream`.
    """
    stop = settings.pop("stop", None) or threading.Event()
    try:
        return await asyncio.to_thread(dream, image, stop=stop, **settings)
    except asyncio.CancelledError:
        stop.set()
        raise
