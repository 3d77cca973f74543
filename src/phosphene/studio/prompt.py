"""Connections that keep nobody waiting: those that stand still are ended, and those beyond so many get no answer but
that."""

import asyncio
from typing import Any

import h11
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from phosphene.studio.guard import in_json

HEAD_SECONDS, BODY_SECONDS = 20.0, 60.0
"""How long a request's head may take, and the next part of its body or of its answer."""

MOST_CONNECTIONS = 256

BUSY = JSONResponse({"error": "Too many are asking: try again in a minute."}, 429, {"Connection": "close"})


class Prompt(H11Protocol):
    """A connection that is ended where a request does not come on or an answer is not taken; it says in JSON what is
    wrong."""

    _ending: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)
        if len(self.connections) > MOST_CONNECTIONS:
            self.app = BUSY
        self._end_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._end_in(None)
        self.resume_writing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Wait for the rest of a request, if there is one; called for what came, and behind each answer."""
        super().handle_events()
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._end_in(BODY_SECONDS)
        elif state is not h11.IDLE:
            self._end_in(None)
        elif self._ending is None:
            self._end_in(HEAD_SECONDS)

    def pause_writing(self) -> None:
        """Wait until all is taken of an answer; called when not all of it could be sent at once."""
        super().pause_writing()
        self._end_unread(0)

    def resume_writing(self) -> None:
        """Wait for that no more."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, unless an answer has begun."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = in_json(msg)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        events: list[Any] = [
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _end_in(self, seconds: float | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = None if seconds is None else self.loop.call_later(seconds, self.transport.close)

    def _end_unread(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left == before:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(BODY_SECONDS, self._end_unread, left)
