"""The LoRA layer of the training loop: PEFT's, with one fused product where nothing forbids it.

PEFT's plain layer makes five tensors of the size of its output, and multiplies thin matrices in
orders that a CPU is slow at. The product here adds the low-rank part into the base's output, and
its gradients are taken in the orders that were measured to be fastest (bench/train.py). Anything
but plain LoRA goes PEFT's way.

The layer knows gates: what the adapter adds may be multiplied by a number for each token, as in the
bank. That is how an adapter that starts at an invocation (aLoRA, arXiv:2504.12397) is trained on
packed rows.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def remembering() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a checkpointed block: the way there, and its second computation.

    The second one is on the way back, when the gate of the first is long closed or that of another
    pack is open; so the gate is remembered here.
    """
    return nullcontext(), _Again(_gate[-1])


class _Again(AbstractContextManager[None]):
    """:func:`gated`, as often as it is entered."""

    def __init__(self, gate: Tensor | None) -> None:
        self.gate = gate

    def __enter__(self) -> None:
        _gate.append(self.gate)

    def __exit__(self, *_: object) -> None:
        _gate.pop()


class LoraLinear(lora.Linear):
    """PEFT's LoRA layer over an ``nn.Linear``, faster where it is plain, and with the gate.

    PiSSA and OLoRA begin with A and B that lie in the base's own weight, and PEFT takes them out of
    that weight. Here the base keeps its weight: the beginning (A0, B0) is kept instead, and the
    layer computes ``W x + s (B A - B0 A0) x``, which is the same function.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``W x + b + gate * scaling * (B A - B0 A0) x``, like PEFT's layer."""
        name = plain_adapter(self, args, kwargs)
        if name is None or self.base_layer.weight.requires_grad:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base: Any = self.base_layer
        a, b = factors(self, name)
        dropout = self.lora_dropout[name]
        if isinstance(dropout, nn.Identity):
            return product(x, base.weight, base.bias, a, b, self.scaling[name], _gate[-1])
        return added(base(x), dropout(x), a, b, self.scaling[name])

    def pissa_init(self, adapter_name: str, init_lora_weights: str) -> None:
        """Begin with the largest singular directions of the base's weight, and leave it alone."""
        self._begin(super().pissa_init, adapter_name, init_lora_weights)

    def olora_init(self, adapter_name: str) -> None:
        """Begin with the QR decomposition of the base's weight, and leave it alone."""
        self._begin(super().olora_init, adapter_name)

    def _begin(self, init: Callable[..., None], *args: str) -> None:
        weight = self.get_base_layer().weight
        # Written back into its own memory, which a tied layer may share.
        memory, before = weight.data, weight.data.clone()
        init(*args)
        memory.copy_(before)
        weight.data = memory

    def keep_beginning(self, name: str) -> None:
        """Take A and B as they are now away from all that they will become."""
        for half, part in (("A0", self.lora_A[name]), ("B0", self.lora_B[name])):
            # No parameter: it is not trained, and PEFT does not save it.
            self.register_buffer(half, part.weight.detach().clone(), persistent=False)


def plain_adapter(layer: Any, args: Any, kwargs: Any) -> str | None:
    """Return the one adapter that is on, or None where PEFT must compute the layer itself."""
    if args or kwargs or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    name: str = layer.active_adapters[0]
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias[name]:
        return None
    return name


def factors(layer: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return A [r, d_in] and B [d_out, r] of a layer; with a beginning, of rank 2r."""
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    beginning: tuple[Tensor, Tensor] | None = beginning_of(layer)
    if beginning is None:
        return a, b
    return torch.cat([a, beginning[0]]), torch.cat([b, -beginning[1]], dim=1)


def beginning_of(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return what a layer takes away from its update (A0, B0), or None."""
    kept = dict(layer.named_buffers(recurse=False))
    return (kept["A0"], kept["B0"]) if "A0" in kept else None


def added(out: Tensor, x: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Return ``out + gate * scaling * B A x`` in plain operations, for layers of any kind.

    Args:
        out: [..., d_out], what the base made.
        x: [..., d_in], the adapter's input, which dropout may have made another than the base's.
        a, b, scaling: as for :func:`product`.
    """
    # As in PEFT, in the precision of A and B, and rounded once.
    small = F.linear(x.reshape(-1, x.shape[-1]).to(a.dtype), a)
    gate = _gate[-1]
    if gate is not None:
        small = small * gate[:, None].to(small.dtype)
    update = (small @ b.T) * scaling
    return out + update.view(out.shape).to(out.dtype)


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
