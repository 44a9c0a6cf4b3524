"""Picking rows one after another: by rank, or so that the chosen ones stand for all of them."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Allowed = Callable[[int], bool]


class Picker(Protocol):
    """Yields rows worth taking; each that it yields is taken.

    ``allowed`` is asked right before a row is yielded and may turn false, never true again, while
    rows are taken.
    """

    def picks(self, members: Iterable[int], allowed: Allowed) -> Iterator[int]:
        """Yield members in the order in which they should be taken."""


class Ranked:
    """The rows in a given order."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def picks(self, members: Iterable[int], allowed: Allowed) -> Iterator[int]:
        """Yield members by rank."""
        among = set(members)
        for row in self._order:
            if row in among and allowed(row):
                yield row


class FacilityLocation:
    """Greedy maximisation of the sum over all rows of the likeness to the nearest chosen one.

    The greedy choice is within 1 - 1/e of the best (Nemhauser, Wolsey, Fisher 1978). Gains only
    shrink as rows are chosen, so an old gain is a bound and most need not be computed again
    (Minoux 1978). Likenesses are made a column at a time: n rows never need n² numbers.
    """

    def __init__(self, vectors: NDArray[np.float32], numbers: Sequence[int]) -> None:
        """Take unit vectors [rows, d] and the rows' numbers; likeness is (1 + cosine) / 2."""
        self._vectors = vectors
        self._numbers = numbers
        self._place = {number: place for place, number in enumerate(numbers)}
        self._likeness = np.zeros(len(vectors))
        self._nearest = np.full(len(vectors), -1)
        # The first gain of a row is its summed likeness to all, for which one sum is enough.
        total = vectors.sum(axis=0, dtype=np.float64)
        self._bounds = (len(vectors) + vectors.astype(np.float64) @ total) / 2 + _SLACK

    def picks(self, members: Iterable[int], allowed: Allowed) -> Iterator[int]:
        """Yield the member with the greatest gain, the first of equals, again and again."""
        places = [self._place[number] for number in members]
        heap = [(-self._bounds[place], place) for place in places]
        heapq.heapify(heap)
        while heap:
            _, place = heapq.heappop(heap)
            if not allowed(self._numbers[place]):
                continue
            column = self._column(place)
            gain = float(np.maximum(column - self._likeness, 0).sum())
            self._bounds[place] = gain
            if heap and (-gain, place) > heap[0]:
                heapq.heappush(heap, (-gain, place))
                continue
            self._nearest[column > self._likeness] = place
            self._likeness = np.maximum(self._likeness, column)
            yield self._numbers[place]

    def nearest(self, number: int) -> tuple[int, float]:
        """Return the chosen row that a row is most like, and how much."""
        place = self._place[number]
        return self._numbers[self._nearest[place]], float(self._likeness[place])

    def _column(self, place: int) -> NDArray[np.float64]:
        cosine = (self._vectors @ self._vectors[place]).astype(np.float64)
        alike: NDArray[np.float64] = np.clip((1 + cosine) / 2, 0, 1)
        return alike


# The bounds are summed in another order than the gains; without it rounding could make one too low.
_SLACK = 1e-3
