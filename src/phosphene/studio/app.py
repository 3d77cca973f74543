"""The studio's addresses, and what happens while it runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from phosphene.errors import PhospheneError, UnknownNameError
from phosphene.recipe.settings import describe_problems
from phosphene.studio import thumbnails
from phosphene.studio import worker as work
from phosphene.studio.folder import Folder
from phosphene.studio.guard import without_places
from phosphene.studio.queue import Queue
from phosphene.studio.routes import comparisons as comparing
from phosphene.studio.routes import dreams, pictures
from phosphene.studio.routes import page as choices
from phosphene.studio.routes.request import Studio, TooLargeError

ROUTES = [
    Route("/", choices.page),
    Route("/api/catalogue", choices.everything),
    Route("/api/layers", choices.layers),
    Route("/api/thumbnail", choices.thumbnail),
    Route("/api/recipe", choices.recipe, methods=["POST"]),
    Route("/api/photographs", pictures.keep, methods=["POST"]),
    Route("/api/photographs/{name}/view", pictures.view_photograph),
    Route("/api/photographs/{name}/file", pictures.photograph),
    Route("/api/pictures", pictures.gallery),
    Route("/api/pictures/{name:path}/view", pictures.view_picture),
    Route("/api/pictures/{name:path}/file", pictures.download),
    Route("/api/pictures/{name:path}", pictures.picture),
    Route("/api/comparisons", comparing.gallery),
    Route("/api/comparisons", comparing.add, methods=["POST"]),
    Route("/api/comparisons/{name}", comparing.comparison),
    Route("/api/comparisons/{name}", comparing.go_on, methods=["POST"]),
    Route("/api/comparisons/{name}/report", comparing.report),
    Route("/api/{queue}", dreams.add, methods=["POST"]),
    Route("/api/{queue}", dreams.waiting),
    Route("/api/{queue}/{id}", dreams.report),
    Route("/api/{queue}/{id}/frame", dreams.frame),
    Route("/api/{queue}/{id}/stop", dreams.stop, methods=["POST"]),
    Mount("/static", StaticFiles(directory=thumbnails.STATIC)),
]


def application(folder: Folder, most: float | None = None) -> Starlette:
    """Return the application; while it runs, so do its queues' threads. `most` is what an order may cost."""
    return Starlette(
        routes=ROUTES,
        exception_handlers={
            PhospheneError: _say,
            ValidationError: _say_invalid,
            HTTPException: _say_http,
            ClientDisconnect: _say_gone,
            OSError: _say_disk,
            Exception: _say_broken,
        },
        lifespan=partial(_running, folder=folder, most=most),
    )


@asynccontextmanager
async def _running(app: Starlette, folder: Folder, most: float | None) -> AsyncIterator[dict[str, Studio]]:
    told = partial(without_places, root=folder.root)
    queues = {
        "dreams": Queue(partial(work.dream_or_compare, folder=folder), told, folder=folder.orders),
        "previews": Queue(partial(work.preview, folder=folder), told, kept=40),
    }
    yield {"studio": Studio(folder, queues, CapacityLimiter(1), CapacityLimiter(1), most)}
    for queue in queues.values():
        await to_thread.run_sync(queue.close)


def _say(request: Request, error: Exception) -> Response:
    status = {TooLargeError: 413, UnknownNameError: 404}.get(type(error), 422)
    return JSONResponse({"error": without_places(str(error), request.state.studio.folder.root)}, status)


def _say_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    sentence = describe_problems(error.errors(include_url=False))
    return JSONResponse({"error": without_places(sentence, request.state.studio.folder.root)}, 422)


def _say_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _say_gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "what was sent broke off: send it again"}, 400)


def _say_disk(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    return JSONResponse({"error": f"the studio's folder cannot be read or written: {error.strerror}"}, 507)


def _say_broken(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error: the details are in the terminal where the studio was started"}, 500)
