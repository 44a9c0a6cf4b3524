"""Packing: whole rows side by side in one sequence, kept apart by their borders.

A padded batch of chat rows is about half padding. Here rows are laid end to end; no row sees
another (its result equals the row's own: a test holds it). Where a model cannot keep rows apart,
or packing is off, rows of like length make a padded batch.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from loratelier.train.examples import Example


class Unit(Protocol):
    """What goes into a step whole: a row, or rows that belong together."""

    @property
    def row(self) -> str:
        """Its name."""

    @property
    def conversation(self) -> str:
        """The conversation that it is from."""

    def __len__(self) -> int:
        """How many tokens it has."""


U = TypeVar("U", bound=Unit)


@dataclass(frozen=True)
class Pack:
    """Rows that go through the model together, with N targets.

    ``ids``: int64 [1, T], rows end to end; or [rows, longest], padded at the end. ``lengths``:
    tokens of each row. ``places``: int64 [N], the positions in the flattened ids whose output
    predicts a target. ``labels``: int64 [N], the targets. ``owners``: int64 [N], the row of each
    target. ``weights``: float32 [N], what a target's loss is multiplied by before all are summed.
    ``rows``: the rows' names. ``replayed``: they are general rows, there against forgetting.
    """

    ids: Tensor
    lengths: tuple[int, ...]
    places: Tensor
    labels: Tensor
    owners: Tensor
    weights: Tensor
    rows: tuple[str, ...]
    replayed: bool = field(default=False, kw_only=True)

    @property
    def tokens(self) -> int:
        """How many tokens the pack holds, without padding."""
        return sum(self.lengths)

    @property
    def targets(self) -> int:
        """How many of them are learned."""
        return self.labels.shape[0]

    def weighing(self, weight: float) -> Self:
        """Return the pack with every target's weight multiplied."""
        return replace(self, weights=self.weights * weight)

    def to(self, device: torch.device) -> Self:
        """Return the pack on another device."""
        return replace(
            self,
            ids=self.ids.to(device),
            places=self.places.to(device),
            labels=self.labels.to(device),
            owners=self.owners.to(device),
            weights=self.weights.to(device),
        )


def pack(examples: Sequence[Example], limit: int, *, padded: bool = False) -> list[Pack]:
    """Lay rows end to end, in their order, into packs of at most ``limit`` tokens.

    A row longer than ``limit`` makes a pack of its own. With ``padded`` rows are batched instead,
    and ``limit`` holds for the batch with its padding.
    """
    size = partial(tokens_of, padded=padded)
    return [side_by_side(rows, padded=padded) for rows in parted(examples, limit, size)]


def parted(units: Sequence[U], limit: int, size: Callable[[Sequence[U]], int]) -> list[list[U]]:
    """Return units, in their order, in parts of at most ``limit`` tokens (or one longer unit)."""
    parts: list[list[U]] = []
    for unit in units:
        if not parts or size([*parts[-1], unit]) > limit:
            parts.append([])
        parts[-1].append(unit)
    return parts


def tokens_of(rows: Sequence[Unit], *, padded: bool) -> int:
    """Return how many tokens rows take side by side, with their padding."""
    return len(rows) * max(map(len, rows)) if padded else sum(map(len, rows))


def by_length(units: Sequence[U]) -> list[U]:
    """Return units of like length side by side, longest first."""
    return sorted(units, key=len, reverse=True)


def shuffled(units: Iterable[U], seed: int, epoch: int) -> list[U]:
    """Return the units in the order of an epoch; the same seed and epoch give the same order."""
    rows = sorted(units, key=lambda unit: unit.row)
    random.Random(f"{seed}/{epoch}").shuffle(rows)
    return rows


def side_by_side(rows: Sequence[Example], *, padded: bool) -> Pack:
    """Return one pack of rows in which every target weighs 1."""
    width = max(map(len, rows))
    starts = [n * width for n in range(len(rows))] if padded else _starts(rows)
    ids = torch.zeros(len(rows) * width if padded else sum(map(len, rows)), dtype=torch.long)
    places, labels, owners = [], [], []
    for n, (start, row) in enumerate(zip(starts, rows, strict=True)):
        ids[start : start + len(row)] = torch.tensor(row.ids)
        targets = [place for place, flag in enumerate(row.learned) if flag]
        # What predicts a token is the output at the place before it.
        places += [start + place - 1 for place in targets]
        labels += [row.ids[place] for place in targets]
        owners += [n] * len(targets)
    return Pack(
        ids=ids.view(len(rows), width) if padded else ids[None],
        lengths=tuple(map(len, rows)),
        places=torch.tensor(places, dtype=torch.long),
        labels=torch.tensor(labels, dtype=torch.long),
        owners=torch.tensor(owners, dtype=torch.long),
        weights=torch.ones(len(labels)),
        rows=tuple(row.row for row in rows),
    )


def _starts(rows: Sequence[Example]) -> list[int]:
    starts = [0]
    for row in rows[:-1]:
        starts.append(starts[-1] + len(row))
    return starts
