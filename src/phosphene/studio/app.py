"""The studio's addresses, and what each answers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from phosphene import imagefile
from phosphene.errors import ImageError, PhospheneError, UnknownNameError, UsageError
from phosphene.settings import describe_problems
from phosphene.studio import thumbnails, work
from phosphene.studio.catalogue import catalogue, layers
from phosphene.studio.folder import Folder
from phosphene.studio.orders import Order, restored, shown
from phosphene.studio.queue import Queue

MAX_BYTES = 200 * 2**20
MAX_ORDER_BYTES = 2**20
SIDES = (480, 2048)
"""Long sides, in px, of the copies that the page shows: in a grid, and large. Downloads are the files themselves."""


class TooLargeError(UsageError):
    """A request's body is larger than it may be."""


@dataclass(frozen=True)
class Studio:
    """What the handlers share. One picture is decoded, and one thumbnail dreamed, at a time: memory stays flat."""

    folder: Folder
    queues: Mapping[str, Queue]
    decoding: CapacityLimiter
    drawing: CapacityLimiter


def application(folder: Folder) -> Starlette:
    """Return the application; while it runs, so do its queues' threads."""
    return Starlette(
        routes=[
            Route("/", _page),
            Route("/api/catalogue", _catalogue),
            Route("/api/layers", _layers),
            Route("/api/thumbnail", _thumbnail),
            Route("/api/recipe", _recipe, methods=["POST"]),
            Route("/api/photographs", _keep, methods=["POST"]),
            Route("/api/photographs/{name}/view", _view_photograph),
            Route("/api/pictures", _pictures),
            Route("/api/pictures/{name}", _picture),
            Route("/api/pictures/{name}/view", _view_picture),
            Route("/api/pictures/{name}/file", _download),
            Route("/api/{queue}", _order, methods=["POST"]),
            Route("/api/{queue}", _waiting),
            Route("/api/{queue}/{id}", _report),
            Route("/api/{queue}/{id}/frame", _frame),
            Route("/api/{queue}/{id}/stop", _stop, methods=["POST"]),
            Mount("/static", StaticFiles(directory=thumbnails.STATIC)),
        ],
        exception_handlers={PhospheneError: _say, ValidationError: _say_invalid},
        lifespan=partial(_running, folder=folder),
    )


@asynccontextmanager
async def _running(app: Starlette, folder: Folder) -> AsyncIterator[dict[str, Studio]]:
    queues = {
        "dreams": Queue(partial(work.dream, folder=folder)),
        "previews": Queue(partial(work.preview, folder=folder), kept=40),
    }
    yield {"studio": Studio(folder, queues, CapacityLimiter(1), CapacityLimiter(1))}
    for queue in queues.values():
        await to_thread.run_sync(queue.close)


# --- the page, and what there is to choose from


