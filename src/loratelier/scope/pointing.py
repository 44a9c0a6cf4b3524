"""Which tokens the directions of an update point at: written for output, read from input.

Of a site that writes to the residual stream: its output directions, through the last norm's weight
and the output layer, as if nothing came after it. Of a site that reads the stream: its input
directions, through the weight of the norm before it, against the tokens' embeddings, as if nothing
had come before it. Both are approximations: they follow the direct path alone, past all layers on
the way, and leave out that a norm divides by the length of the stream. They hold best for the last
layers' outputs and the first layers' inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from loratelier.base.stream import Stream
from loratelier.scope.factors import Svd
from loratelier.scope.pieces import Pieces


@dataclass(frozen=True)
class Pointed:
    """A token and how far a direction points at it."""

    id: int
    token: str
    score: float


@dataclass(frozen=True)
class Pointing:
    """The tokens at both ends of one singular direction of a site's update.

    A direction has no sign of its own: its output and its input may be turned around together. What
    is at the one end and what at the other is what it tells apart.

    Attributes:
        kind: "writes" for an output direction, "reads" for an input direction.
        direction: which one, from 1, by falling singular value.
        value: its singular value.
        top: tokens with the highest scores, falling. Of an output direction, what it adds to the
            token's logit per unit of length, less the mean of all tokens; of an input direction,
            the cosine with the token's embedding.
        bottom: tokens with the lowest scores, rising.
    """

    kind: Literal["writes", "reads"]
    direction: int
    value: float
    top: tuple[Pointed, ...]
    bottom: tuple[Pointed, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "kind": self.kind,
            "direction": self.direction,
            "value": self.value,
            "top": [{"id": p.id, "token": p.token, "score": p.score} for p in self.top],
            "bottom": [{"id": p.id, "token": p.token, "score": p.score} for p in self.bottom],
        }


def look_at_pointing(
    stream: Stream, found: Mapping[str, Svd], tokenizer: Any, *, directions: int, tokens: int
) -> dict[str, tuple[Pointing, ...]]:
    """Return what the strongest directions of each site on the stream point at.

    Args:
        stream: of the base.
        found: site -> the singular directions of its update.
        tokenizer: makes tokens readable.
        directions: how many of a site.
        tokens: how many at either end.
    """
    pieces, known = Pieces(tokenizer), len(tokenizer)
    written: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}
    for site, each in found.items():
        if site in stream.writers and stream.unembedding is not None:
            scale = stream.writers[site] * stream.final
            written[site] = each.out[:, :directions].float() * scale[:, None]
        elif site in stream.readers:
            ways = each.into[:, :directions].float() * stream.readers[site][:, None]
            read[site] = ways / ways.norm(dim=0)
    scores: dict[str, Tensor] = {}
    if written and stream.unembedding is not None:
        made = _all_at_once(stream.unembedding[:known], written)
        scores |= {site: each - each.mean(1, keepdim=True) for site, each in made.items()}
    if read:
        rows = stream.embedding[:known]
        # The row of a padding token may be zero, which is perpendicular to everything.
        lengths = rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        scores |= _all_at_once(rows / lengths, read)
    return {
        site: _named("writes" if site in written else "reads", each, scores[site], pieces, tokens)
        for site, each in found.items()
        if site in scores
    }


def _all_at_once(rows: Tensor, ways: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the products of token rows [V, d] with ways [d, n] of all sites: site -> [n, V].

    One product over the vocabulary rather than one a site, which would read all rows each time.
    """
    sizes = [each.shape[1] for each in ways.values()]
    scores = torch.cat(list(ways.values()), dim=1).T @ rows.T
    return dict(zip(ways, scores.split(sizes), strict=True))


def _named(
    kind: Literal["writes", "reads"], each: Svd, scores: Tensor, pieces: Pieces, tokens: int
) -> tuple[Pointing, ...]:
    count = min(tokens, scores.shape[1])
    return tuple(
        Pointing(
            kind=kind,
            direction=n + 1,
            value=float(each.values[n]),
            top=_pointed(own.topk(count), pieces, 1),
            bottom=_pointed((-own).topk(count), pieces, -1),
        )
        for n, own in enumerate(scores)
    )


def _pointed(found: Any, pieces: Pieces, sign: int) -> tuple[Pointed, ...]:
    return tuple(
        Pointed(token, pieces(token), sign * score)
        for token, score in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    )
