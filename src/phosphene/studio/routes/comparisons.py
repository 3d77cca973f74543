"""Answers about comparisons: each is a folder with its plan, its dreams and its report."""

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from phosphene.studio import guard
from phosphene.studio.comparisons import Comparison, described, planned
from phosphene.studio.job_state import Task
from phosphene.studio.requests import Compared
from phosphene.studio.routes.request import folder_of, name_of, studio_of, text_of


async def add(request: Request) -> Response:
    """Plan a comparison, and put it at the end of the queue of dreams."""
    studio = studio_of(request)
    asked = Comparison.model_validate_json(await text_of(request))
    name = await to_thread.run_sync(planned, asked, studio.folder, studio.most, limiter=studio.decoding)
    return JSONResponse(_dreamed(request, name).report(), 201)


async def go_on(request: Request) -> Response:
    """Dream what is left of a comparison, unless that is going on already."""
    name = name_of(request)
    folder_of(request).comparison(name)
    task = _task(request, name)
    return JSONResponse((task if task and task.unfinished else _dreamed(request, name)).report(), 201)


async def gallery(request: Request) -> Response:
    """The names of the folder's comparisons, newest first."""
    return JSONResponse(await to_thread.run_sync(folder_of(request).comparisons))


async def comparison(request: Request) -> Response:
    """What is there of a comparison, and how its latest task stands if the queue knows one."""
    name = name_of(request)
    known = await to_thread.run_sync(described, name, folder_of(request))
    task = _task(request, name)
    return JSONResponse(known | {"task": task.report() if task else None})


async def report(request: Request) -> Response:
    """A comparison's report, shut off from the studio and from everything else."""
    return FileResponse(folder_of(request).report(name_of(request)), headers=guard.SHUT_OFF)


def _dreamed(request: Request, name: str) -> Task:
    return studio_of(request).queues["dreams"].add(Compared(comparison=name))


def _task(request: Request, name: str) -> Task | None:
    return studio_of(request).queues["dreams"].latest(Compared(comparison=name))
