"""The LoRA layer of the training loop: PEFT's, with one fused product where nothing forbids it.

PEFT's plain layer makes five tensors of the size of its output, and multiplies thin matrices in
orders that a CPU is slow at. The product here adds the low-rank part into the base's output, and
its gradients are taken in the orders that were measured to be fastest (bench/train.py). Anything
but plain LoRA goes PEFT's way.

The layer knows gates: what the adapter adds may be multiplied by a number for each token, as in the
bank. That is how an adapter that starts at an invocation (aLoRA, arXiv:2504.12397) is trained on
packed rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.nn import functional as F

# One gate for all layers while a pack is computed: [T], or None for open.
_gate: list[Tensor | None] = [None]


@contextmanager
def gated(gate: Tensor | None) -> Iterator[None]:
    """Multiply what the adapter adds to each token by ``gate`` ([T]) while the context is open."""
    _gate.append(gate)
    try:
        yield
    finally:
        _gate.pop()


class LoraLinear(lora.Linear):
    """PEFT's LoRA layer over an ``nn.Linear``, faster where it is plain.

    ``parts`` (A0 [r, d_in], B0 [d_out, r]) are taken away from what A and B make: initial values
    that lie in the base's principal directions then change nothing before the first step, and the
    base keeps its weights (PiSSA and OLoRA change them instead).
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``W x + b + gate * scaling * B A x``, like PEFT's layer."""
        name = self._plain_adapter(args, kwargs)
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base: Any = self.base_layer
        return product(
            x,
            base.weight,
            base.bias,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
            _gate[-1],
        )

    def _plain_adapter(self, args: Any, kwargs: Any) -> str | None:
        """Return the one adapter that is on, or None where the fused product is not for it."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name]:
            return None
        if not isinstance(self.lora_dropout[name], nn.Identity):
            return None
        return None if self.base_layer.weight.requires_grad else name


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scaling: float,
    gate: Tensor | None = None,
) -> Tensor:
    """Return ``W x + bias + gate * scaling * B A x``: [..., d_out].

    Args:
        x: [..., d_in].
        weight: [d_out, d_in], frozen; ``bias``: [d_out] or None, frozen.
        a: [r, d_in]; ``b``: [d_out, r]. Where they are kept in float32 beside a smaller base, they
            are rounded to the base's dtype for the product, as mixed precision does.
        scaling: alpha / r, or what rsLoRA makes of it.
        gate: one number a token, [T] for an x of T tokens; 1 without it.
    """
    out: Tensor = _Product.apply(x, weight, bias, a, b, scaling, gate)
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
        gate: Tensor | None,
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        small = flat @ a.to(flat.dtype).T
        if gate is not None:
            small *= gate[:, None].to(small.dtype)
        out = F.linear(flat, weight, bias)
        out.addmm_(small, b.to(flat.dtype).T, alpha=scaling)
        ctx.save_for_backward(flat, small, weight, a, b, gate)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        flat, small, weight, a, b, gate = ctx.saved_tensors
        slope = slope.reshape(-1, slope.shape[-1])
        # [r, T] = (scaling * B^T) slope^T: the thin side first, which BLAS is quicker at.
        inner = (b.to(slope.dtype).T * ctx.scaling) @ slope.T
        if gate is not None:
            inner *= gate[None].to(inner.dtype)
        to_b = (small.T @ slope).T * ctx.scaling
        to_a = inner @ flat
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = slope @ weight
            to_x.addmm_(inner.T, a.to(slope.dtype))
            to_x = to_x.view(ctx.shape)
        return to_x, None, None, to_a.to(a.dtype), to_b.to(b.dtype), None, None
