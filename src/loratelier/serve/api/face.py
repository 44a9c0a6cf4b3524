"""The engine as the API sees it."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from loratelier.adapter import Adapter
from loratelier.serve.engine.asked import Asked, Event


class Ticket(Protocol):
    """One answer being written."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of its prompt that were in the cache."""

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yield what is written, as it is; blocks between."""

    def cancel(self) -> None:
        """Stop writing it."""


class Worn(Protocol):
    """The adapters that an engine holds; each call is safe from any thread."""

    def add(self, name: str, adapter: Adapter) -> None:
        """Hold an adapter."""

    def remove(self, name: str) -> None:
        """Let go of one; what is being written with it goes on."""

    def replace(self, name: str, adapter: Adapter) -> None:
        """Hold another under a name that is taken."""


class Writer(Protocol):
    """What writes answers."""

    @property
    def adapters(self) -> Worn:
        """The adapters that it holds."""

    def start(self) -> None:
        """Begin to write what is asked."""

    def stop(self, grace: float) -> None:
        """Take nothing new, and end what is not done in ``grace`` seconds; may be called twice."""

    def submit(self, asked: Asked) -> Ticket:
        """Begin an answer; raises ``Busy`` when its queue is full."""

    def embed(self, ids: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """Return a vector for each text."""

    def stats(self) -> Any:
        """Return how many are ``running`` and ``waiting``."""
