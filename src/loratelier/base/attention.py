"""The model's own attention, with every probability shown to a watcher as it is made.

Maps of a whole text take layers x heads x tokens x tokens numbers. Here the model attends as its
``eager`` implementation does, block of queries by block of queries, and each block's probabilities
are handed over and dropped, so that whoever watches decides what is kept. The implementation and
its mask are registered with transformers under a name of their own; the mask has to go with it,
because without one transformers makes none and causality would be lost in silence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from loratelier.kit.errors import InputError

NAME = "loratelier_seen"
# Probabilities of a block of queries: 2^22 numbers are 16 MiB of float32, and a few copies of it.
_BLOCK = 2**22


class AttentionWatch(Protocol):
    """What sees the attention of each layer, in the layers' order."""

    def begin(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        """See what a layer attends with.

        Args:
            layer: its number, from 0.
            query: [rows, query heads, T, head size], as scores are made of it (rotated).
            key: [rows, key/value heads, T, head size].
            value: as ``key``.
        """

    def see(self, layer: int, first: int, probabilities: Tensor) -> None:
        """See a block of queries: float32 [rows, query heads, n, T].

        Args:
            layer: its number, from 0.
            first: the position of the block's first query.
            probabilities: each query's over all tokens; they sum to 1, or to less where a layer
                has a sink that takes the rest.
        """


_watching: ContextVar[AttentionWatch | None] = ContextVar("watching", default=None)


@contextmanager
def seen_attention(model: Any, watch: AttentionWatch) -> Iterator[None]:
    """Show ``watch`` the attention of everything that the model reads inside the block.

    The implementation that the model had is put back at the end, whatever happens.

    Args:
        model: a transformers causal model, to be called without a cache.
        watch: sees every layer that attends.

    Raises:
        InputError: the model's class does not let its attention be chosen.
    """
    before = _chosen(model.config)
    token = _watching.set(watch)
    try:
        model.set_attn_implementation(NAME)
        if model.config.get_text_config()._attn_implementation != NAME:
            raise InputError(
                f"The attention of {type(model).__name__} cannot be seen: its code computes it in "
                "a way of its own",
                "Leave the attention out for this base",
            )
        yield
    finally:
        _watching.reset(token)
        model.set_attn_implementation(before)


@contextmanager
def first_rows_inputs(model: Any) -> Iterator[None]:
    """Let every block of the model read, in all rows, what it would read in the first one.

    What rows then differ by inside a block is what that block itself does differently, and not
    what it inherits from the blocks below it.
    """
    hooks = [
        block.register_forward_pre_hook(_as_first, with_kwargs=True) for block in _blocks(model)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _as_first(
    _block: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (args[0][:1].expand_as(args[0]).contiguous(), *args[1:]), given
    states = given["hidden_states"]
    return args, given | {"hidden_states": states[:1].expand_as(states).contiguous()}


def _blocks(model: Any) -> list[nn.Module]:
    count = model.config.get_text_config().num_hidden_layers
    lists = (each for each in model.get_decoder().modules() if isinstance(each, nn.ModuleList))
    found = next((each for each in lists if len(each) == count), None)
    if found is None:
        raise InputError(
            f"The {count} layers of {type(model).__name__} are in no list of that length",
            "Leave the attention out for this base",
        )
    return list(found)


def _chosen(config: Any) -> dict[str, Any]:
    """Return the implementations of a config and of those inside it, as transformers takes them."""
    inner = {key: getattr(config, key) for key in config.sub_configs}
    within = {key: _chosen(each) for key, each in inner.items() if each is not None}
    return {"": config._attn_implementation} | within


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_others: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' eager implementations do, and show the probabilities.

    Args:
        module: the attention layer, which knows its number.
        query: [rows, heads, T, head size]; ``key`` and ``value`` may have fewer heads (GQA).
        attention_mask: added to the scores: [rows or 1, heads or 1, T, T].
        scaling: what scores are multiplied by; 1 / sqrt(head size) without it.
        softcap: scores become ``softcap * tanh(score / softcap)``.
        s_aux: a score of each head's sink, which takes part in the softmax and is attended to by
            nothing: [heads].
        position_bias: refused; no causal model that we know of has it.

    Raises:
        InputError: no mask, or a bias.
    """
    if position_bias is not None or (attention_mask is None and query.shape[2] > 1):
        raise InputError(
            "The attention of this base cannot be seen: its mask or its bias is of another kind",
            "Leave the attention out for this base",
        )
    watch = _watching.get()
    layer = int(module.layer_idx)
    if watch is not None:
        watch.begin(layer, query, key, value)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows, heads, tokens, _ = query.shape
    size = max(1, _BLOCK // (rows * heads * key.shape[2]))
    mixed = []
    for first in range(0, tokens, size):
        scores = _by_group(query[:, :, first : first + size], key.transpose(2, 3)) * scaling
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if attention_mask is not None:
            scores = scores + attention_mask[:, :, first : first + size, : key.shape[2]]
        shares = _softmax(scores, s_aux)
        if watch is not None:
            watch.see(layer, first, shares)
        mixed.append(_by_group(shares.to(query.dtype), value))
    return torch.cat(mixed, dim=2).transpose(1, 2).contiguous(), None


def _by_group(left: Tensor, right: Tensor) -> Tensor:
    """Multiply [rows, heads, n, a] with [rows, groups, a, b], each head with its group's.

    Neighbouring heads share a group, and its matrix is not copied for each of them.
    """
    rows, heads, n, _ = left.shape
    groups = right.shape[1]
    product = left.reshape(rows, groups, heads // groups * n, -1) @ right
    return product.view(rows, heads, n, -1)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return scores.float().softmax(dim=-1)
    beside = sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, beside], dim=-1).float().softmax(dim=-1)[..., :-1]


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)


_register()
