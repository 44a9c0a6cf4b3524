"""How long a run will still take, from what its steps and its evaluations have taken."""

from collections import deque
from collections.abc import Sequence
from time import perf_counter

# The last steps count: the first ones warm up, and a laptop slows down when it is hot.
WINDOW = 20


class Clock:
    """Tells the time that is left of a run whose steps differ in length.

    A step's time goes with its work; an evaluation takes what evaluations took.
    """

    def __init__(self, work: Sequence[float], due: Sequence[bool], done: int = 0) -> None:
        """Start the clock.

        Args:
            work: of each step, in any unit.
            due: whether an evaluation follows it.
            done: steps that were taken before.
        """
        self._work, self._due, self._done = work, due, done
        self._steps: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._evaluation = 0.0
        self._mark = perf_counter()

    def evaluated(self) -> None:
        """Note that an evaluation has ended that began when the clock was last told something."""
        self._evaluation = self._passed()

    def stepped(self) -> float:
        """Note that a step has ended; return the seconds that are left."""
        self._steps.append((self._work[self._done], self._passed()))
        self._done += 1
        # The first step of all makes what the later ones find.
        known = list(self._steps)[1:] or list(self._steps)
        rate = sum(each for _, each in known) / max(sum(each for each, _ in known), 1e-9)
        # The evaluation after this very step is still to come, too.
        evaluations = sum(self._due[self._done - 1 :])
        return rate * sum(self._work[self._done :]) + self._evaluation * evaluations

    def _passed(self) -> float:
        before, self._mark = self._mark, perf_counter()
        return self._mark - before
