"""Progress that a room reports and the command line draws.

A room writes ``with task("Training", total=steps) as bar: ...; bar.advance()``. Used as a library
nothing is drawn; the command line installs a reporter with :func:`report_to`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol


class Bar(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1) -> None:
        """Move on by ``amount``."""

    def say(self, note: str, left: float | None = None) -> None:
        """Show a short note beside the bar (the loss, the file).

        ``left``: seconds until the end, where the room knows better than pieces done can say.
        """


class Reporter(Protocol):
    """What draws the bars and prints the remarks."""

    def task(self, description: str, total: float | None) -> AbstractContextManager[Bar]:
        """Open a bar; ``total`` None means that the length is unknown."""

    def remark(self, text: str) -> None:
        """Print a line that stays: a warning, a decision with its reason."""


class _Silence:
    def advance(self, amount: float = 1) -> None:
        pass

    def say(self, note: str, left: float | None = None) -> None:
        pass

    def task(self, description: str, total: float | None) -> AbstractContextManager[Bar]:
        return nullcontext(self)

    def remark(self, text: str) -> None:
        pass


_SILENCE = _Silence()
_current: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def report_to(reporter: Reporter) -> Iterator[None]:
    """Send the progress of everything inside the block to ``reporter``."""
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)


def task(description: str, total: float | None = None) -> AbstractContextManager[Bar]:
    """Open a progress bar on the current reporter."""
    return (_current.get() or _SILENCE).task(description, total)


def remark(text: str) -> None:
    """Print a line that stays on the current reporter."""
    (_current.get() or _SILENCE).remark(text)
