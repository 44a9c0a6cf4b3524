"""One answer, from the side of the one who waits for it."""

import queue
from collections.abc import Iterator
from time import perf_counter

from loratelier.serve.engine.asked import Asked, Event


class Ticket:
    """One answer that is being written.

    Attributes:
        asked: the request.
        cached_tokens: how many tokens of the prompt were in the cache.
        first_token_seconds: from the request to the first token; None before it.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.cached_tokens = 0
        self.first_token_seconds: float | None = None
        self.cancelled = False
        self.began = perf_counter()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield what is written, as it is; the last event says how it ended.

        Raises:
            TimeoutError: nothing came for ``timeout`` seconds.
        """
        while True:
            try:
                event = self._events.get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError(f"nothing was written for {timeout:g} seconds") from None
            yield event
            if event.finish is not None:
                return

    def cancel(self) -> None:
        """Stop writing it; its last event says "cancelled"."""
        self.cancelled = True

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        deadline = self.asked.deadline
        return deadline is not None and perf_counter() - self.began > deadline

    def put(self, event: Event) -> None:
        """Hand out an event; for the engine."""
        if event.tokens and self.first_token_seconds is None:
            self.first_token_seconds = perf_counter() - self.began
        self._events.put(event)
