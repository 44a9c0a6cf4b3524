"""Reading a text part of the way between the two looks of a change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loratelier.scope.change import Change, Shares
from loratelier.scope.spellings import padded

# Tokens that one pass without a gradient reads at most, but always one text.
_TOKENS = 2048


@dataclass(frozen=True)
class Text:
    """Rows of tokens, read together, and at how many last places of the longest the logits count.

    Rows that differ in length begin alike, so that the first of the kept places is the same in all.
    """

    rows: tuple[tuple[int, ...], ...]
    kept: int

    @property
    def size(self) -> int:
        """How many tokens it is, with what fills up the shorter rows."""
        return len(self.rows) * max(len(row) for row in self.rows)


def logits_at(change: Change, text: Text, shares: Sequence[Shares]) -> Tensor:
    """Return the logits of a text at several shares, in one pass: float32 [shares, rows, kept, V].

    Gradients flow to shares that are tensors.
    """
    alone = len(shares) == 1
    each = [share for share in shares for _ in text.rows]
    with change.at(shares[0]) if alone else change.by_row(each):
        return logits_of(change.base.model, text, len(shares))


def logits_of(model: Any, text: Text, times: int = 1) -> Tensor:
    """Return the logits of a text, read ``times`` over: float32 [times, rows, kept, V]."""
    own = torch.tensor(padded(list(text.rows)), device=model.device)
    batch = own.repeat(times, 1)
    logits = model(input_ids=batch, use_cache=False, logits_to_keep=text.kept).logits
    made: Tensor = logits.float().unflatten(0, (times, len(own)))
    return made


def parts(text: Text, count: int) -> list[slice]:
    """Return how many shares at a time are read in bounded memory, as slices of their list."""
    step = max(1, _TOKENS // text.size)
    return [slice(at, min(at + step, count)) for at in range(0, count, step)]
