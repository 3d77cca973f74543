"""Who may ask: this machine's own browser, at this studio's own address, and with a password anyone who knows it.

A page of another site can send requests to 127.0.0.1, and with a name that it points here (DNS rebinding) even read
the answers. So a request must name the studio's address as its host, and one that changes anything must come from a
page of that same address.
"""

import asyncio
import base64
import hmac
import ipaddress
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
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
SECONDS_AFTER_A_WRONG_PASSWORD = 0.5


@dataclass(frozen=True)
class Guard:
    """An ASGI application before the studio's: it answers what is not allowed, and passes the rest on."""

    app: ASGIApp
    host: str
    password: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = await self._refusal(scope["method"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_with_headers)

    async def _refusal(self, method: str, headers: Headers) -> Response | None:
        if not is_own_host(headers.get("host", ""), self.host):
            return PlainTextResponse("The studio does not answer to this host name.", 403)
        if method not in ("GET", "HEAD") and not _is_same_origin(headers):
            return PlainTextResponse("The studio takes orders from its own page only.", 403)
        if self.password is not None and not _knows(self.password, headers.get("authorization", "")):
            if "authorization" in headers:
                await asyncio.sleep(SECONDS_AFTER_A_WRONG_PASSWORD)
            return PlainTextResponse(
                "The studio's password, please.", 401, {"WWW-Authenticate": 'Basic realm="studio"'}
            )
        return None


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
