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

from loratelier.kit.progress import task
from loratelier.train.examples import Example
from loratelier.train.learner import Learner, on
from loratelier.train.packing import pack

PACK = 1024


@dataclass(frozen=True)
class Drift:
    """``bpb``: bits per byte of general text. ``kl``: nats per token from the base, or None where
    the model has no last layer that it could be measured by."""

    bpb: float
    kl: float | None


class DriftMeter:
    """Measures general text under a learner, against what the base made of it."""

    def __init__(
        self, learner: Learner, prepared: Any, tokenizer: Any, texts: Sequence[str]
    ) -> None:
        """Read the texts once with the gate closed.

        Args:
            learner: the module itself, with the base's weights still in it.
            prepared: what accelerate made of it, which is what is called.
            tokenizer: the base's.
            texts: neutral prose, each text on its own.
        """
        rows, self.size = _as_rows(tokenizer, texts)
        padded = learner.reader.apart == "padding"
        self.packs = on(pack(rows, PACK, padded=padded), next(learner.parameters()).device)
        self.prepared = prepared
        # Of a model whose logits are more than its last layer, all logits would have to be kept.
        self._reference = self._read() if learner.reader.plain else None
        self.base_bpb = self._base_bpb()

    @torch.no_grad()
    def measure(self) -> Drift:
        """Measure the model as it is now."""
        nats, apart, tokens = 0.0, 0.0, 0
        with task("Measuring general text", total=len(self.packs)) as bar:
            for number, each in enumerate(self.packs):
                if self._reference is None:
                    nll = self.prepared(Learner.nll, each)
                else:
                    reference = self._reference[number]
                    nll, kl = self.prepared(Learner.nll_and_kl, each, reference)
                    apart += float(kl.double().sum())
                nats += float(nll.double().sum())
                tokens += each.targets
                bar.advance()
        kl_mean = apart / tokens if self._reference is not None else None
        return Drift(bpb=nats / math.log(2) / self.size, kl=kl_mean)

    @torch.no_grad()
    def _base_bpb(self) -> float:
        """Return the base's bits per byte of the texts."""
        losses = (self.prepared(Learner.base_nll, each) for each in self.packs)
        return sum(float(each.double().sum()) for each in losses) / math.log(2) / self.size

    def _read(self) -> list[Tensor]:
        return [self.prepared(Learner.reference, each) for each in self.packs]


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
