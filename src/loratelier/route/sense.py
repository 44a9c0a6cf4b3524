"""Routing by sense: a request against the centre of what each adapter is asked.

The classes are the adapters and, as one more, general requests: what lies nearer to those is
answered by the base. Centroids of a vector space as in Rocchio's classifier; all vectors are
centred first, because uncentred all texts of one base point nearly the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loratelier.base import Base
from loratelier.corpus.score.likeness import Vectors, gram_counts, gram_idf, raw_hidden, unit
from loratelier.route.requests import Asked, general_requests

# The class of general requests among the scores; no adapter can have this name.
BASE = "<base>"
Figures = NDArray[np.float64]
# Texts -> one vector each, not centred: [texts, d].
Reader = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Centroids:
    """Where each class lies.

    Attributes:
        names: the adapters, and last :data:`BASE`.
        read: makes vectors of texts.
        mean: [d], what every vector is centred by.
        centres: [names, d], of length 1.
    """

    names: tuple[str, ...]
    read: Reader
    mean: Vectors
    centres: Vectors

    def scores(self, vectors: Vectors) -> Figures:
        """Return the cosine of each text's vector with each centre: float64 [texts, names]."""
        scores: Figures = (unit(vectors - self.mean) @ self.centres.T).astype(np.float64)
        return scores


def wording_reader(texts: Sequence[str]) -> Reader:
    """Return a reader of character n-grams that are weighted by how rare they are in the texts."""
    idf = gram_idf(gram_counts(texts))
    return lambda asked: unit(gram_counts(asked) * idf)


def hidden_reader(base: Base) -> Reader:
    """Return a reader of mean last hidden states."""
    return lambda asked: raw_hidden(base, asked)


def centroids(asked: Mapping[str, Asked], base: Base | None) -> Centroids:
    """Find where each adapter's requests lie, and the general ones.

    Args:
        asked: what each adapter is asked.
        base: to read with; None goes by wording alone.
    """
    groups = [*(each.learned for each in asked.values()), general_requests(held=False)]
    texts = [text for group in groups for text in group]
    read = wording_reader(texts) if base is None else hidden_reader(base)
    vectors = read(texts)
    # Each class weighs the same, however many rows it has.
    ends = np.cumsum([len(group) for group in groups])[:-1]
    mean = np.mean([part.mean(axis=0) for part in np.split(vectors, ends)], axis=0)
    parts = np.split(unit(vectors - mean), ends)
    centres = unit(np.stack([part.mean(axis=0) for part in parts]))
    return Centroids((*asked, BASE), read, mean.astype(np.float32), centres)


def softmax(scores: Figures, temperature: float) -> Figures:
    """Return probabilities along the last axis."""
    scaled = scores / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: Figures = powers / powers.sum(axis=-1, keepdims=True)
    return shares
