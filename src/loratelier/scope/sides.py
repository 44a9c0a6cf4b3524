"""Before and after side by side: two rows of one batch that differ only in the gate."""

from collections.abc import Sequence

import torch
from torch import Tensor

from loratelier.scope.change import Change
from loratelier.scope.compare import Compared, Place, compare
from loratelier.scope.decode import columns, decode, likeliest
from loratelier.scope.pieces import Pieces
from loratelier.scope.prompt import end_ids


class Sides:
    """Reads and writes in both looks of a change at once."""

    def __init__(self, change: Change, top: int) -> None:
        self.pieces = Pieces(change.base.tokenizer)
        self._change = change
        self._model = change.base.model
        self._top = top

    def answers(self, prompt: Sequence[int], limit: int) -> tuple[list[int], list[int]]:
        """Return the greedy answers before and after, each with its end token if it has one."""
        rows = self._change.rows
        ends = end_ids(self._change.base)
        with self._change.together():
            steps = decode(self._model, prompt, likeliest, rows=rows, ends=ends, limit=limit)
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

    @torch.no_grad()
    def _logits(self, ids: Sequence[int], last: int) -> tuple[Tensor, Tensor]:
        batch = torch.tensor([list(ids)] * self._change.rows, device=self._model.device)
        with self._change.together():
            logits = self._model(input_ids=batch, use_cache=False, logits_to_keep=last).logits
        return logits[0], logits[-1]
