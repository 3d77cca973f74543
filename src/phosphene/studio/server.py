"""Opening the studio: where it listens, and to whom."""

import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from phosphene import apart
from phosphene.errors import UsageError
from phosphene.studio.app import application
from phosphene.studio.cost import USUAL_MOST
from phosphene.studio.folder import Folder
from phosphene.studio.guard import Guard, is_loopback
from phosphene.studio.prompt import Prompt


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7866,
    password: str | None = None,
    most: float | None = None,
    open_page: bool = False,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Open the studio over `folder`, and return when it is interrupted; a running dream is stopped and kept.

    `most` is what an order may cost, in megapixel-steps; without it, 2000 where others can reach the studio.
    `on_ready` hears the page's address once it can be opened; port 0 takes a free one. Raises `UsageError` for a host
    that others can reach without a password, and for an address that cannot be had; `ImageError` for a folder that
    cannot be made or written in.
    """
    if not is_loopback(host) and not password:
        raise UsageError(f"{host} can be reached from other machines: give --password as well, or leave --host out")
    most = USUAL_MOST if most is None and not is_loopback(host) else most
    studio = application(Folder(folder), most)
    apart.decode_apart()
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}/"
    config = uvicorn.Config(
        Guard(studio, host, password),
        log_level="warning",
        server_header=False,
        http=Prompt,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    on_ready(address)
    if open_page:
        webbrowser.open(address)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"the studio cannot listen on {host}, port {port}: {error.strerror}; try --port") from error
