"""Progress as events: what a room reports, as plain data for a page."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loratelier.kit.progress import Bar

# A bar is told of no more often than this: a page needs no more, and a file would grow.
_SECONDS = 0.25

Tell = Callable[[dict[str, Any]], None]


class _Bar:
    def __init__(self, tell: Tell, number: int, what: str, total: float | None) -> None:
        self._tell = tell
        self._facts: dict[str, Any] = {
            "type": "bar",
            "bar": number,
            "what": what,
            "total": total,
            "done": 0.0,
            "note": "",
            "left": None,
        }
        self._told = 0.0
        self._began = time.monotonic()
        self.tell(now=True)

    def advance(self, amount: float = 1) -> None:
        self._facts["done"] += amount
        self.tell()

    def say(self, note: str, left: float | None = None) -> None:
        self._facts |= {"note": note, "left": left}
        self.tell()

    def tell(self, *, now: bool = False) -> None:
        moment = time.monotonic()
        if now or moment - self._told >= _SECONDS:
            self._told = moment
            self._tell(self._facts | {"left": self._left(moment)})

    def _left(self, moment: float) -> float | None:
        total: float | None = self._facts["total"]
        done: float = self._facts["done"]
        said: float | None = self._facts["left"]
        if said is not None or not total or not done:
            return said
        return round((moment - self._began) * max(0.0, total - done) / done, 1)


class Telling:
    """A reporter that hands events to a function: ``bar``, ``bar-end`` and ``remark``."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._numbers = itertools.count(1)

    @contextmanager
    def task(self, description: str, total: float | None) -> Iterator[Bar]:
        """Open a bar."""
        number = next(self._numbers)
        bar = _Bar(self._tell, number, description, total)
        try:
            yield bar
        finally:
            bar.tell(now=True)
            self._tell({"type": "bar-end", "bar": number})

    def remark(self, text: str) -> None:
        """Tell a line that stays."""
        self._tell({"type": "remark", "text": text})
