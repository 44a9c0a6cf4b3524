"""The ends of a 4-bit base: held in 16 bits, computed in 32.

What 4 bits do not hold is mostly the embedding, a quarter of a small model. Half of it is saved by
holding it in bfloat16, as QLoRA does (arXiv 2305.14314). But few CPUs multiply in 16 bits, and some
are fifty times slower at it: so the layers here hold one type and compute in the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Rows of the output layer that are widened at once: 8192 x 4096 numbers take 128 MiB.
_ROWS = 8192


class NarrowEmbedding(nn.Embedding):
    """An embedding in 16 bits whose vectors come out in 32."""

    def forward(self, input: Tensor) -> Tensor:
        """Return float32 [..., d]."""
        return super().forward(input).float()


class NarrowLinear(nn.Linear):
    """A linear layer in 16 bits that multiplies in its input's type, some rows at a time."""

    def forward(self, input: Tensor) -> Tensor:
        """Return [..., d_out] in the type of the input."""
        weight = self.weight.to(input.dtype) if len(self.weight) <= _ROWS else None
        if weight is not None:
            return F.linear(input, weight, self.bias)
        parts = [F.linear(input, rows.to(input.dtype)) for rows in self.weight.split(_ROWS)]
        out = torch.cat(parts, dim=-1)
        return out if self.bias is None else out + self.bias


def hold_ends_in_16_bits(model: Any) -> None:
    """Hold a model's embedding and output layer in bfloat16; tied ones stay tied.

    Ends of classes other than torch's own are left as they are.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    if type(embedding) is nn.Embedding:
        count, size = embedding.weight.shape
        held = NarrowEmbedding(count, size, embedding.padding_idx, device="meta")
        held.weight = _narrow(embedding.weight)
        model.set_input_embeddings(held)
        embedding = held
    if type(head) is nn.Linear:
        out = NarrowLinear(head.in_features, head.out_features, bias=False, device="meta")
        out.weight = embedding.weight if tied else _narrow(head.weight)
        out.bias = head.bias
        model.set_output_embeddings(out)


@contextmanager
def wide_ends(model: Any) -> Iterator[None]:
    """Hold narrow ends in 32 bits while the context is open: for who trains or replaces their rows.

    PEFT multiplies with the rows themselves there, not through the layer.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    wide: Tensor | None = None
    if isinstance(embedding, NarrowEmbedding):
        wide = embedding.weight.float()
        count, size = embedding.weight.shape
        plain = nn.Embedding(count, size, embedding.padding_idx, device="meta")
        plain.weight = nn.Parameter(wide, requires_grad=False)
        model.set_input_embeddings(plain)
    if isinstance(head, NarrowLinear):
        out = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
        tied = wide is not None and head.weight is embedding.weight
        held = model.get_input_embeddings().weight if tied else head.weight.float()
        out.weight = held if tied else nn.Parameter(held, requires_grad=False)
        out.bias = head.bias
        model.set_output_embeddings(out)
    try:
        yield
    finally:
        model.set_input_embeddings(embedding)
        if head is not None:
            model.set_output_embeddings(head)


def _narrow(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
