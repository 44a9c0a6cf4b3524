"""How fast requests may begin: so many a minute, so many tokens a minute, and pauses."""

import threading
import time

from loratelier.corpus.synthesize.asked import Halted

MINUTE = 60.0  # seconds


class Pace:
    """Lets requests begin evenly; None sets no bound.

    Tokens are counted when a request begins, as guessed, and set right when its answer says how
    many they were; so the mean is held, and overshot at most by the answers on their way.
    """

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self._requests = requests
        self._tokens = tokens
        self._next = 0.0  # when the next may begin, by the monotonic clock
        self._until = 0.0  # nobody begins before
        self._lock = threading.Lock()

    def wait(self, tokens: int, halt: threading.Event) -> None:
        """Wait for the turn of a request of so many tokens.

        Raises:
            Halted: ``halt`` was set meanwhile.
        """
        with self._lock:
            at = max(time.monotonic(), self._next)
            step = MINUTE / self._requests if self._requests else 0.0
            self._next = at + max(step, self._span(tokens))
        # A pause may begin while this one waits.
        while (left := max(at, self._until) - time.monotonic()) > 0:
            rest(left, halt)
        rest(0, halt)

    def correct(self, tokens: int) -> None:
        """Count so many tokens more (or fewer) than a request was guessed to take."""
        with self._lock:
            self._next += self._span(tokens)

    def pause(self, seconds: float) -> None:
        """Hold everybody back: the server asked for it."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def _span(self, tokens: int) -> float:
        return MINUTE * tokens / self._tokens if self._tokens else 0.0


def rest(seconds: float, halt: threading.Event) -> None:
    """Sleep.

    Raises:
        Halted: ``halt`` was set before or meanwhile.
    """
    if halt.wait(seconds):
        raise Halted
