"""What is measured before, during and after a run: held-out loss and general text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loratelier.base.likelihood import target_losses
from loratelier.kit.progress import task
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
    """Measure ``-log p`` of the learned tokens of the packs, under whatever gates are open."""
    total, tokens = 0.0, 0
    device = next(model.parameters()).device
    with task(what, total=len(packs)) as bar:
        for pack in packs:
            total += float(target_losses(model, *pack.to(device).parts).double().sum())
            tokens += pack.targets
            bar.advance()
    return HeldOut(total / tokens, tokens)


def change(before: float, after: float) -> float:
    """Return the relative change: -0.15 is a fall by 15%."""
    return (after - before) / before
