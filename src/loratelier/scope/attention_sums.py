"""Attention seen block by block, and what is kept of it: sums, the largest moves, some rows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loratelier.scope.attention_shift import Touched

# Two rows of one product may differ by rounding; what an adapter does differs by more than this
# share of the largest number.
_ROUNDING = 1e-5


class Move(NamedTuple):
    """One head's move from one token to another; sorts by size, and then by place."""

    size: float  # -|after - before|
    layer: int
    head: int
    at: int
    to: int
    before: float
    after: float


class Sums:
    """Watches a batch whose first row is before and whose last is after.

    Keeps [layers, heads, tokens] shifts, two [tokens, tokens] means, the largest moves, and the
    rows of ``queries``; nothing of the size layers x heads x tokens x tokens, unless all queries
    are asked for.
    """

    def __init__(self, tokens: int, queries: Sequence[int], top: int) -> None:
        self.groups: dict[int, tuple[int, ...]] = {}
        self.by_query: dict[int, Tensor] = {}
        self.before: dict[int, Tensor] = {}
        self.after: dict[int, Tensor] = {}
        self._queries = torch.tensor(queries, dtype=torch.int64)
        self._totals = torch.zeros(2, tokens, tokens)
        self._heads = 0
        self._top = top
        self._moves: list[Move] = []

    def begin(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Note a layer's heads."""
        heads, shared = query.shape[1], query.shape[1] // key.shape[1]
        self.groups[layer] = tuple(head // shared for head in range(heads))
        self.by_query[layer] = torch.zeros(heads, query.shape[2])
        shape = (heads, len(self._queries), key.shape[2])
        self.before[layer], self.after[layer] = torch.zeros(shape), torch.zeros(shape)
        self._heads += heads

    def see(self, layer: int, first: int, probabilities: Tensor) -> None:
        """Add a block of queries: [rows, heads, n, T]."""
        before, after = probabilities[0], probabilities[-1]
        moved = after - before
        block = slice(first, first + before.shape[1])
        self.by_query[layer][:, block] = variation(moved).cpu()
        for total, side in zip(self._totals, (before, after), strict=True):
            total[block] += side.sum(0).cpu()
        inside = (self._queries >= block.start) & (self._queries < block.stop)
        if bool(inside.any()):
            rows = (self._queries[inside] - first).to(before.device)
            self.before[layer][:, inside] = before[:, rows].cpu()
            self.after[layer][:, inside] = after[:, rows].cpu()
        self._take(layer, first, before, after, moved)

    def _take(self, layer: int, first: int, before: Tensor, after: Tensor, moved: Tensor) -> None:
        """Keep the block's moves that are among the largest so far."""
        size = moved.abs().flatten()
        floor = -self._moves[-1].size if len(self._moves) == self._top else 0.0
        if float(size.amax()) <= floor:
            return
        values, places = size.topk(min(self._top, size.numel()))
        n, tokens = moved.shape[1:]
        olds, news = before.flatten()[places].tolist(), after.flatten()[places].tolist()
        found = [
            Move(-value, layer, p // (n * tokens), first + p // tokens % n, p % tokens, old, new)
            for value, p, old, new in zip(values.tolist(), places.tolist(), olds, news, strict=True)
            if value > floor
        ]
        self._moves = sorted([*self._moves, *found])[: self._top]

    @property
    def moves(self) -> list[Move]:
        """The largest moves, largest first."""
        return self._moves

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """The mean maps over all layers and heads, before and after: [T, T] each."""
        before, after = self._totals / max(1, self._heads)
        return before, after


class Direct:
    """Watches a pass in which every layer has the same inputs in all rows."""

    def __init__(self) -> None:
        self.shift: dict[int, Tensor] = {}
        self.touched: dict[int, Touched] = {}
        self._tokens = 0

    def begin(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Note which heads' queries and which groups' keys and values differ."""
        self._tokens = query.shape[2]
        self.shift[layer] = torch.zeros(query.shape[1])
        self.touched[layer] = Touched(layer, *(_differing(each) for each in (query, key, value)))

    def see(self, layer: int, first: int, probabilities: Tensor) -> None:
        """Add a block of queries: [rows, heads, n, T]."""
        moved = probabilities[-1] - probabilities[0]
        self.shift[layer] += variation(moved).sum(-1).cpu() / self._tokens


def variation(moved: Tensor) -> Tensor:
    """Return the total variation from the difference of two distributions: [..., T] -> [...].

    What is missing from a sum of 1 has gone to a sink and counts as one more place.
    """
    return (moved.abs().sum(-1) + moved.sum(-1).abs()).mul(0.5).clamp_max(1.0)


def _differing(sides: Tensor) -> tuple[int, ...]:
    """Return the heads in which the first and the last row differ: [rows, heads, T, size]."""
    apart = (sides[-1] - sides[0]).abs().amax((-1, -2))
    return tuple(torch.nonzero(apart > _ROUNDING * sides[0].abs().max())[:, 0].tolist())
