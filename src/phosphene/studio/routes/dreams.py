"""Answers about the queues: orders that come in, how they stand, and what became of them."""

from functools import partial

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from phosphene.studio.cost import check_cost
from phosphene.studio.films import cost_of, preview_cost_of
from phosphene.studio.job_state import Task
from phosphene.studio.queue import Queue
from phosphene.studio.routes.request import folder_of, number_of, order_of, queue_of, studio_of


async def add(request: Request) -> Response:
    """Put an order at the end of a queue."""
    order, folder = await order_of(request), folder_of(request)
    source, recipe = folder.photograph(order.photograph), order.recipe(folder)
    studio, queue = studio_of(request), queue_of(request)
    is_preview = queue is studio.queues["previews"]
    estimate = partial(preview_cost_of, source, recipe) if is_preview else partial(cost_of, source, recipe, order.zoom)
    await to_thread.run_sync(lambda: check_cost([(recipe.model, estimate())], studio.most), limiter=studio.decoding)
    return JSONResponse(queue.add(order).report(), 201)


async def waiting(request: Request) -> Response:
    """Who dreams and who waits, in order."""
    return JSONResponse([task.summary() for task in queue_of(request).unfinished()])


async def report(request: Request) -> Response:
    """How a task stands."""
    queue, task = _task(request)
    return JSONResponse(task.report(number_of(request, "since", 0)) | {"ahead": queue.ahead_of(task)})


async def frame(request: Request) -> Response:
    """The picture of a task as it is now."""
    data = await to_thread.run_sync(_task(request)[1].frame)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def stop(request: Request) -> Response:
    """End a task."""
    queue, task = _task(request)
    return JSONResponse(queue.stop(task.id).report())


def _task(request: Request) -> tuple[Queue, Task]:
    queue = queue_of(request)
    return queue, queue.task(request.path_params["id"])
