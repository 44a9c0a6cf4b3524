"""What keeps a server well: bodies and headers have a size and a time, and so has every write."""

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from loratelier.serve.api.errors import ApiError

HEADER_SECONDS = 10.0


@dataclass(frozen=True)
class Limits:
    """``body_bytes`` of a request; seconds for its body to come in, and for one write to go out."""

    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 20.0
    write_seconds: float = 30.0


class Limited:
    """Reads a request's body before the app sees it, within the limits.

    A body that is too large is answered 413, one that comes too slowly 408; a client that does not
    read its answer is let go.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body, and let the app answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except ApiError as error:
            # The rest of the body is not read, so the connection cannot go on.
            error.headers["Connection"] = "close"
            await error.response()(scope, receive, send)
            return
        if body is None:
            return
        writing = _Timed(send, self._limits.write_seconds)
        try:
            await self._app(scope, _again(body, receive), writing)
        except Exception:
            # A client that does not read is let go without more ado; all else is a fault.
            if not writing.is_late:
                raise

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        most = self._limits.body_bytes
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > most:
            raise _too_large(most)
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    piece = message.get("body", b"")
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    pieces.append(piece)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            said = f"The body did not come within {self._limits.body_seconds:g} seconds"
            raise ApiError(408, said, code="timeout") from None


class _Timed:
    """A send that gives up on a client that does not read."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self.is_late = False

    async def __call__(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            self.is_late = True
            raise


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than {most} bytes", code="body_too_large")


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body, and then what the connection says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class Patient(H11Protocol):
    """uvicorn's protocol, which waits for a request's headers for a limited time only.

    Without it a client that sends one header line a minute holds its connection for ever.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait on while headers are incomplete, and no longer once a request is there."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._rest()
        super().connection_lost(exc)

    def _wait(self) -> None:
        # Not begun anew by every byte: a trickle must not hold it off.
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEADER_SECONDS, self._enough)

    def _rest(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _enough(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
