"""The drift meter: what training does to general text that it did not have to touch.

Two figures on the same neutral prose: bits per byte, which says how much worse the model became at
it, and KL(base || model) per token, which says how far it moved, better or worse. The budget of
the guards is on the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loratelier.base.decoder import head_of
from loratelier.base.losses import linear_kl
from loratelier.kit.progress import task
from loratelier.train.examples import Example
from loratelier.train.learner import Learner, on
from loratelier.train.packing import Pack, pack

PACK = 1024


@dataclass(frozen=True)
class Drift:
    """``bpb``: bits per byte of general text. ``kl``: nats per token from the base, or None where
    the model has no last layer that it could be measured by."""

    bpb: float
    kl: float | None


@dataclass(frozen=True)
class _Reference:
    """The base's hidden states of every pack, and its last layer if that one is trained."""

    states: list[Tensor]
    weight: Tensor | None
    bias: Tensor | None


class DriftMeter:
    """Measures general text under a learner, against what the base made of it."""

    def __init__(self, learner: Learner, tokenizer: Any, texts: Sequence[str]) -> None:
        """Read the texts once with the gate closed.

        Args:
            learner: with the base's weights still in it.
            tokenizer: the base's.
            texts: neutral prose, each text on its own.
        """
        rows, self.size = _as_rows(tokenizer, texts)
        padded = learner.reader.apart == "padding"
        device = next(learner.parameters()).device
        self.packs = on(pack(rows, PACK, padded=padded), device)
        self.learner = learner
        self._reference = self._read() if learner.reader.plain else None

    @torch.no_grad()
    def measure(self) -> Drift:
        """Measure the model as it is now."""
        nats, apart, tokens = 0.0, 0.0, 0
        with task("Measuring general text", total=len(self.packs)) as bar:
            for number, each in enumerate(self.packs):
                nats += float(self.learner.nll(each).double().sum())
                if self._reference is not None:
                    apart += float(self._kl(each, number).double().sum())
                tokens += each.targets
                bar.advance()
        kl = apart / tokens if self._reference is not None else None
        return Drift(bpb=nats / math.log(2) / self.size, kl=kl)

    @torch.no_grad()
    def _read(self) -> _Reference:
        head = head_of(self.learner.reader.model)
        trained = not self.learner.reader.head_is_frozen
        with self.learner.gate_closed():
            states = [self.learner.states(each) for each in self.packs]
        # A copy is needed only of a last layer that training changes under our hands.
        weight = head.weight.detach().clone() if trained else None
        bias = head.bias.detach().clone() if trained and head.bias is not None else None
        return _Reference(states, weight, bias)

    def _kl(self, each: Pack, number: int) -> Tensor:
        assert self._reference is not None
        states = self.learner.states(each)
        head = head_of(self.learner.reader.model)
        reference = self._reference.states[number]
        if self._reference.weight is None:
            return linear_kl(states, head.weight, head.bias, reference)
        logits: Tensor = head(states).float().log_softmax(-1)
        wanted = (
            torch.nn.functional.linear(reference, self._reference.weight, self._reference.bias)
            .float()
            .log_softmax(-1)
        )
        return (wanted.exp() * (wanted - logits)).sum(-1)


def _as_rows(tokenizer: Any, texts: Sequence[str]) -> tuple[list[Example], int]:
    """Return texts as rows whose tokens but the first are all targets, and the targets' bytes."""
    rows, size = [], 0
    for number, text in enumerate(texts):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = encoded["input_ids"]
        if len(ids) > 1:
            learned = (False, *[True] * (len(ids) - 1))
            rows.append(Example(f"general {number}", f"general {number}", tuple(ids), learned))
            size += len(text[encoded["offset_mapping"][1][0] :].encode("utf-8"))
    return rows, size
