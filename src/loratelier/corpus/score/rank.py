"""Spearman's rank correlation: whether two bases put rows in the same order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the correlation of the ranks, ties sharing their mean rank; None when it is undefined.

    It is undefined for fewer than two values, or when all of one side are equal.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values against {len(second)}")
    if len(first) < 2:
        return None
    ours, theirs = _ranks(first), _ranks(second)
    ours -= ours.mean()
    theirs -= theirs.mean()
    size = float(np.sqrt((ours @ ours) * (theirs @ theirs)))
    return float(ours @ theirs) / size if size else None


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, group, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = last - (counts - 1) / 2
    return mean[group]
