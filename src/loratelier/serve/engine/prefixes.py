"""The prefix cache: keys and values of what was read before, to be read no second time.

They depend on the tokens and on what was worn while they were read, so they are known by both:
the worn adapters by the digest of their contents, never by name, with gate and offset. Before the
first adapter begins to act the keys are the base's, whoever wears what afterwards: that is the
trunk that all roles of a dialogue share (aLoRA, arXiv:2504.12397).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What acted: (digest, gate, first column at which it acts), sorted.
Key = tuple[tuple[str, float, int], ...]


@dataclass(frozen=True, eq=False)
class Prefix:
    """What was read: ``ids`` [n], under ``key``; ``trunk`` columns of it are the base's own."""

    ids: Tensor
    key: Key
    trunk: int
    kept: list[Tensor]

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return sum(layer.nbytes for layer in self.kept)


class Prefixes:
    """The latest prefixes, within a budget of bytes; what was used longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[int, Prefix] = OrderedDict()
        self._number = 0
        self.nbytes = self.hits = self.misses = self.tokens = 0

    def __len__(self) -> int:
        return len(self._held)

    def find(self, ids: Sequence[int], key: Key, trunk: int) -> tuple[Prefix, int] | None:
        """Return what has the longest beginning in common, and how many columns of it fit.

        The last token is never taken from the cache: the scores after it are wanted.
        """
        if not self._most:
            return None
        wanted = torch.tensor(ids)
        best, best_number = 0, None
        for number, prefix in self._held.items():
            fits = _common(prefix.ids, wanted)
            if prefix.key != key:
                fits = min(fits, prefix.trunk, trunk)
            fits = min(fits, len(ids) - 1)
            if fits > best:
                best, best_number = fits, number
        if best_number is None:
            self.misses += 1
            return None
        self.hits += 1
        self.tokens += best
        self._held.move_to_end(best_number)
        return self._held[best_number], best

    def keep(self, prefix: Prefix) -> None:
        """Keep a prefix; shorter ones that it holds whole go."""
        if prefix.nbytes > self._most or not len(prefix.ids):
            return
        for number, other in list(self._held.items()):
            inside = other.key == prefix.key and len(other.ids) <= len(prefix.ids)
            if inside and _common(other.ids, prefix.ids) == len(other.ids):
                self._drop(number)
        self._number += 1
        self._held[self._number] = prefix
        self.nbytes += prefix.nbytes
        while self.nbytes > self._most:
            self._drop(next(iter(self._held)))

    def _drop(self, number: int) -> None:
        self.nbytes -= self._held.pop(number).nbytes


def _common(one: Tensor, other: Tensor) -> int:
    length = min(len(one), len(other))
    apart = (one[:length] != other[:length]).nonzero()
    return int(apart[0]) if len(apart) else length
