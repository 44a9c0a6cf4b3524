"""A model without its weights, and what training puts into it, in the same operations.

The training room's own layers need weights that are there. Here LoRA is hooked beside the layers
that wear it, and layers in 4 bits unpack their weights for each product, so that what is held
meanwhile can be counted.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loratelier.base.layers import layer_of, layers
from loratelier.base.quiet import quiet, reason
from loratelier.kit.errors import InputError

# Kinds of positions whose tables depend on how long a text is: their size is that of plain ones.
_LENGTH_DEPENDENT = ("dynamic", "longrope")


def hollow(config: Any, dtype: torch.dtype) -> Any:
    """Return the model of a config on the meta device: names and shapes, no weights.

    Args:
        config: a transformers config; it is not changed.
        dtype: of the parameters.

    Raises:
        InputError: transformers makes no causal language model of it.
    """
    from transformers import AutoModelForCausalLM

    own = copy.deepcopy(config)
    own.__dict__.pop("quantization_config", None)
    text = own.get_text_config()
    rope = getattr(text, "rope_parameters", None)
    if isinstance(rope, dict) and rope.get("rope_type") in _LENGTH_DEPENDENT:
        text.rope_parameters = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    try:
        with quiet(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(own, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a config it cannot use
        raise InputError(
            f"No language model can be made of this config ({reason(error)})"
        ) from error
    return model.requires_grad_(False)


def packed_in_4_bits(model: Any) -> list[str]:
    """Return the names of the layers that bitsandbytes holds in 4 bits when transformers loads.

    Linear layers but the output layer; experts whose weights are one parameter are none.
    """
    output = model.get_output_embeddings()
    last = [name for name, _ in model.named_parameters()][-1]
    return [
        name
        for name, layer in layers(model).items()
        if layer.kind == "linear"
        and model.get_submodule(name) is not output
        and f"{name}.weight" != last
    ]


def size_in_4_bits(model: Any, names: list[str]) -> int:
    """Return the bytes of layers in nf4 with double quantisation (arXiv:2305.14314, section 3).

    Half a byte a weight, a byte for every 64 weights, and 4 bytes for every 256 of those; and
    two tables (of 16 and of 256 numbers) and an offset a layer.
    """
    total = 0
    for name in names:
        layer = layer_of(model.get_submodule(name))
        assert layer is not None
        weights = layer.d_in * layer.d_out
        blocks = -(-weights // 64)
        total += -(-weights // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256 + 1)
    return total


@contextmanager
def wearing(
    model: Any, sites: Mapping[str, int], packed: list[str], device: str
) -> Iterator[list[Tensor]]:
    """Let a hollow model compute as it does in training; yield the adapter's tensors, float32.

    Args:
        model: from :func:`hollow`.
        sites: the layers that wear LoRA, by name, and its rank.
        packed: the layers that are held in 4 bits.
        device: products with 4 bits are computed in float32 on a CPU.
    """
    inner = torch.float32 if device == "cpu" else next(model.parameters()).dtype
    handles = [_packed(model.get_submodule(name), inner) for name in packed]
    worn: list[Tensor] = []
    try:
        for name, rank in sites.items():
            module = model.get_submodule(name)
            layer = layer_of(module)
            if layer is None:
                raise InputError(f"{name} is no linear layer, and is not planned for")
            a = torch.empty(rank, layer.d_in, device="meta", requires_grad=True)
            b = torch.empty(layer.d_out, rank, device="meta", requires_grad=True)
            way = _looked_up if layer.kind == "embedding" else _plain if name in packed else _fused
            handles.append(_hooked(module, way, a, b))
            worn += [a, b]
        yield worn
    finally:
        for handle in handles:
            handle.remove()


def _hooked(module: nn.Module, way: Any, a: Tensor, b: Tensor) -> Any:
    return module.register_forward_hook(lambda _, args, out: way(out, args[0], a, b))


def _fused(out: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    made: Tensor = _Fused.apply(out, x, a, b)
    return made


class _Fused(torch.autograd.Function):
    """What the training room's one product keeps beside the base's: its input and ``A x``."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        small = flat @ a.to(flat.dtype).T
        ctx.save_for_backward(flat, small, a, b)
        ctx.mark_dirty(out)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        flat, small, a, b = ctx.saved_tensors
        rows = slope.reshape(-1, slope.shape[-1])
        inner = b.to(slope.dtype).T @ rows.T
        to_b = (small.T @ rows).T
        to_a = inner @ flat
        # The slope of the input is added into that of the base's product: no tensor of its own.
        return slope, None, to_a.to(a.dtype), to_b.to(b.dtype)


def _plain(out: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    small = F.linear(x.reshape(-1, x.shape[-1]).to(a.dtype), a)
    return out + ((small @ b.T) * 2.0).view(out.shape).to(out.dtype)


def _looked_up(out: Tensor, ids: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return out + (F.embedding(ids, a.T) @ b.T).to(out.dtype)


def _packed(module: Any, inner: torch.dtype) -> Any:
    """Let a layer unpack its weight for each product, as one in 4 bits does."""
    weight, bias = module.weight, module.bias
    stored = weight if isinstance(module, nn.Linear) else weight.T

    def forward(x: Tensor) -> Tensor:
        made: Tensor = _Unpacked.apply(x.to(inner), stored)
        made = made if bias is None else made + bias.to(inner)
        return made.to(x.dtype)

    module.forward = forward
    return _Own(module)


class _Own:
    """Takes a forward of an instance's own away again."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def remove(self) -> None:
        del self._module.forward


class _Unpacked(torch.autograd.Function):
    """A product with a weight that is there only while it is needed, and nothing that is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, torch.empty_like(weight, dtype=x.dtype))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        # On the way back it is unpacked into the dtype that it was packed from, and turned.
        return slope @ torch.empty_like(weight).to(slope.dtype), None
