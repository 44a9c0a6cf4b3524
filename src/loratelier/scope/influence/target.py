"""The move that a person points at: a log-probability, or the difference of two."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.train.examples import Example
from loratelier.train.learner import Learner
from loratelier.train.packing import side_by_side


@dataclass(frozen=True)
class Target:
    """``log p(wanted)`` after a prompt, less ``log p(against)`` where that is given; in nats.

    ``wanted`` and ``against`` are read as they stand: one token (`` London``, with its blank), or a
    whole answer, whose tokens' log-probabilities are summed. ``after``: the number of the prompt's
    token after which they stand, from 0, or from the end if below 0.
    """

    wanted: str
    against: str | None = None
    after: int = -1

    def __str__(self) -> str:
        place = "" if self.after == -1 else f", after the prompt's token {self.after}"
        if self.against is None:
            return f"log p(“{self.wanted}”){place}"
        return f"log p(“{self.wanted}”) − log p(“{self.against}”){place}"


@dataclass(frozen=True)
class Aim:
    """A target as tokens: ``value = sum of sign * log p(text)``."""

    texts: tuple[tuple[float, Example], ...]

    @classmethod
    def of(cls, base: Base, prompt: Sequence[int], target: Target) -> "Aim":
        """Lay the target's texts after the prompt.

        Raises:
            InputError: a text without tokens, a place that the prompt does not have, or more tokens
                than the base reads.
        """
        length = len(prompt)
        if not -length <= target.after < length:
            raise InputError(
                f"The prompt has {length} tokens, and the target stands after number "
                f"{target.after}",
                f"Count from 0 to {length - 1}, or from the end with -1",
            )
        before = prompt[: target.after % length + 1]
        texts = [(1.0, _laid(base, before, target.wanted))]
        if target.against is not None:
            texts.append((-1.0, _laid(base, before, target.against)))
        if target.against == target.wanted:
            raise InputError(f"“{target.wanted}” is compared with itself", "Name another text")
        return cls(tuple(texts))

    def value(self, learner: Learner) -> Tensor:
        """Return the target's value in nats: a number with a gradient."""
        device = next(learner.parameters()).device
        parts = []
        for sign, text in self.texts:
            pack = side_by_side([text], padded=learner.reader.apart == "padding").to(device)
            parts.append(-sign * learner.nll(pack).sum())
        return torch.stack(parts).sum()


def _laid(base: Base, before: Sequence[int], text: str) -> Example:
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError("The target is an empty text", "Name a token or an answer")
    whole = (*before, *ids)
    if base.context is not None and len(whole) > base.context:
        raise InputError(
            f"Prompt and target have {len(whole)} tokens, and {base.name} reads {base.context}",
            "Shorten them",
        )
    return Example("the target", "", whole, (*[False] * len(before), *[True] * len(ids)))
