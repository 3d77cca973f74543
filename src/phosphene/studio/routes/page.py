"""Answers about the page itself, and what there is to choose from."""

from functools import partial

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from phosphene import imagefile
from phosphene.studio import catalogue, thumbnails
from phosphene.studio.requests import shown
from phosphene.studio.routes.request import MAX_BYTES, folder_of, order_of, studio_of


async def page(request: Request) -> Response:
    """The page."""
    return FileResponse(thumbnails.STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def everything(request: Request) -> Response:
    """All that the page builds its controls from."""
    return JSONResponse(catalogue.catalogue() | {"limits": {"bytes": MAX_BYTES, "pixels": imagefile.MAX_PIXELS}})


async def layers(request: Request) -> Response:
    """A model's layers."""
    return JSONResponse(await to_thread.run_sync(catalogue.layers, request.query_params.get("model", "")))


async def thumbnail(request: Request) -> Response:
    """A thumbnail of a look or a layer; dreamed now if it never was."""
    studio, asked = studio_of(request), request.query_params
    model, weights = asked.get("model", ""), asked.get("weights", "pretrained")
    if "look" in asked:
        draw = partial(thumbnails.of_look, studio.folder, model, asked["look"])
    else:
        draw = partial(thumbnails.of_layer, studio.folder, model, asked.get("layer", ""), weights)
    return FileResponse(await to_thread.run_sync(draw, limiter=studio.drawing))


async def recipe(request: Request) -> Response:
    """The recipe that an order means."""
    order, folder = await order_of(request), folder_of(request)
    return JSONResponse(shown(order.recipe(folder), folder.photograph(order.photograph)))
