"""``look_at_lens``: what the model would say at each layer, before and after.

The logit lens (nostalgebraist, "interpreting GPT: the logit lens", 2020): the hidden states that a
layer hands on are put through the model's own final norm and head as if they were the last ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loratelier.base.inside import Inside, look_inside, read_out
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.change import Change
from loratelier.scope.compare import divergence
from loratelier.scope.lens_view import Lens, Reading, Trace
from loratelier.scope.pieces import Pieces
from loratelier.scope.tuned_lens import TunedLens

# Logits that are there at once: 2^22 numbers are 16 MiB, and a few copies of them.
_BLOCK = 2**22


@torch.no_grad()
def look_at_lens(
    change: Change,
    ids: Sequence[int],
    *,
    positions: Sequence[int] | None = None,
    track: Sequence[int] = (),
    tuned: TunedLens | None = None,
) -> Lens:
    """Read what is expected after each position of a text at each depth of the model.

    Both sides read the same tokens in one batch, so that positions align. Logits are made for a
    block of positions at a time; what is kept is positions x layers. Time is that of the model's
    head at (layers + 1) x positions x 2 places.

    Args:
        change: what is looked at.
        ids: the text.
        positions: where to look; None for everywhere. Negative ones count from the end.
        track: tokens whose probability and rank are followed besides the final ones.
        tuned: a tuned lens of the base, to read both sides with; without it the logit lens.

    Raises:
        InputError: no tokens, a position or token that there is not, a tuned lens of another
            base, a base that the lens cannot read, or scores that are no numbers.
    """
    batch = change.batch(ids)
    places = _places(len(ids), positions)
    _check_tokens(change, track)
    if tuned is not None:
        tuned.require(change.base)
    model = change.base.model
    with change.together():
        inside = look_inside(model, batch)
        read = _Reader(model, inside, places, tuned)
        finals = read.finals()
        asked = torch.tensor(track, dtype=torch.int64, device=batch.device)
        wanted = torch.stack([finals[0], finals[-1], *(n.expand(len(places)) for n in asked)], 1)
        depths = len(inside.states)
        with task("Reading the layers", total=depths) as bar:
            seen = []
            for depth in range(depths):
                seen.append(read.at(depth, wanted))
                bar.advance()
    return _lens(change, ids, places, tuned is not None, wanted, seen)


def _places(length: int, positions: Sequence[int] | None) -> tuple[int, ...]:
    asked = range(length) if positions is None else positions
    outside = next((n for n in asked if not -length <= n < length), None)
    if outside is not None or not len(asked):
        raise InputError(
            f"Position {outside} is not in this text of {length} tokens"
            if outside is not None
            else "There are no positions to look at",
            f"Give one from 0 to {length - 1}, or a negative one counted from the end",
        )
    return tuple(sorted({n % length for n in asked}))


def _check_tokens(change: Change, track: Sequence[int]) -> None:
    size = change.base.model.config.get_text_config().vocab_size
    unknown = next((token for token in track if not 0 <= token < size), None)
    if unknown is not None:
        raise InputError(
            f"There is no token {unknown}: {change.base.name} has {size}",
            "Track tokens of this base",
        )


@dataclass(frozen=True)
class _Depth:
    """What one depth says at P positions; sides are before and after.

    ``top`` int64 and ``likely`` float32 [2, P]; ``kl`` [P]; ``share`` float32 and ``rank`` int64
    [2, K, P] of the wanted tokens. Where nothing can change, one row stands for both.
    """

    top: Tensor
    likely: Tensor
    kl: Tensor
    share: Tensor
    rank: Tensor


class _Reader:
    """Makes log-probabilities of the states of one depth, block of positions by block."""

    def __init__(
        self,
        model: Any,
        inside: Inside,
        places: Sequence[int],
        tuned: TunedLens | None,
    ) -> None:
        self._model = model
        self._inside = inside
        self._places = torch.tensor(places, device=inside.ids.device)
        self._tuned = tuned
        vocabulary = model.config.get_text_config().vocab_size
        self._block = max(1, _BLOCK // (len(inside.ids) * vocabulary))

    def finals(self) -> Tensor:
        """Return the likeliest tokens at the last depth: int64 [2, P], or [1, P] for both."""
        none = self._places.new_zeros(len(self._places), 0)
        return self.at(len(self._inside.states) - 1, none).top

    def at(self, depth: int, wanted: Tensor) -> _Depth:
        """Read one depth at all positions; ``wanted`` [P, K] are tokens to follow."""
        last = len(self._inside.states) - 1
        states = self._inside.states[depth]
        if self._tuned is not None and depth < last:
            states = self._tuned.translate(depth, states)
        parts = []
        for block in torch.arange(len(self._places)).split(self._block):
            logits = read_out(
                self._model, self._inside, states, self._places[block], normed=depth == last
            ).float()
            parts.append(_read(logits, wanted[block]))
        return _Depth(
            top=torch.cat([part.top for part in parts], dim=-1),
            likely=torch.cat([part.likely for part in parts], dim=-1),
            kl=torch.cat([part.kl for part in parts], dim=-1),
            share=torch.cat([part.share for part in parts], dim=-1),
            rank=torch.cat([part.rank for part in parts], dim=-1),
        )


def _read(logits: Tensor, wanted: Tensor) -> _Depth:
    """Read a block of logits [rows, n, V]; ``wanted`` [n, K]."""
    scores = logits.log_softmax(dim=-1)
    likely, top = scores.max(dim=-1)
    if not bool(likely.isfinite().all()):
        raise InputError(
            "The model's scores are no finite numbers here",
            "Load the base in float32, or lower the strength",
        )
    # One row stands for both sides: the same numbers, so exactly no divergence.
    kl = divergence(scores[0], scores[-1]) if len(scores) > 1 else likely.new_zeros(likely.shape[1])
    values = [scores.gather(-1, token.expand(len(scores), -1)[..., None]) for token in wanted.T]
    ranks = [(scores > value).sum(-1) + 1 for value in values]
    empty = likely[:, None, :][:, :0]
    return _Depth(
        top=top,
        likely=likely.exp(),
        kl=kl,
        share=torch.cat([empty, *(value.mT.exp() for value in values)], dim=1),
        rank=torch.cat([empty.long(), *(rank[:, None] for rank in ranks)], dim=1),
    )


def _lens(
    change: Change,
    ids: Sequence[int],
    places: Sequence[int],
    tuned: bool,
    wanted: Tensor,
    seen: Sequence[_Depth],
) -> Lens:
    pieces = Pieces(change.base.tokenizer)
    share = torch.stack([depth.share for depth in seen], dim=-1).cpu()  # [2, K, P, L + 1]
    rank = torch.stack([depth.rank for depth in seen], dim=-1).cpu()
    traces = [
        Trace(
            ids=tokens.cpu(),
            tokens=tuple(pieces(token) for token in tokens.tolist()),
            before=share[0, number],
            after=share[-1, number],
            rank_before=rank[0, number],
            rank_after=rank[-1, number],
        )
        for number, tokens in enumerate(wanted.T)
    ]
    return Lens(
        effect=change.effect,
        tuned=tuned,
        positions=tuple(places),
        tokens=tuple(pieces(ids[place]) for place in places),
        before=_reading(seen, 0, pieces),
        after=_reading(seen, -1, pieces),
        kl=torch.stack([depth.kl for depth in seen], dim=-1).cpu(),
        final_before=traces[0],
        final_after=traces[1],
        tracked=tuple(traces[2:]),
    )


def _reading(seen: Sequence[_Depth], side: int, pieces: Pieces) -> Reading:
    ids = torch.stack([depth.top[side] for depth in seen], dim=-1).cpu()
    likely = torch.stack([depth.likely[side] for depth in seen], dim=-1).cpu()
    tokens = tuple(tuple(pieces(token) for token in row) for row in ids.tolist())
    return Reading(ids, tokens, likely)
