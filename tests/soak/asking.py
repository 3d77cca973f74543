"""Wrong requests to a real studio: every address, method and body, and bytes that are no request."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from starlette.routing import Route

from phosphene.studio.app import ROUTES
from soak import Attempt, FindingError
from soak.mutate import mutated

BODIES = (
    b"", b"{", b"[]", b"null", b"1", b'"a"', b"{}", b"\xff\xfe", b"[" * 5000, b'{"a":' * 5000, b"NaN", b"x" * 3_000_000,
    b'{"photograph": 1}', b'{"photograph": "sample:coffee", "settings": []}',
    b'{"photograph": "sample:coffee", "settings": {"steps": 1e400}}',
    b'{"photograph": "sample:coffee", "settings": {"layers": {"a": 1}}}',
    b'{"photograph": "sample:coffee", "settings": {"weights": 3, "mask": []}}',
    b'{"photograph": "sample:coffee", "look": "\\ud800"}', b'{"photograph": "\\u0000.png"}',
    b'{"photograph": "sample:coffee", "ways": [{"model": 1}]}', b'{"photograph": "sample:coffee", "ways": []}',
)  # fmt: skip
NAMES = ("a.png", "..%2F..%2Fetc%2Fpasswd", "%00", "%ff", "x" * 3000, ".cache", "%F0%9F%90%95", "a%0Ab", "dreams", "0")
QUERIES = ("", "?model=", "?model=nonsense", "?model=timm/nonsense", "?look=eyes&model=%00", "?side=-1",
           "?since=" + "9" * 99,
           "?model=efficientnet_lite0&layer=nonsense", "?model=efficientnet_lite0&layer=*&weights=/etc/passwd",
           "?name=" + "y" * 3000)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
ORDER = {"photograph": "sample:coffee", "settings": {"steps": 1, "octaves": 1, "size": 40}}


def addresses() -> list[str]:
    """Every address that a studio has."""
    return [route.path for route in ROUTES if isinstance(route, Route)]


def wrong_request(chance: Random) -> tuple[str, str, bytes | None]:
    """A method, an address, a body."""
    path = chance.choice(addresses())
    for part in ("{name:path}", "{name}", "{queue}", "{id}"):
        path = path.replace(part, chance.choice(NAMES))
    return chance.choice(METHODS), path + chance.choice(QUERIES), chance.choice((None, *BODIES))


def check(studio: Any, method: str, path: str, body: bytes | None) -> int:
    """Ask, and look at the answer: below 500, and where it is an error, one sentence in JSON without a path."""
    status, answer = studio.ask(method, path, body)
    assert status < 500, (method, path, body and body[:60], answer)
    if status >= 400:
        assert isinstance(answer, dict), (method, path, status, answer)
        assert answer["error"], (method, path)
        assert "\n" not in answer["error"]
        assert "/root" not in answer["error"]
        assert str(studio.folder) not in answer["error"]
    return int(status)


@contextmanager
def requests(scratch: Path) -> Iterator[Attempt]:
    """Ten requests a try. The studio answers each, and dreams what is asked for in between."""
    from studio.conftest import end, start

    studio = start(scratch / "dreams", "--most", "3")
    begun = studio.memory()

    def attempt(chance: Random) -> Counter[str]:
        out = Counter[str]()
        for _ in range(10):
            way = chance.choice((_wrong, _wrong, _wrong, _nearly, _nearly, _raw, _at_once))
            out += way(studio, chance)
        if studio.ask("GET", "/api/pictures")[0] != 200:
            raise FindingError("it does not answer any more")
        if studio.memory() > begun + 2000:
            raise FindingError(f"from {begun} to {studio.memory()} MB")
        return out

    try:
        yield attempt
    finally:
        end(studio)


def _wrong(studio: Any, chance: Random) -> Counter[str]:
    return Counter([f"{check(studio, *wrong_request(chance)) // 100}xx"])


def _nearly(studio: Any, chance: Random) -> Counter[str]:
    """An order with one damage."""
    body = mutated(json.dumps(ORDER).encode(), chance)
    path = chance.choice(("/api/dreams", "/api/previews", "/api/comparisons", "/api/films"))
    return Counter([f"{check(studio, 'POST', path, body) // 100}xx"])


def _at_once(studio: Any, chance: Random) -> Counter[str]:
    """An order that is cancelled at once, twice, and never was."""
    status, answer = studio.ask("POST", "/api/previews", ORDER)
    out = Counter([f"{status // 100}xx"])
    for id in (answer.get("id", "0"), answer.get("id", "0"), "none"):
        out[f"{check(studio, 'DELETE', f'/api/previews/{id}', None) // 100}xx"] += 1
    return out


def _raw(studio: Any, chance: Random) -> Counter[str]:
    """Bytes that are nearly a request, whole, in pieces, or broken off."""
    body = json.dumps(ORDER)
    lines = (
        f"{chance.choice(METHODS)} {chance.choice(addresses())} HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\n"
        f"Origin: http://127.0.0.1:{studio.port}\r\nContent-Length: {chance.choice((len(body), 0, 10**12, -1))}\r\n\r\n"
    )
    data = mutated((lines + body).encode(), chance)
    with socket.create_connection(("127.0.0.1", studio.port), timeout=2) as connection:
        try:
            connection.sendall(data[: len(data) // 2])
            time.sleep(chance.choice((0, 0, 0.05)))
            connection.sendall(data[len(data) // 2 :])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            return Counter(["closed"])
    if answer.startswith(b"HTTP/1.1 5"):
        raise FindingError(f"{data!r}: {answer!r}")
    return Counter([f"{answer[9:10].decode()}xx" if answer else "closed"])
