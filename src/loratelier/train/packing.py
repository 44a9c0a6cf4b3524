"""Packing: whole rows side by side in one sequence, kept apart by their positions.

A padded batch of chat rows is about half padding. Here rows are laid end to end; positions start
again at 0 with each row, from which transformers builds a block-diagonal mask, so that no row sees
another (its result equals the row's own: a test holds it).
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.train.examples import Example


@dataclass(frozen=True)
class Pack:
    """Rows packed into one sequence of T tokens with N targets.

    ``ids`` and ``positions``: int64 [1, T]. ``places``: int64 [N], the positions whose output
    predicts a target. ``labels``: int64 [N], the targets.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    labels: Tensor

    @property
    def tokens(self) -> int:
        """How many tokens the pack holds."""
        return self.ids.shape[1]

    @property
    def targets(self) -> int:
        """How many of them are learned."""
        return self.labels.shape[0]

    def to(self, device: torch.device) -> "Pack":
        """Return the pack on another device."""
        return Pack(*(part.to(device) for part in self.parts))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors, in the order of the fields."""
        return self.ids, self.positions, self.places, self.labels


def pack(examples: Sequence[Example], limit: int) -> list[Pack]:
    """Lay rows end to end, in their order, into packs of at most ``limit`` tokens.

    A row longer than ``limit`` makes a pack of its own.
    """
    packs: list[list[Example]] = []
    room = 0
    for example in examples:
        if len(example) > room:
            packs.append([])
            room = max(limit, len(example))
        packs[-1].append(example)
        room -= len(example)
    return [_pack(rows) for rows in packs]


def shuffled(examples: Iterable[Example], seed: int, epoch: int) -> list[Example]:
    """Return the rows in the order of an epoch; the same seed and epoch give the same order."""
    rows = sorted(examples, key=lambda example: example.row)
    random.Random(f"{seed}/{epoch}").shuffle(rows)
    return rows


def _pack(rows: list[Example]) -> Pack:
    ids = [token for row in rows for token in row.ids]
    positions = [place for row in rows for place in range(len(row))]
    learned = [flag for row in rows for flag in row.learned]
    targets = [place for place, flag in enumerate(learned) if flag]
    return Pack(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        places=torch.tensor([place - 1 for place in targets]),
        labels=torch.tensor([ids[place] for place in targets]),
    )
