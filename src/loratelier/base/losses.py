"""Losses over a vocabulary whose logits are never all there at once.

A vocabulary of 49,152 times a few thousand targets is more memory than the model. Here the logits
of a chunk of targets are made, turned into the loss of each target and into its slope with respect
to the hidden state, and dropped before the next chunk. The slope of one target's loss does not
depend on what is done with that loss afterwards, so any weighting, any sum, and preference losses
too can be built on these functions; autograd multiplies the slopes with whatever comes back.

Exact up to the rounding of a different order of summation; the idea of chunking the last layer
together with its loss is that of Hsu et al., "Liger Kernel" (arXiv:2410.10989).
"""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Numbers in a chunk of logits. On a CPU 32 MiB of float32: larger ones are slower, as fresh memory
# of that size is mapped anew each time. A GPU wants large products.
CHUNK, CHUNK_GPU = 2**23, 2**27
# What kind of device a model without weights is planned for: its own, meta, does not say.
PLANNED: ContextVar[str] = ContextVar("PLANNED", default="cpu")


def linear_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Return ``-log softmax(hidden W^T + bias)[label]`` in nats: float32 [N].

    Args:
        hidden: [N, d]; gradients flow to it alone.
        weight: [V, d], frozen; ``bias`` [V] or None.
        labels: int64 [N].
    """
    ones = torch.ones(labels.shape[0], 1, dtype=torch.float32, device=hidden.device)
    return linear_soft_nll(hidden, weight, bias, labels[:, None], ones)


def linear_soft_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, shares: Tensor
) -> Tensor:
    """Return the cross-entropy towards given distributions, in nats: float32 [N].

    ``-sum_k share_k log softmax(hidden W^T + bias)[id_k]``: tokens that are not listed have no
    share, so shares that sum to less than 1 say nothing of the rest.

    Args:
        hidden, weight, bias: as in :func:`linear_nll`.
        ids: int64 [N, k], different within a row.
        shares: float32 [N, k].
    """
    loss: Tensor = _SoftNll.apply(hidden, weight, bias, ids, shares)
    return loss


def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reference: Tensor,
    *,
    reference_weight: Tensor | None = None,
    reference_bias: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Return ``KL(reference || model)`` of the next token in nats: float32 [N].

    Args:
        hidden, weight, bias: as in :func:`linear_nll`.
        reference: [N, d'], the hidden states of what the model is to stay near; no gradient.
        reference_weight: [V, d'], its last layer, where it is another one; with its bias.
        temperature: divides both logits (Hinton et al., arXiv:1503.02531).
    """
    other = (weight, bias) if reference_weight is None else (reference_weight, reference_bias)
    loss: Tensor = _Kl.apply(hidden, weight, bias, reference.detach(), *other, temperature)
    return loss


def head_nll(head: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return what :func:`linear_nll` does for a last layer that is trained too: float32 [N].

    The logits of a chunk are made a second time on the way back instead of being kept.

    Args:
        head: the last layer, with whatever adapter it wears.
        hidden: [N, d].
        labels: int64 [N].
    """
    size = rows_at_once(head.weight.shape[0], hidden.device)
    parts = [
        checkpoint(_plain_nll, head, states, wanted, use_reentrant=False)
        for states, wanted in zip(hidden.split(size), labels.split(size), strict=True)
    ]
    return torch.cat(parts)


def rows_at_once(vocabulary: int, device: torch.device) -> int:
    """Return how many targets a chunk holds."""
    kind = PLANNED.get() if device.type == "meta" else device.type
    return max(1, (CHUNK_GPU if kind == "cuda" else CHUNK) // vocabulary)


def _plain_nll(head: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), labels, reduction="none")


class _SoftNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, shares: Tensor
    ) -> Tensor:
        loss = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight = weight.to(hidden.dtype)  # what is held in less is computed in what comes in
        for part in _chunks(hidden, weight.shape[0]):
            likely = F.linear(hidden[part], weight, bias).float()
            picked = likely.gather(1, ids[part])
            weighed = shares[part].sum(1)
            total = _softmax_(likely)
            loss[part] = total * weighed - (picked * shares[part]).sum(1)
            if slopes is not None:
                likely.mul_(weighed[:, None]).scatter_add_(1, ids[part], -shares[part])
                torch.mm(likely.to(weight.dtype), weight, out=slopes[part])
        ctx.save_for_backward(*([slopes] if slopes is not None else []))
        return loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        return slopes * slope[:, None].to(slopes.dtype), None, None, None, None


class _Kl(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        reference: Tensor,
        other_weight: Tensor,
        other_bias: Tensor | None,
        temperature: float,
    ) -> Tensor:
        loss = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        weight = weight.to(hidden.dtype)
        other_weight = other_weight.to(reference.dtype)
        for part in _chunks(hidden, 2 * weight.shape[0]):
            logits = F.linear(hidden[part], weight, bias).float().div_(temperature)
            wanted = F.linear(reference[part], other_weight, other_bias).float().div_(temperature)
            ours, theirs = logits.log_softmax(-1), wanted.log_softmax(-1)
            wanted = theirs.exp()
            loss[part] = (wanted * (theirs - ours)).sum(-1)
            if slopes is not None:
                apart = ours.exp_().sub_(wanted).div_(temperature)
                torch.mm(apart.to(weight.dtype), weight, out=slopes[part])
        ctx.save_for_backward(*([slopes] if slopes is not None else []))
        return loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (slopes,) = ctx.saved_tensors
        return slopes * slope[:, None].to(slopes.dtype), *([None] * 6)


def _softmax_(logits: Tensor) -> Tensor:
    """Turn logits into probabilities in place and return the logarithm of their sum."""
    top = logits.max(-1, keepdim=True).values
    sums = logits.sub_(top).exp_().sum(-1, keepdim=True)
    logits.div_(sums)
    return (top + sums.log())[:, 0]


def _chunks(hidden: Tensor, vocabulary: int) -> list[slice]:
    count, size = hidden.shape[0], rows_at_once(vocabulary, hidden.device)
    return [slice(a, min(a + size, count)) for a in range(0, count, size)]
