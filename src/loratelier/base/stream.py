"""The residual stream: which layers read it, which write to it, and what its directions mean.

Nothing here knows a model by name. A model reads a few tokens once, and what is looked at is which
tensor goes where: a layer that is given the very output of a norm over the stream reads it; a layer
inside a block whose output is as wide as the stream, and which does not read it, writes to it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.base.layers import block_of, dense, find, layer_of, layers
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class Stream:
    """The residual stream of a model; all tensors float32 on the CPU.

    Attributes:
        readers: layer -> [d], what the norm before it multiplies each number of the stream with.
        writers: layer -> [d], what a norm after it multiplies with; ones where there is none.
        final: [d] what the last norm multiplies with; ones where there is none.
        embedding: [V, d] the rows that tokens enter the stream with.
        unembedding: [V, d] the rows that the stream is compared with; None without an output layer.
        order: the linear layers, in the order in which the model calls them.
    """

    readers: Mapping[str, Tensor]
    writers: Mapping[str, Tensor]
    final: Tensor
    embedding: Tensor
    unembedding: Tensor | None
    order: tuple[str, ...]


@dataclass
class _Seen:
    """What went where while the model read: tensors are held, so that none is taken for another."""

    given: dict[str, Tensor] = field(default_factory=dict)  # linear layer -> input
    made: dict[str, Tensor] = field(default_factory=dict)  # linear layer -> output
    normed: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)


@torch.no_grad()
def residual_stream(model: Any) -> Stream:
    """Follow the residual stream through a model; see the head of this module."""
    rows: Tensor = model.get_input_embeddings().weight
    width = rows.shape[1]
    with _watched(model, width) as seen:
        ids = torch.arange(1, 4, device=rows.device)[None]
        last = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    readers = {
        name: _scale(norm, width)
        for name, given in seen.given.items()
        for norm, _, made in seen.normed
        if _same(given, made)
    }
    known = layers(model)
    writers = {
        name: _after(seen, made, width)
        for name, made in seen.made.items()
        if known[name].d_out == width and name not in readers and block_of(name) is not None
    }
    final = next((norm for norm, _, made in seen.normed if _same(made, last)), None)
    head = model.get_output_embeddings()
    return Stream(
        readers=readers,
        writers=writers,
        final=torch.ones(width) if final is None else _scale(final, width),
        embedding=rows.detach().float().cpu(),
        unembedding=None if head is None else dense(head).cpu(),
        order=tuple(seen.made),
    )


def weight_of(model: nn.Module, site: str) -> Tensor:
    """Return the weight of a linear map, dense: float32 [d_out, d_in] on the CPU.

    Raises:
        InputError: the model has no such layer.
    """
    module = find(model, site)
    if module is None or layer_of(module) is None:
        raise InputError(f"This base has no layer {site}")
    return dense(module).cpu()


@contextmanager
def _watched(model: nn.Module, width: int) -> Iterator[_Seen]:
    seen = _Seen()
    hooks = []

    def linear(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen.given[name], seen.made[name] = args[0], output

        return hook

    def norm(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            seen.normed.append((module, args[0], output))

    for name, module in model.named_modules():
        layer = layer_of(module)
        if layer is not None and layer.kind == "linear":
            hooks.append(module.register_forward_hook(linear(name)))
        elif _is_norm(module, width):
            hooks.append(module.register_forward_hook(norm))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in memory; some models look at one in two shapes."""
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def _is_norm(module: nn.Module, width: int) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.shape == (width,)


def _after(seen: _Seen, made: Tensor, width: int) -> Tensor:
    """Return the scale of the norm that a layer's output goes through, as in Gemma; else ones."""
    norm = next((each for each, given, _ in seen.normed if _same(given, made)), None)
    return torch.ones(width) if norm is None else _scale(norm, width)


def _scale(norm: nn.Module, width: int) -> Tensor:
    """Return what a norm multiplies each number with, asked of the norm itself: [d].

    An input of alternating 1 and -1 has length 1 on average and mean 0, so that neither an RMS norm
    nor a layer norm changes it before multiplying; a bias cancels between it and its negative.
    """
    weight: Any = norm.weight
    probe = torch.ones(width, dtype=weight.dtype, device=weight.device)
    probe[1::2] = -1
    answer: Tensor = (norm(probe[None]) - norm(-probe[None]))[0] / 2
    return (answer * probe).float().cpu()
