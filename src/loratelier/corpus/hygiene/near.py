"""Near-duplicates: MinHash over word shingles (Broder 1997), found by bands of the signature."""

import re
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_SHINGLE = 5  # words
_BANDS, _ROWS = 32, 4
_SIZE = _BANDS * _ROWS  # 128 hashes: the estimate of a similarity of 0.8 errs by 0.035
_MOST_SHINGLES = 20_000
_PRIME = np.uint64((1 << 31) - 1)

Signature = NDArray[np.uint32]


class NearDuplicates:
    """Compares each text with those before it.

    The similarity is the share of common shingles among all (Jaccard), estimated by the share of
    equal minimal hashes.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._signatures: list[Signature] = []
        self._names: list[str] = []
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(_BANDS)]

    def of(self, name: str, signature: Signature) -> tuple[str, float] | None:
        """Return the earlier text most like this one and how alike, if it is enough.

        A text that is like none is remembered for those to come.
        """
        keys = [signature[band * _ROWS : (band + 1) * _ROWS].tobytes() for band in range(_BANDS)]
        near = {n for key, band in zip(keys, self._bands, strict=True) for n in band.get(key, ())}
        likeness = {n: float((self._signatures[n] == signature).mean()) for n in sorted(near)}
        best = max(likeness, key=lambda n: likeness[n], default=None)
        if best is not None and likeness[best] >= self._threshold:
            return self._names[best], likeness[best]
        for key, band in zip(keys, self._bands, strict=True):
            band.setdefault(key, []).append(len(self._names))
        self._signatures.append(signature)
        self._names.append(name)
        return None


def signature_of(text: str) -> Signature:
    """Return the lowest hashes of a text's shingles under 128 functions: uint32 [128]."""
    words = _WORD.findall(text.lower())
    last = max(1, len(words) - _SHINGLE + 1)
    shingles = {" ".join(words[at : at + _SHINGLE]) for at in range(last)}
    numbers = sorted(zlib.crc32(shingle.encode()) for shingle in shingles)[:_MOST_SHINGLES]
    hashed = np.asarray(numbers, dtype=np.uint64) % _PRIME
    lowest = np.full(_SIZE, int(_PRIME), dtype=np.uint64)
    a, b = _functions()
    for start in range(0, len(hashed), 1024):
        part = hashed[start : start + 1024]
        made = (a[:, None] * part[None, :] + b[:, None]) % _PRIME
        lowest = np.minimum(lowest, made.min(axis=1))
    return lowest.astype(np.uint32)


@lru_cache
def _functions() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    random = np.random.default_rng(20_231)
    a = random.integers(1, int(_PRIME), size=_SIZE, dtype=np.uint64)
    return a, random.integers(0, int(_PRIME), size=_SIZE, dtype=np.uint64)
