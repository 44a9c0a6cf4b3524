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
    pieces = Pieces(tokenizer)
    known = len(tokenizer)
    made: dict[str, tuple[Pointing, ...]] = {}
    for site, each in found.items():
        if site in stream.writers and stream.unembedding is not None:
            ways = each.out[:, :directions].float()
            ways = ways * (stream.writers[site] * stream.final)[:, None]
            scores = stream.unembedding[:known] @ ways
            made[site] = _named("writes", each, scores - scores.mean(0), pieces, tokens)
        elif site in stream.readers and "." in site:
            ways = each.into[:, :directions].float() * stream.readers[site][:, None]
            lengths = stream.embedding[:known].norm(dim=1, keepdim=True)
            scores = stream.embedding[:known] @ (ways / ways.norm(dim=0)) / lengths
            made[site] = _named("reads", each, scores, pieces, tokens)
    return made


def _named(
    kind: Literal["writes", "reads"], each: Svd, scores: Tensor, pieces: Pieces, tokens: int
) -> tuple[Pointing, ...]:
    count = min(tokens, scores.shape[0])
    return tuple(
        Pointing(
            kind=kind,
            direction=n + 1,
            value=float(each.values[n]),
            top=_pointed(scores[:, n].topk(count), pieces, 1),
            bottom=_pointed((-scores[:, n]).topk(count), pieces, -1),
        )
        for n in range(scores.shape[1])
    )


def _pointed(found: Any, pieces: Pieces, sign: int) -> tuple[Pointed, ...]:
    return tuple(
        Pointed(token, pieces(token), sign * score)
        for token, score in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    )
