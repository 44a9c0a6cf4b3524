"""What is measured on rows that were not trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loratelier.base.decoder import Reader
from loratelier.base.packed import rows_apart
from loratelier.kit.progress import task
from loratelier.train.learner import Learner
from loratelier.train.packing import Pack


@dataclass(frozen=True)
class HeldOut:
    """The loss on rows that were not trained on.

    ``nll`` is nats per learned token (the end tokens count), over ``tokens`` of them.
    """

    nll: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """``exp(nll)``."""
        return math.exp(self.nll)


@torch.no_grad()
def held_out(
    model: Any, packs: Sequence[Pack], *, what: str = "Measuring held-out rows"
) -> HeldOut:
    """Measure ``-log p`` of the packs' targets, under whatever gates are open.

    Args:
        model: a transformers causal model.
        packs: rows packed end to end.
        what: how the work is called while it runs.
    """
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    with rows_apart(model) as apart, task(what, total=len(packs)) as bar:
        reader = Reader(model, apart)
        for each in packs:
            pack = each.to(device)
            losses = reader.nll(pack.ids, pack.lengths, pack.places, pack.labels)
            total += float(losses.double().sum())
            tokens += pack.targets
            bar.advance()
    return HeldOut(total / tokens, tokens)


@torch.no_grad()
def mean_nll(prepared: Any, packs: Sequence[Pack], device: torch.device) -> float:
    """Return the mean ``-log p`` of the packs' targets in nats under a learner as it is."""
    total, tokens = 0.0, 0
    with task("Measuring held-out rows", total=len(packs)) as bar:
        for each in packs:
            losses = prepared(Learner.nll, each.to(device))
            total += float(losses.double().sum())
            tokens += each.targets
            bar.advance()
    return total / tokens


def change(before: float, after: float) -> float:
    """Return the relative change: -0.15 is a fall by 15%."""
    return (after - before) / before
