"""Answers about photographs that come in, and pictures that were dreamed."""

from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from phosphene import imagefile
from phosphene.errors import ImageError
from phosphene.studio.films import is_film
from phosphene.studio.folder import Folder
from phosphene.studio.requests import restored
from phosphene.studio.routes.request import folder_of, name_of, number_of, studio_of, write_to

SIDES = (480, 2048)
"""Long sides, in px, of the copies that the page shows: in a grid, and large. Downloads are the files themselves."""


async def keep(request: Request) -> Response:
    """Keep a photograph, and restore what its recipe says if it is a dream."""
    studio = studio_of(request)
    with studio.folder.arriving(request.query_params.get("name", "")) as path:
        await write_to(path, request)
        return JSONResponse(await to_thread.run_sync(_kept, studio.folder, path, limiter=studio.decoding))


def _kept(folder: Folder, arrived: Path) -> dict[str, Any]:
    path, photo = folder.keep(arrived)
    height, width = photo.image.shape[1:]
    return {"name": path.name, "size": (height, width), "notes": photo.notes} | _told_by(path, folder)


async def view_photograph(request: Request) -> Response:
    """A copy of a photograph that is quick to show."""
    return await _view(request, folder_of(request).photograph(name_of(request)))


async def photograph(request: Request) -> Response:
    """A dropped file as it is, for films to be played."""
    return FileResponse(folder_of(request).photograph(name_of(request)))


async def gallery(request: Request) -> Response:
    """The names of the folder's dreams, newest first."""
    return JSONResponse([path.name for path in folder_of(request).pictures()])


async def picture(request: Request) -> Response:
    """What a dream tells of itself."""
    folder, name = folder_of(request), name_of(request)
    told = await to_thread.run_sync(_told_by, folder.picture(name), folder)
    return JSONResponse({"name": name} | told)


async def view_picture(request: Request) -> Response:
    """A copy of a dream that is quick to show."""
    return await _view(request, str(folder_of(request).picture(name_of(request))))


async def download(request: Request) -> Response:
    """A dream's file, as it is."""
    path = folder_of(request).picture(name_of(request))
    return FileResponse(path, filename=path.name)


async def _view(request: Request, source: str) -> Response:
    studio, asked = studio_of(request), number_of(request, "side", SIDES[-1])
    side = min(SIDES, key=lambda side: abs(side - asked))
    return FileResponse(await to_thread.run_sync(studio.folder.view, source, side, limiter=studio.decoding))


def _told_by(path: Path, folder: Folder) -> dict[str, Any]:
    """What a picture's recipe restores, and how its score rose; None each where that is not known."""
    if is_film(path):
        return {"restored": None, "curve": None}
    try:
        return {"restored": restored(imagefile.read_recipe(path), folder), "curve": folder.curve(path)}
    except ImageError:
        return {"restored": None, "curve": None}
