"""The style classifier: a logistic regression on the character n-grams of an answer.

It tells the adapter's rows from the base's own answers to the same requests. Both are cut to one
length, so that what tells them apart is how they are written, not how long they are.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from loratelier.check.intervals import Accuracy

_BUCKETS = 1 << 14
_GRAMS = (1, 2, 3, 4)
_FOLDS = 5
_DECAY = 1.0
# Below this a classifier cannot say whose style it sees.
_TELLS = 0.7


@dataclass(frozen=True)
class Style:
    """A trained classifier; ``accuracy`` is cross-validated, each pair of texts on one side."""

    weights: torch.Tensor
    bias: float
    characters: int
    accuracy: Accuracy

    @property
    def tells(self) -> bool:
        """Whether it can tell the two apart: the interval's lower end is at least 0.7."""
        return self.accuracy.interval[0] >= _TELLS

    def probability(self, text: str) -> float:
        """Return how probably a text is in the adapter's style."""
        seen = torch.from_numpy(_features(_cut(text, self.characters)))
        return float(torch.sigmoid(seen @ self.weights + self.bias))


def learn_style(rows: Sequence[str], answers: Sequence[str]) -> Style:
    """Learn to tell an adapter's rows from the base's answers.

    Args:
        rows: answers of the adapter's corpus.
        answers: the base's own, to the same requests in the same order.

    Returns:
        The classifier, with its accuracy on pairs that it was not trained on (5 folds).
    """
    lengths = sorted(len(text) for text in (*rows, *answers))
    # Most texts reach this length; the few shorter ones are taken as they are.
    characters = max(20, lengths[len(lengths) // 4])
    cut = [_cut(text, characters) for text in (*rows, *answers)]
    seen = torch.from_numpy(np.stack([_features(text) for text in cut]))
    wanted = torch.tensor([1.0] * len(rows) + [0.0] * len(answers))
    pairs = np.concatenate([np.arange(len(rows)), np.arange(len(answers))])
    right = 0
    for fold in range(_FOLDS):
        held = torch.from_numpy(pairs % _FOLDS == fold)
        if bool(held.any()) and not bool(held.all()):
            weights, bias = _fit(seen[~held], wanted[~held])
            guess = seen[held] @ weights + bias > 0
            right += int((guess == wanted[held].bool()).sum())
    weights, bias = _fit(seen, wanted)
    return Style(weights, bias, characters, Accuracy(right, len(wanted)))


def _fit(seen: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Minimise the summed log-loss plus half the squared norm, which has one minimum."""
    weights = torch.zeros(seen.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        misses = F.binary_cross_entropy_with_logits(seen @ weights + bias, wanted, reduction="sum")
        total = misses + _DECAY / 2 * weights.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(loss)
    return weights.detach(), float(bias)


def _cut(text: str, characters: int) -> str:
    return re.sub(r"\s+", " ", text.strip())[:characters]


def _features(text: str) -> np.ndarray:
    """Return hashed counts of n-grams, dampened and scaled to length 4: float32 [buckets].

    Letters are lowered. A hash that is the same in every process keeps the figures steady.
    """
    lowered = f" {text.lower()} "
    counts = np.zeros(_BUCKETS, dtype=np.float32)
    for size in _GRAMS:
        for start in range(len(lowered) - size + 1):
            counts[zlib.crc32(lowered[start : start + size].encode()) % _BUCKETS] += 1
    dampened = np.log1p(counts)
    length = float(np.linalg.norm(dampened))
    # Longer than 1, so that the decay lets a few dozen texts move the weights.
    scaled: np.ndarray = 4 * dampened / length if length else dampened
    return scaled
