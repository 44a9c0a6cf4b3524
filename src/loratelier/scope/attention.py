"""``look_at_attention``: whom each token looks at, before and after."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from loratelier.base.attention import first_rows_inputs, seen_attention
from loratelier.kit.errors import InputError
from loratelier.scope.attention_shift import AttentionShift, Gaze, Touched
from loratelier.scope.attention_sums import Direct, Move, Sums
from loratelier.scope.change import Change
from loratelier.scope.pieces import Pieces

# Whole maps that are kept without being asked for: 2 x 128 MiB hold 64 tokens of a large model
# and 350 of the demo base.
MOST_BYTES = 2**28


@torch.no_grad()
def look_at_attention(
    change: Change,
    ids: Sequence[int],
    *,
    query: int | Sequence[int] | None = None,
    top: int = 32,
    most_bytes: int = MOST_BYTES,
) -> AttentionShift:
    """Show where attention moves in every layer and query head of a text.

    Both sides go through one pass in one batch, and equal transformers' own eager
    ``output_attentions`` but for rounding. A second pass, in which every layer of both reads what
    it read before, tells what each layer does by itself.

    Summaries are over the whole text whatever is kept of it: they are made block by block, in
    memory that grows with tokens x tokens and not with layers or heads.

    Args:
        change: what is looked at.
        ids: the text.
        query: the positions whose rows are kept whole, one or several, negative ones counted from
            the end; None for all of them where they fit into ``most_bytes``, else none.
        top: how many of the largest moves to keep.
        most_bytes: what the kept rows of both sides may take: 8 x layers x heads x rows x tokens.

    Raises:
        InputError: no tokens, a position outside of the text, rows that take more than
            ``most_bytes``, a base whose attention cannot be seen, or probabilities that are no
            numbers.
    """
    if top < 1:
        raise InputError(f"top is {top}", "Keep one move or more")
    batch = change.batch(ids)
    queries = _queries(change, len(ids), query, most_bytes)
    sums = Sums(len(ids), queries, top)
    model = change.base.model
    with change.together(), seen_attention(model, sums):
        model(input_ids=batch, use_cache=False, logits_to_keep=1)
    layers = _layers(change, sums)
    direct, touched = _direct(change, batch, sums, layers)
    pieces = Pieces(change.base.tokenizer)
    tokens = tuple(pieces(token) for token in ids)
    mean_before, mean_after = sums.means
    return AttentionShift(
        effect=change.effect,
        tokens=tokens,
        layers=layers,
        groups=tuple(sums.groups[layer] for layer in layers),
        queries=queries,
        before=_stacked(sums.before, layers),
        after=_stacked(sums.after, layers),
        by_query=_stacked(sums.by_query, layers),
        direct=direct,
        touched=touched,
        moves=tuple(_gaze(move, tokens) for move in sums.moves),
        pairs=_pairs(mean_before, mean_after, tokens, top),
        mean_before=mean_before,
        mean_after=mean_after,
    )


def _queries(
    change: Change, length: int, query: int | Sequence[int] | None, most_bytes: int
) -> tuple[int, ...]:
    config = change.base.model.config.get_text_config()
    row = 8 * config.num_hidden_layers * config.num_attention_heads * length
    if query is None:
        return tuple(range(length)) if row * length <= most_bytes else ()
    asked = [query] if isinstance(query, int) else list(query)
    outside = next((n for n in asked if not -length <= n < length), None)
    if outside is not None:
        raise InputError(
            f"Position {outside} is not in this text of {length} tokens",
            f"Give one from 0 to {length - 1}, or a negative one counted from the end",
        )
    wanted = sorted({n % length for n in asked})
    if row * len(wanted) > most_bytes:
        raise InputError(
            f"The attention of {len(wanted)} positions takes {row * len(wanted):,} bytes, "
            f"and {most_bytes:,} are allowed",
            f"Ask for {most_bytes // row} at a time, or raise most_bytes",
        )
    return tuple(wanted)


def _layers(change: Change, sums: Sums) -> tuple[int, ...]:
    layers = tuple(sorted(sums.by_query))
    if not layers:
        raise InputError(
            f"No layer of {change.base.name} attends in a way that can be seen",
            "Leave the attention out for this base",
        )
    if len({len(groups) for groups in sums.groups.values()}) > 1:
        raise InputError(
            f"The layers of {change.base.name} have different numbers of heads",
            "Leave the attention out for this base",
        )
    if not all(bool(each.isfinite().all()) for each in sums.by_query.values()):
        raise InputError(
            "The attention of the model is no finite number here",
            "Load the base in float32, or lower the strength",
        )
    return layers


def _direct(
    change: Change, batch: Tensor, sums: Sums, layers: tuple[int, ...]
) -> tuple[Tensor, tuple[Touched, ...]]:
    if not change.effect:
        still = torch.zeros(len(layers), len(sums.groups[layers[0]]))
        return still, tuple(Touched(layer, (), (), ()) for layer in layers)
    watch = Direct()
    model = change.base.model
    with change.together(), first_rows_inputs(model), seen_attention(model, watch):
        model(input_ids=batch, use_cache=False, logits_to_keep=1)
    return _stacked(watch.shift, layers), tuple(watch.touched[layer] for layer in layers)


def _stacked(by_layer: Mapping[int, Tensor], layers: Sequence[int]) -> Tensor:
    return torch.stack([by_layer[layer] for layer in layers])


def _gaze(move: Move, tokens: Sequence[str]) -> Gaze:
    return Gaze(
        at=move.at,
        to=move.to,
        at_token=tokens[move.at],
        to_token=tokens[move.to],
        layer=move.layer,
        head=move.head,
        before=move.before,
        after=move.after,
    )


def _pairs(before: Tensor, after: Tensor, tokens: Sequence[str], top: int) -> tuple[Gaze, ...]:
    size = (after - before).abs().flatten()
    values, places = size.topk(min(top, size.numel()))
    found = [divmod(p, len(tokens)) for p in places[values > 0].tolist()]
    return tuple(
        Gaze(
            at=at,
            to=to,
            at_token=tokens[at],
            to_token=tokens[to],
            layer=None,
            head=None,
            before=float(before[at, to]),
            after=float(after[at, to]),
        )
        for at, to in found
    )
