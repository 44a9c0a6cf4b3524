"""From figures of many problems to what may be said: intervals, and a test that keeps noise out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Claim = Literal["rose", "fell", "same", "noise", "few"]
LEVEL = 0.05  # how often noise alone may lead to any claim at all, and 1 - the intervals' coverage
_DRAWS = 4000  # resamples of the bootstrap
_FLIPS = 20000  # sign flips that are drawn where there are too many to go through
_EXACT = 14  # differing problems up to which all sign flips are gone through
_FEWEST = 5  # fewer problems say nothing: an interval over them would be made up


@dataclass(frozen=True)
class Difference:
    """A figure before and after, over ``problems`` problems: means of each problem's own mean.

    ``low`` and ``high``: the 95% percentile bootstrap interval of ``change`` over problems, None
    where there are fewer than 5. ``p``: the sign-flip test's, two-sided. ``claim``: ``rose`` or
    ``fell`` where the test stands up to all figures that were looked at beside this one and the
    interval keeps to one side of 0; ``same`` where no problem differs; ``noise`` otherwise; ``few``
    with fewer than 5 problems.
    """

    name: str
    before: float
    after: float
    low: float | None
    high: float | None
    p: float
    problems: int
    claim: Claim

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "change": self.change,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "problems": self.problems,
            "claim": self.claim,
        }


Paired = Sequence[tuple[float, float]]


def differences(figures: Mapping[str, Paired], seed: int = 0) -> dict[str, Difference]:
    """Compare figures that were measured on the same problems before and after.

    Of each figure the differences by problem are tested by flipping their signs, which is exact
    where both sides are alike. That any claim at all is noise has a chance of at most 5%: the level
    is divided by the number of figures that could reach it (Tarone, Biometrics 46, 1990).

    Args:
        figures: by name, (before, after) of each problem; names without problems are left out.
        seed: of the resampling.
    """
    known = {name: pairs for name, pairs in figures.items() if pairs}
    apart = {name: np.array([b - a for a, b in pairs]) for name, pairs in known.items()}
    level = _level([int(np.count_nonzero(d)) for d in apart.values() if len(d) >= _FEWEST])
    return {
        name: _difference(name, pairs, apart[name], level, seed) for name, pairs in known.items()
    }


def _difference(
    name: str, pairs: Paired, apart: NDArray[np.float64], level: float, seed: int
) -> Difference:
    rng = np.random.default_rng(seed)
    before, after = (float(np.mean([pair[side] for pair in pairs])) for side in (0, 1))
    if len(pairs) < _FEWEST:
        return Difference(name, before, after, None, None, 1.0, len(pairs), "few")
    low, high = _interval(apart, rng)
    p = _sign_flips(apart, rng)
    claim: Claim = "noise"
    if not apart.any():
        claim = "same"
    elif p <= level and (low > 0 or high < 0):
        claim = "rose" if low > 0 else "fell"
    return Difference(name, before, after, low, high, p, len(pairs), claim)


def _interval(apart: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    drawn = rng.integers(len(apart), size=(_DRAWS, len(apart)))
    means = apart[drawn].mean(1)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _sign_flips(apart: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Return how often flipped signs give a mean at least as far from 0."""
    moved = apart[apart != 0]
    if not len(moved):
        return 1.0
    seen = abs(moved.sum()) * (1 - 1e-12)
    if len(moved) <= _EXACT:
        bits = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float(np.mean(abs((1 - 2 * bits) @ moved) >= seen))
    flips = 1 - 2 * rng.integers(2, size=(_FLIPS, len(moved)))
    return float((1 + np.count_nonzero(abs(flips @ moved) >= seen)) / (1 + _FLIPS))


def _level(differing: Sequence[int]) -> float:
    """Return the level of each test: 5% over the number of tests that could reach it."""
    smallest = [min(1.0, 2.0 ** (1 - count)) for count in differing]
    for count in range(1, len(smallest) + 1):
        if sum(p <= LEVEL / count for p in smallest) <= count:
            return LEVEL / count
    return LEVEL
