"""What a request carries, and what all answers share."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from anyio import CapacityLimiter, open_file
from starlette.requests import Request

from phosphene.errors import UnknownNameError, UsageError
from phosphene.studio.folder import Folder
from phosphene.studio.queue import Queue
from phosphene.studio.requests import Order

MAX_BYTES = 200 * 2**20
MAX_ORDER_BYTES = 2**17


class TooLargeError(UsageError):
    """A request's body is larger than it may be."""


@dataclass(frozen=True)
class Studio:
    """What the answers share. One picture is decoded, and one thumbnail dreamed, at a time: memory stays flat.

    `most` is what an order may cost, in megapixel-steps.
    """

    folder: Folder
    queues: Mapping[str, Queue]
    decoding: CapacityLimiter
    drawing: CapacityLimiter
    most: float | None = None


def studio_of(request: Request) -> Studio:
    """Return the studio that is asked."""
    studio: Studio = request.state.studio
    return studio


def folder_of(request: Request) -> Folder:
    """Return its folder."""
    return studio_of(request).folder


def name_of(request: Request) -> str:
    """Return the name that the address ends with: a photograph's, a picture's, a comparison's."""
    name: str = request.path_params["name"]
    return name


def queue_of(request: Request) -> Queue:
    """Return the queue that the address names. Raises `UnknownNameError`."""
    queues, name = studio_of(request).queues, request.path_params["queue"]
    if name not in queues:
        raise UnknownNameError("queue", name, queues)
    return queues[name]


def number_of(request: Request, name: str, otherwise: int) -> int:
    """Return a whole number that the address asks with; `otherwise` where it is none, or has too many digits."""
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 20 else otherwise


async def order_of(request: Request) -> Order:
    """Read the order in a request's body."""
    return Order.model_validate_json(await text_of(request))


async def text_of(request: Request) -> bytes:
    """Read a request's body, which is at most `MAX_ORDER_BYTES` long. Raises `TooLargeError`."""
    return b"".join([part async for part in _parts(request, MAX_ORDER_BYTES)])


async def write_to(path: Path, request: Request) -> None:
    """Write a request's body, of at most `MAX_BYTES`, to a file as it comes in. Raises `TooLargeError`."""
    async with await open_file(path, "wb") as file:
        async for part in _parts(request, MAX_BYTES):
            await file.write(part)


async def _parts(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield a request's body in parts. Raises `TooLargeError` as soon as it is known to be too large."""
    length = request.headers.get("content-length", "0")
    size = int(length) if length.isdecimal() else 0
    _check_size(size, most)
    size = 0
    async for part in request.stream():
        size += len(part)
        _check_size(size, most)
        yield part


def _check_size(size: int, most: int) -> None:
    if size > most:
        limit = f"{most // 2**20} MB" if most >= 2**20 else f"{most // 2**10} kB"
        raise TooLargeError(f"this is larger than {limit}: give a smaller file")
