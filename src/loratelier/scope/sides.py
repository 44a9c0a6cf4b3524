"""Base and adapter side by side: two rows of one batch that differ only in the gate."""

from collections.abc import Sequence

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.scope.compare import Compared, Place, compare
from loratelier.scope.decode import columns, decode, likeliest
from loratelier.scope.pieces import Pieces
from loratelier.scope.prompt import end_ids


class Sides:
    """Reads and writes with both models at once.

    When nothing can change (``effect`` is false) one row is read and stands for both, so that
    every difference is exactly zero rather than a rounding.
    """

    def __init__(self, base: Base, adapter: Adapter, strength: float, top: int) -> None:
        self.effect = adapter.has_effect and strength != 0
        self.pieces = Pieces(base.tokenizer)
        self._base = base
        self._top = top
        self._bank = AdapterBank(base.model)
        self._bank.add(adapter.name, adapter)
        self._mix = [None, {adapter.name: strength}] if self.effect else [None]

    def answers(self, prompt: Sequence[int], limit: int) -> tuple[list[int], list[int]]:
        """Return the greedy answers of base and adapter, each with its end token if it has one."""
        rows = len(self._mix)
        ends = end_ids(self._base)
        with self._bank.activate(self._mix):
            steps = decode(self._base.model, prompt, likeliest, rows=rows, ends=ends, limit=limit)
            written = columns(steps, rows)
        return written[0], written[-1]

    def read(self, prompt: Sequence[int]) -> Compared:
        """Compare the expectations after each token of a prompt."""
        following = [*prompt[1:], None]
        places = [Place(n, *pair) for n, pair in enumerate(zip(prompt, following, strict=True))]
        return self._compare(prompt, places)

    def read_on(self, prompt: Sequence[int], text: Sequence[int]) -> Compared:
        """Compare the expectations of each token of a text that follows a prompt."""
        read = [*prompt, *text[:-1]]
        places = [
            Place(len(prompt) - 1 + n, read[len(prompt) - 1 + n], token)
            for n, token in enumerate(text)
        ]
        return self._compare(read, places)

    def _compare(self, ids: Sequence[int], places: Sequence[Place]) -> Compared:
        """Compare at the last places of a text."""
        before, after = self._logits(ids, len(places))
        return compare(before, after, places, top=self._top, pieces=self.pieces)

    def _logits(self, ids: Sequence[int], last: int) -> tuple[Tensor, Tensor]:
        batch = torch.tensor([list(ids)] * len(self._mix), device=self._base.model.device)
        with self._bank.activate(self._mix):
            logits = self._base.model(input_ids=batch, use_cache=False, logits_to_keep=last).logits
        return logits[0], logits[-1]
