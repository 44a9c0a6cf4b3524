"""Vectors of texts, made without fetching a model: which rows say nearly the same.

Either hashed character n-grams weighted by TF-IDF (no model at all: likeness of wording), or the
mean hidden state of a base at hand (likeness of content as that base sees it).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loratelier.base import Base
from loratelier.corpus.score.forward import hidden_means
from loratelier.kit.progress import task

Vectors = NDArray[np.float32]

# n-grams of these lengths, in characters, hashed into so many columns.
_GRAMS = (3, 4, 5)
_BITS = 11
_BLOCK = 1024
# Odd, so that multiplying by it modulo 2^64 loses nothing: 2^64 divided by the golden ratio.
_MIX = np.uint64(0x9E3779B97F4A7C15)


def gram_vectors(texts: Sequence[str]) -> Vectors:
    """Return hashed character n-grams, TF-IDF weighted, of length 1: float32 [texts, 2048].

    tf is 1 + ln(count), idf is ln((1 + texts) / (1 + texts with it)) + 1. A text of fewer than
    three characters is the zero vector. The hash is fixed: the same texts give the same vectors.
    """
    counted = gram_counts(texts)
    return unit(counted * gram_idf(counted))


def gram_counts(texts: Sequence[str]) -> Vectors:
    """Return 1 + ln(count) of each hashed character n-gram, 0 where it is not: [texts, 2048]."""
    weights = np.zeros((len(texts), 1 << _BITS), dtype=np.float32)
    for number, text in enumerate(texts):
        counts = np.bincount(_hashed(text), minlength=1 << _BITS)
        present = counts > 0
        weights[number, present] = 1 + np.log(counts[present])
    return weights


def gram_idf(counted: Vectors) -> Vectors:
    """Return ln((1 + texts) / (1 + texts with it)) + 1 of each n-gram: [2048]."""
    idf = np.log((1 + len(counted)) / (1 + (counted > 0).sum(axis=0))) + 1
    weights: Vectors = idf.astype(np.float32)
    return weights


def hidden_vectors(base: Base, texts: Sequence[str]) -> Vectors:
    """Return each text's mean last hidden state, centred over the texts, of length 1.

    Uncentred, all texts of one base point nearly the same way. A text longer than the base's
    context is represented by its beginning. float32 [texts, hidden].
    """
    means = raw_hidden(base, texts)
    return unit(means - means.mean(axis=0))


def raw_hidden(base: Base, texts: Sequence[str]) -> Vectors:
    """Return each text's mean last hidden state, zero for an empty one: [texts, hidden]."""
    ids = [base.tokenizer(text)["input_ids"][: base.context] for text in texts]
    means: Vectors | None = None
    with task("Reading rows for their likeness, tokens", total=sum(map(len, ids))) as bar:
        for batch in hidden_means(base, ids):
            for number, mean in batch:
                if means is None:
                    means = np.zeros((len(texts), len(mean)), dtype=np.float32)
                means[number] = mean
            bar.advance(sum(len(ids[number]) for number, _ in batch))
    return np.zeros((len(texts), 1), dtype=np.float32) if means is None else means


def nearest_likeness(vectors: Vectors) -> NDArray[np.float64]:
    """Return for each of at least two vectors the highest cosine similarity to another one."""
    best = np.empty(len(vectors))
    for begin in range(0, len(vectors), _BLOCK):
        alike = vectors[begin : begin + _BLOCK] @ vectors.T
        here = np.arange(len(alike))
        alike[here, begin + here] = -np.inf
        best[begin : begin + _BLOCK] = alike.max(axis=1)
    return np.clip(best, -1.0, 1.0)


def _hashed(text: str) -> NDArray[np.int64]:
    """Return the column of every n-gram of a text, letter case and runs of white space aside."""
    folded = " ".join(text.casefold().split())
    points = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    columns = [_gram_columns(points.astype(np.uint64), size) for size in _GRAMS]
    return np.concatenate(columns).astype(np.int64)


def _gram_columns(points: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    count = len(points) - size + 1
    value = np.full(max(count, 0), size, dtype=np.uint64)
    for shift in range(size if count > 0 else 0):
        value = (value ^ points[shift : shift + count]) * _MIX
        value ^= value >> np.uint64(29)
    return value >> np.uint64(64 - _BITS)


def unit(vectors: Vectors) -> Vectors:
    """Return vectors of length 1; what is zero stays zero."""
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, size, out=np.zeros_like(vectors), where=size > 0)
    return scaled
