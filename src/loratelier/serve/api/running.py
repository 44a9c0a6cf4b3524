"""Requests at work: tickets of the engine, read by threads, heard by the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from loratelier.serve.api.errors import ApiError
from loratelier.serve.api.face import Ticket, Writer
from loratelier.serve.engine.asked import Asked, Busy, Event

# What an answer that did not come to its end is answered with.
_BROKEN = {
    "deadline": (504, "The answer took longer than this server allows"),
    "shutdown": (503, "The server is being stopped"),
    "cancelled": (503, "The answer was cancelled"),
    "error": (500, "The answer broke off"),
}


@dataclass(frozen=True)
class Heard:
    """An event of one of several answers."""

    index: int
    event: Event


class Running:
    """Answers being written.

    Args:
        engine: writes them.
        asked: one for each answer.
    """

    def __init__(self, engine: Writer, asked: Sequence[Asked]) -> None:
        self._engine = engine
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[Heard | None] = asyncio.Queue()
        self.tickets: list[Ticket] = []

    async def begin(self) -> None:
        """Ask for the answers.

        Raises:
            ApiError: 429, when the queue is full.
            InputError: what is asked cannot be carried out.
        """
        try:
            # In a thread: a schema takes a while to read.
            await run_in_threadpool(self._submit)
        except Busy as error:
            self.cancel()
            raise ApiError(
                429, "The queue is full", code="queue_full", headers={"Retry-After": "1"}
            ) from error
        except BaseException:
            self.cancel()
            raise

    def _submit(self) -> None:
        for each in self._asked:
            self.tickets.append(self._engine.submit(each))

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that were in the cache."""
        return sum(ticket.cached_tokens for ticket in self.tickets)

    def cancel(self) -> None:
        """Stop writing."""
        for ticket in self.tickets:
            ticket.cancel()

    async def events(self) -> AsyncIterator[Heard]:
        """Yield what is written, until every answer has ended.

        Raises:
            ApiError: an answer broke off.
        """
        for index, ticket in enumerate(self.tickets):
            threading.Thread(
                target=self._listen, args=(index, ticket), name="loratelier-answer", daemon=True
            ).start()
        left = len(self.tickets)
        while left:
            heard = await self._heard.get()
            if heard is None:
                left -= 1
                continue
            if heard.event.finish in _BROKEN:
                status, said = _BROKEN[heard.event.finish]
                raise ApiError(status, said, code=heard.event.finish)
            yield heard

    def _listen(self, index: int, ticket: Ticket) -> None:
        try:
            for event in ticket.events():
                self._tell(Heard(index, event))
        finally:
            self._tell(None)

    def _tell(self, heard: Heard | None) -> None:
        # A loop that is closed has nobody who listens.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._heard.put_nowait, heard)
