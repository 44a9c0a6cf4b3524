"""Streams whose end is seen to, however they end."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Closing(StreamingResponse):
    """A stream that closes what it reads from.

    A generator that is left in the middle runs its ``finally`` when it is collected, and one that
    was never begun runs it never: neither is when the client went.

    Args:
        pieces: what is sent.
        close: called once at the end, also when the client went away.
        status: of the answer.
        media_type: of the answer; None leaves the header out.
        headers: of the answer.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        *,
        status: int = 200,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(pieces, status, headers, media_type)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces, and close."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Whoever cancels this must not cancel the closing too.
            with anyio.CancelScope(shield=True):
                await self._close()
