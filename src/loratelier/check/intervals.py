"""How sure a measured figure is: Wilson, McNemar, and the bootstrap over what was paired.

Everything is at 95%. The bootstrap is seeded, so that the same measurements say the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054
_RESAMPLES = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers: ``right`` of ``count``."""

    right: int
    count: int

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.count

    @property
    def error(self) -> float:
        """Its standard error, ``sqrt(p (1 - p) / n)``."""
        return math.sqrt(self.value * (1 - self.value) / self.count)

    @property
    def interval(self) -> Interval:
        """Wilson's score interval, which stays between 0 and 1 (Wilson 1927)."""
        return wilson(self.right, self.count)


def wilson(right: int, count: int) -> Interval:
    """Return Wilson's 95% score interval of a share."""
    share, square = right / count, Z * Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    half = spread / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(lost: int, won: int) -> float:
    """Return the two-sided exact p of McNemar's test on paired flips.

    Under no change a flip goes either way with probability one half, so the smaller side is
    binomial (McNemar 1947, in its exact form).

    Args:
        lost: items that were right before and are wrong after.
        won: items that were wrong before and are right after.
    """
    flips = lost + won
    tail = sum(math.comb(flips, k) for k in range(min(lost, won) + 1))
    return float(min(1.0, 2 * tail / 2**flips))


def bootstrap(values: Sequence[float], weights: Sequence[float] | None = None) -> Interval:
    """Return the 95% percentile interval of a mean, resampling the values (Efron 1979).

    Args:
        values: one a document or an item; paired differences, as a rule.
        weights: what each counts, such as its tokens; they are resampled along with the values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    heavy = np.ones_like(numbers) if weights is None else np.asarray(weights, dtype=np.float64)
    means = _resampled(numbers * heavy, heavy)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """Return the 95% interval of ``sum(above) / sum(below)``, resampling both together."""
    means = _resampled(np.asarray(above, np.float64), np.asarray(below, np.float64))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _resampled(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, len(above), (_RESAMPLES, len(above)))
    totals: np.ndarray = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    return totals
