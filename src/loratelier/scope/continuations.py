"""How likely a text goes on with each of several sequences of tokens, teacher-forced."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.scope.reading import Text
from loratelier.scope.spellings import require_room

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Continuations:
    """Sequences of tokens after a text, and the rows in which all of them are read.

    Attributes:
        tokens: the sequences, each of at least one token.
        text: the text with all tokens of the sequences but their last; what goes on further shows
            the places of what is shorter too, so there may be fewer rows than sequences.
        rows: for each sequence the row that it is read in.
    """

    tokens: tuple[Tokens, ...]
    text: Text
    rows: tuple[int, ...]

    @classmethod
    def after(cls, base: Base, ids: Sequence[int], tokens: Sequence[Tokens]) -> "Continuations":
        """Prepare to read sequences after a text.

        Raises:
            InputError: more tokens than the base reads.
        """
        heads = [each[:-1] for each in tokens]
        needed = [h for h in dict.fromkeys(heads) if not any(_goes_on(h, o) for o in heads)]
        kept = max(map(len, needed)) + 1
        require_room(base, len(ids) + kept - 1, "The prompt with what is looked for")
        return cls(
            tokens=tuple(tokens),
            text=Text(tuple((*ids, *row) for row in needed), kept),
            rows=tuple(
                next(n for n, row in enumerate(needed) if row[: len(head)] == head)
                for head in heads
            ),
        )

    def likely(self, logits: Tensor) -> Tensor:
        """Return the log-probability of each sequence in nats, the sum over its tokens.

        Args:
            logits: of :attr:`text`, [..., rows, kept, V].

        Returns:
            float64 [..., sequences], with gradients.
        """
        known = logits.double().log_softmax(-1)
        own = [
            torch.stack([known[..., row, at, token] for at, token in enumerate(tokens)]).sum(0)
            for row, tokens in zip(self.rows, self.tokens, strict=True)
        ]
        return torch.stack(own, dim=-1)


def _goes_on(head: Tokens, other: Tokens) -> bool:
    return len(other) > len(head) and other[: len(head)] == head
