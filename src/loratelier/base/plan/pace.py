"""How long training takes, from figures: operations over a share of the peak, or bytes over the
memory's bandwidth, whichever is more.

Nothing of it is measured. Exchange between GPUs, softmax and everything elementwise are in the
share.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from loratelier.base.layers import block_of
from loratelier.base.plan.figures import Gpu
from loratelier.base.work import work_of

# The share of the dense peak that is assumed: published training runs of single GPUs reach about
# 0.3 to 0.5 of it.
SHARE = 0.4


@dataclass(frozen=True)
class Pace:
    """``seconds``: for 1,000 tokens on one GPU. ``bound``: by arithmetic or by memory."""

    seconds: float
    bound: str


@dataclass(frozen=True)
class Burden:
    """What training costs: ``token`` operations for each token read, ``target`` for each that is
    learned; ``read`` bytes that a pack of ``tokens`` takes through the memory whatever its size."""

    token: float
    target: float
    read: float
    tokens: int
    dtype: torch.dtype

    def on(self, gpu: Gpu) -> Pace:
        """Return how long 1,000 tokens take, all of them learned."""
        half = gpu.bf16 if self.dtype != torch.float32 else None
        computing = (self.token + self.target) / ((half or gpu.fp32) * SHARE)
        reading = self.read / self.tokens / gpu.bandwidth
        bound = "arithmetic" if computing >= reading else "memory"
        return Pace(1000 * max(computing, reading), bound)


def burden_of(
    model: Any,
    sites: Iterable[str],
    tokens: int,
    *,
    whole: bool,
    again: bool,
    unpacks: bool,
    product: torch.dtype,
) -> Burden:
    """Count what training costs.

    Args:
        model: a hollow model.
        sites: what wears LoRA; nothing goes back below the lowest.
        tokens: of a pack, which is taken to be one row.
        whole: all weights are trained.
        again: blocks are computed a second time (checkpointing).
        unpacks: weights are written unpacked before each product, and read again.
        product: the dtype in which matrices are multiplied.
    """
    numbers = [block_of(name) for name in sites]
    inside = [number for number in numbers if number is not None]
    first = 0 if whole or len(inside) < len(numbers) or not inside else min(inside)
    work = work_of(model, first, trains_weights=whole)
    ahead = work_of(model, 2**30).token
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Burden(
        token=work.token + 3 * _attention(model, tokens) + (ahead if again else 0.0),
        target=work.target,
        read=weights * (3 if again else 2) * (2 if unpacks else 1),
        tokens=tokens,
        dtype=product,
    )


def _attention(model: Any, tokens: int) -> float:
    """Return the operations of a token's scores and of their mixture, on the way there.

    Two products with half of the keys on average; models without heads have none.
    """
    text = model.config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    if not heads:
        return 0.0
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return 2.0 * tokens * int(heads) * int(size) * int(text.num_hidden_layers)
