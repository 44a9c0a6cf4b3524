"""The feed that every open page listens to: what changed, in one order for all of them.

An event has a number. A page that lost its connection says the last number it saw and gets what it
missed; one that was away too long, or comes from an earlier server, gets everything anew.
"""

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

Event = tuple[int, dict[str, Any]]
_KEPT = 500


class Hub:
    """A feed with memory. :meth:`tell` may be called from any thread."""

    def __init__(self, snapshot: Callable[[], list[dict[str, Any]]]) -> None:
        """``snapshot`` returns the events that stand for all that is there now."""
        self._boot = secrets.token_hex(4)
        self._snapshot = snapshot
        self._numbers = itertools.count(1)
        self._last: deque[Event] = deque(maxlen=_KEPT)
        self._listening: set[asyncio.Queue[Event | None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Deliver on the event loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to every page."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, event)

    def _tell(self, event: dict[str, Any]) -> None:
        numbered = next(self._numbers), event
        self._last.append(numbered)
        for queue in self._listening:
            queue.put_nowait(numbered)

    def close(self) -> None:
        """End every feed, so that the server can."""
        for queue in self._listening:
            queue.put_nowait(None)

    async def follow(self, seen: str | None) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield (id, event): what was missed since ``seen``, or all there is, then what comes."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._listening.add(queue)
        try:
            missed = self._missed(seen)
            if missed is None:
                last = self._last[-1][0] if self._last else 0
                for event in [{"type": "hello"}, *self._snapshot(), {"type": "ready"}]:
                    yield f"{self._boot}-{last}", event
            for number, event in missed or []:
                yield f"{self._boot}-{number}", event
            while (numbered := await queue.get()) is not None:
                yield f"{self._boot}-{numbered[0]}", numbered[1]
        finally:
            self._listening.discard(queue)

    def _missed(self, seen: str | None) -> list[Event] | None:
        boot, _, number = (seen or "").partition("-")
        if boot != self._boot or not number.isdigit():
            return None
        last = int(number)
        if self._last and self._last[0][0] > last + 1:
            return None
        return [event for event in self._last if event[0] > last]
