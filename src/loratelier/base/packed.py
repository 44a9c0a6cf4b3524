"""Rows laid end to end in one sequence, each of which attends to itself alone.

A padded batch of chat rows is about half padding; a packed one has none. What keeps packed rows
apart is, at best, an attention that goes row by row: it is exact, it needs no mask of tokens x
tokens, and it does only the work that each row needs. It is registered with transformers under a
name of its own, as any attention may be. Where a model does not hand the rows' borders down to its
attention, the mask that transformers makes from positions is used; where neither keeps rows apart,
that is found out here, by trying, and said, so that the caller pads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Apart = Literal["rows", "mask", "padding"]
NAME = "loratelier_rows"
# Two different sums of the same numbers differ by rounding only; rows that see each other differ
# by far more than this share of the largest number.
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}


def borders(lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Return what tells a model where packed rows begin and end.

    Args:
        lengths: tokens of each row, in their order.
        device: where the model is.

    Returns:
        transformers' keywords for packed sequences: ``cu_seq_lens_q`` and ``cu_seq_lens_k``
        (int32 [rows + 1]), ``max_length_q`` and ``max_length_k``.
    """
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
    longest = max(lengths)
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def positions_of(lengths: Sequence[int]) -> Tensor:
    """Return positions that start again at 0 with each row: int64 [1, T]."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


@contextmanager
def rows_apart(model: Any) -> Iterator[Apart]:
    """Let ``model`` keep packed rows apart in the best way that it has, and say which.

    ``"rows"``: pass it :func:`borders`. ``"mask"``: pass it positions with ``use_cache=False``.
    ``"padding"``: it keeps none apart, so rows must not be packed. The attention that the model
    had is put back at the end.

    Args:
        model: a transformers causal model; while the context is open it is to be called with
            packed rows and no padding mask only, unless the answer is ``"padding"``.
    """
    before = model.config._attn_implementation
    try:
        if attends_as_we_do(model.config):
            model.set_attn_implementation(NAME)
        if model.config._attn_implementation == NAME and _keeps_apart(model, with_borders=True):
            yield "rows"
            return
        model.set_attn_implementation(before)
        yield "mask" if _keeps_apart(model, with_borders=False) else "padding"
    finally:
        model.set_attn_implementation(before)


def tokens_at_once(device: str) -> int:
    """Return how many tokens are in memory at once where nobody says: more is hardly faster."""
    return 1024 if device == "cpu" else 16384


def attends_as_we_do(config: Any) -> bool:
    """Whether all layers attend to everything before them, or through a sliding window."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or ["full_attention"]
    return set(kinds) <= {"full_attention", "sliding_attention"}


@torch.no_grad()
def _keeps_apart(model: Any, *, with_borders: bool) -> bool:
    """Try three rows packed and each alone; every model class answers by what it does."""
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    lengths = (5, 9, 7)
    ids = (torch.arange(sum(lengths)) * 7919 % vocabulary)[None].to(device)
    positions = positions_of(lengths).to(device)
    extra = borders(lengths, device) if with_borders else {}
    decoder = model.get_decoder()
    was_training = model.training
    model.eval()
    try:
        packed = decoder(input_ids=ids, position_ids=positions, use_cache=False, **extra)
        for begin, end in pairwise([0, 5, 14, 21]):
            one = borders((end - begin,), device) if with_borders else {}
            alone = decoder(
                input_ids=ids[:, begin:end],
                position_ids=positions[:, begin:end],
                use_cache=False,
                **one,
            )
            here, there = packed.last_hidden_state[:, begin:end], alone.last_hidden_state
            allowed = _ROUNDING.get(here.dtype, 6e-2) * float(there.abs().max())
            if not float((here - there).abs().max()) <= allowed:
                return False
    except (TypeError, NotImplementedError, KeyError, ValueError):
        return False  # a model that takes no such keyword, or an attention we do not compute
    finally:
        model.train(was_training)
    return not with_borders or _same_alone(model, ids[:, :9])


def _same_alone(model: Any, ids: Tensor) -> bool:
    """Whether one row under our attention is what the model's own makes of it."""
    ours = model.get_decoder()(
        input_ids=ids, use_cache=False, **borders((ids.shape[1],), ids.device)
    ).last_hidden_state
    model.set_attn_implementation("eager")
    theirs = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    model.set_attn_implementation(NAME)
    allowed = _ROUNDING.get(ours.dtype, 6e-2) * float(theirs.abs().max())
    return float((ours - theirs).abs().max()) <= allowed


def attend_by_row(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention of each packed row for itself.

    Args:
        module: the attention layer; not used.
        query: [1, heads, T, head size]; ``key`` and ``value`` may have fewer heads (GQA).
        attention_mask: must be None: borders take its place.
        scaling: what scores are multiplied by; 1 / sqrt(head size) without it.
        sliding_window: how many tokens back a token sees, itself included.
        cu_seq_lens_q: where rows begin and end: int [rows + 1].
        max_length_q: tokens of the longest row.
        others: what other attentions need; a cap on scores or sinks are refused.

    Raises:
        NotImplementedError: no borders, a mask, or a kind of attention that is not this one.
    """
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None:
        raise NotImplementedError("packed rows need their borders, and no mask")
    if any(others.get(kind) is not None for kind in ("softcap", "s_aux", "position_bias")):
        raise NotImplementedError("scores that are capped, biased, or share with sinks")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        mixed = _on_gpu(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window)
        return mixed, None
    lengths = [b - a for a, b in pairwise(cu_seq_lens_q.tolist())]
    # Split and not sliced: the gradients of slices are full of zeros that would be added up.
    parts = (part.split(lengths, dim=2) for part in (query, key, value))
    rows = [
        _one_row(q, k, v, scaling, dropout, sliding_window) for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2), None


def _one_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    dropout: float,
    window: int | None,
) -> Tensor:
    length = query.shape[2]
    band = None
    if window is not None and window < length:
        steps = torch.arange(length, device=query.device)
        back = steps[:, None] - steps[None]
        band = (back >= 0) & (back < window)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=band,
        dropout_p=dropout,
        is_causal=band is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _on_gpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Compute all rows in one kernel: [1, T, heads, head size]."""
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    back = -1 if window is None else window - 1
    mixed: Any = varlen_attn(
        q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(back, 0)
    )
    return mixed[None]  # type: ignore[no-any-return]


def _register() -> None:
    from transformers import AttentionInterface

    # No mask function goes with it: transformers then makes no mask at all.
    AttentionInterface.register(NAME, attend_by_row)


_register()