async def _page(request: Request) -> Response:
    return FileResponse(thumbnails.STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _catalogue(request: Request) -> Response:
    return JSONResponse(catalogue() | {"limits": {"bytes": MAX_BYTES, "pixels": imagefile.MAX_PIXELS}})


async def _layers(request: Request) -> Response:
    return JSONResponse(await to_thread.run_sync(layers, request.query_params.get("model", "")))


async def _thumbnail(request: Request) -> Response:
    studio, asked = _studio(request), request.query_params
    model, weights = asked.get("model", ""), asked.get("weights", "pretrained")
    if "look" in asked:
        draw = partial(thumbnails.of_look, studio.folder, model, asked["look"])
    else:
        draw = partial(thumbnails.of_layer, studio.folder, model, asked.get("layer", ""), weights)
    return FileResponse(await to_thread.run_sync(draw, limiter=studio.drawing))


async def _recipe(request: Request) -> Response:
    order, folder = await _read_order(request), _studio(request).folder
    return JSONResponse(shown(order.recipe(folder), folder.photograph(order.photograph)))


# --- photographs that come in


async def _keep(request: Request) -> Response:
    studio = _studio(request)
    data = await _body(request, MAX_BYTES)
    keep = partial(_kept, studio.folder, data, request.query_params.get("name", ""))
    return JSONResponse(await to_thread.run_sync(keep, limiter=studio.decoding))


def _kept(folder: Folder, data: bytes, name: str) -> dict[str, Any]:
    path, photo = folder.keep(data, name)
    height, width = photo.image.shape[1:]
    known = {"name": path.name, "size": (height, width), "notes": photo.notes}
    return known | {"restored": _restored(path, folder)}


async def _view_photograph(request: Request) -> Response:
    folder = _studio(request).folder
    return await _view(request, folder.photograph(request.path_params["name"]))


# --- pictures that were dreamed


async def _pictures(request: Request) -> Response:
    return JSONResponse([path.name for path in _studio(request).folder.pictures()])


async def _picture(request: Request) -> Response:
    folder = _studio(request).folder
    path = folder.picture(request.path_params["name"])
    return JSONResponse({"name": path.name, "restored": await to_thread.run_sync(_restored, path, folder)})


async def _view_picture(request: Request) -> Response:
    return await _view(request, str(_studio(request).folder.picture(request.path_params["name"])))


async def _download(request: Request) -> Response:
    path = _studio(request).folder.picture(request.path_params["name"])
    return FileResponse(path, filename=path.name)


async def _view(request: Request, source: str) -> Response:
    studio, asked = _studio(request), request.query_params.get("side", "")
    side = min(SIDES, key=lambda side: abs(side - int(asked))) if asked.isdecimal() else SIDES[-1]
    return FileResponse(await to_thread.run_sync(studio.folder.view, source, side, limiter=studio.decoding))


def _restored(path: Path, folder: Folder) -> dict[str, Any] | None:
    try:
        return restored(imagefile.read_recipe(path), folder)
    except ImageError:
        return None


# --- the queues


async def _order(request: Request) -> Response:
    order, folder = await _read_order(request), _studio(request).folder
    folder.photograph(order.photograph)
    order.recipe(folder)
    return JSONResponse(_queue(request).add(order).report(), 201)


async def _waiting(request: Request) -> Response:
    return JSONResponse([task.summary() for task in _queue(request).unfinished()])


async def _report(request: Request) -> Response:
    queue, since = _queue(request), request.query_params.get("since", "0")
    task = queue.task(request.path_params["id"])
    return JSONResponse(task.report(int(since) if since.isdecimal() else 0) | {"ahead": queue.ahead_of(task)})


async def _frame(request: Request) -> Response:
    frame = await to_thread.run_sync(_queue(request).task(request.path_params["id"]).frame)
    return Response(frame, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def _stop(request: Request) -> Response:
    return JSONResponse(_queue(request).stop(request.path_params["id"]).report())


# --- reading requests, saying errors


def _studio(request: Request) -> Studio:
    studio: Studio = request.state.studio
    return studio


def _queue(request: Request) -> Queue:
    queues, name = _studio(request).queues, request.path_params["queue"]
    if name not in queues:
        raise UnknownNameError("queue", name, queues)
    return queues[name]


async def _read_order(request: Request) -> Order:
    return Order.model_validate_json(await _body(request, MAX_ORDER_BYTES))


async def _body(request: Request, most: int) -> bytes:
    """Read a request's body. Raises `TooLargeError` as soon as it is known to be too large."""
    length = request.headers.get("content-length", "0")
    parts, size = [], int(length) if length.isdecimal() else 0
    if size <= most:
        size = 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > most:
                break
    if size > most:
        raise TooLargeError(f"this is larger than {most // 2**20} MB: give a smaller file")
    return b"".join(parts)


def _say(request: Request, error: Exception) -> Response:
    status = {TooLargeError: 413, UnknownNameError: 404}.get(type(error), 422)
    return JSONResponse({"error": str(error)}, status)


def _say_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    return JSONResponse({"error": describe_problems(error.errors())}, 422)
