"""Who may ask: this machine's own browser, at this studio's own address, and with a password anyone who knows it.

A page of another site can send requests to 127.0.0.1, and with a name that it points here (DNS rebinding) even read
the answers. So a request must name the studio's address as its host, a browser must not say that it comes from another
site (even GET costs: a thumbnail of a layer is dreamed), and one that changes anything must come from a page of that
same address.
"""

import base64
import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' blob:; "
        "media-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SHUT_OFF = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "unsafe-none",
}
"""For a page that carries all that it shows: its scripts run, as those of no site, and can ask for nothing. A sandboxed
page may not have the opener policy of the others."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before an address may try a password again: after its first wrong one, and at most. They double each time."""

MOST_ADDRESSES = 10_000

LONGEST_SENTENCE = 800
"""Letters; of what a visitor made longer, by a long name that it repeats, the middle is left out."""


@dataclass
class Patience:
    """How long each address has to wait before another password of it is looked at, however many connections it has.

    The network of an IPv6 address (its first 64 bits) counts as one. Only so many are remembered, the latest.
    """

    waits: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def left(self, address: str) -> float:
        """Seconds that an address still has to wait."""
        return max(0.0, self.waits.get(_network(address), (0.0, 0.0))[1] - time.monotonic())

    def was_wrong(self, address: str) -> None:
        """Let an address wait, twice as long as the last time."""
        network = _network(address)
        wait = min(2 * self.waits.pop(network, (FIRST_WAIT / 2, 0.0))[0], LONGEST_WAIT)
        self.waits[network] = (wait, time.monotonic() + wait)
        while len(self.waits) > MOST_ADDRESSES:
            self.waits.popitem(last=False)

    def was_right(self, address: str) -> None:
        """Forget an address."""
        self.waits.pop(_network(address), None)


@dataclass(frozen=True)
class Guard:
    """An ASGI application before the studio's: it answers what is not allowed, and passes the rest on."""

    app: ASGIApp
    host: str
    password: str | None
    patience: Patience = field(default_factory=Patience)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        instead = b""

        async def send_with_headers(message: Message) -> None:
            nonlocal instead
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] >= 400 and headers.get("content-type") != "application/json":
                    instead = in_json(f"The studio cannot answer this: {HTTPStatus(message['status']).phrase}.")
                    headers["content-type"], headers["content-length"] = "application/json", str(len(instead))
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            elif instead:
                message = {"type": "http.response.body", "body": instead}
            await send(message)

        address = (scope.get("client") or ("",))[0]
        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope), address)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers, address: str) -> Response | None:
        if not is_own_host(headers.get("host", ""), self.host):
            return _no("The studio does not answer to this host name.", 403)
        if not _is_from_here(headers) and not (path == "/" and headers.get("sec-fetch-mode") == "navigate"):
            return _no("The studio answers its own page only.", 403)
        if method not in ("GET", "HEAD") and not _is_same_origin(headers):
            return _no("The studio takes orders from its own page only.", 403)
        if self.password is None:
            return None
        given = headers.get("authorization")
        if given is not None and (left := self.patience.left(address)):
            wait = {"Retry-After": str(int(left) + 1)}
            return _no(f"Too many wrong passwords: the next one is looked at in {left:.1f} s.", 429, wait)
        if given is not None and _knows(self.password, given):
            self.patience.was_right(address)
            return None
        if given is not None:
            self.patience.was_wrong(address)
        return _no("The studio's password, please.", 401, {"WWW-Authenticate": 'Basic realm="studio"'})


def in_json(sentence: str) -> bytes:
    """An error as all of the studio's are answered."""
    return bytes(JSONResponse({"error": sentence}).body)


def _no(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def without_places(sentence: str, root: Path) -> str:
    """A sentence for visitors, short: of a file on this machine they learn the name, not where it is.

    `root` is the studio's folder; it may have any name, and may be spelt from where the studio was started.
    """
    for place in sorted({str(root.absolute()), str(root.resolve()), str(root)} - {"."}, key=len, reverse=True):
        for spelt in (place, repr(place)[1:-1]):
            sentence = re.sub(rf"(?<![\w/.]){re.escape(spelt)}/", "", sentence)
    sentence = re.sub(r"(?<![\w/.-])(?:\.cache/tmp\w+|photographs|comparisons)/", "", sentence)
    sentence = re.sub(r"(?<![\w:/.~])~?/(?:[^\s'\"/]+/)+", "", sentence)
    if len(sentence) <= LONGEST_SENTENCE:
        return sentence
    return f"{sentence[: LONGEST_SENTENCE // 2]} ... {sentence[-LONGEST_SENTENCE // 2 :]}"


def is_own_host(header: str, listens_on: str) -> bool:
    """Whether a Host header names this machine: an address, which no site can point elsewhere, or our own name."""
    name = header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header
    name = name.strip("[]").lower()
    if name in ("localhost", listens_on.lower()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback if is_loopback(listens_on) else True


def is_loopback(host: str) -> bool:
    """Whether what listens on this host can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_from_here(headers: Headers) -> bool:
    """Whether no other site's page made a browser ask, even for a picture; who is no browser does not say."""
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _is_same_origin(headers: Headers) -> bool:
    scheme, _, host = headers.get("origin", "").partition("://")
    return scheme in ("http", "https") and host == headers["host"]


def _knows(password: str, authorization: str) -> bool:
    kind, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError:
        return False
    return kind.lower() == "basic" and hmac.compare_digest(given, password.encode())
