"""What a model would say at each of its layers, before and after, as data."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from loratelier.scope.pieces import visible


@dataclass(frozen=True, eq=False)
class Trace:
    """The way of chosen tokens through the layers, for both sides.

    Attributes:
        ids: int64 [P], the token that is followed at each position.
        tokens: its text at each position.
        before: float32 [P, L + 1], its probability at each depth; ``after`` likewise.
        rank_before: int64 [P, L + 1], its rank, 1 the likeliest; ``rank_after`` likewise.
    """

    ids: Tensor = field(repr=False)
    tokens: tuple[str, ...]
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    rank_before: Tensor = field(repr=False)
    rank_after: Tensor = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return ``{ids tokens before after rank_before rank_after}`` as lists."""
        return {
            "ids": self.ids.tolist(),
            "tokens": list(self.tokens),
            "before": self.before.tolist(),
            "after": self.after.tolist(),
            "rank_before": self.rank_before.tolist(),
            "rank_after": self.rank_after.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Reading:
    """One side's likeliest tokens.

    Attributes:
        ids: int64 [P, L + 1], the likeliest token at each depth.
        tokens: their texts, [P][L + 1].
        probability: float32 [P, L + 1].
    """

    ids: Tensor = field(repr=False)
    tokens: tuple[tuple[str, ...], ...] = field(repr=False)
    probability: Tensor = field(repr=False)

    @property
    def decided(self) -> Tensor:
        """From which depth on the likeliest token is the final one: int64 [P], 0 to L."""
        agrees = (self.ids == self.ids[:, -1:]).long()
        return self.ids.shape[1] - agrees.flip(1).cumprod(1).sum(1)

    def to_json(self) -> dict[str, Any]:
        """Return ``{ids tokens probability decided}`` as lists."""
        return {
            "ids": self.ids.tolist(),
            "tokens": [list(row) for row in self.tokens],
            "probability": self.probability.tolist(),
            "decided": self.decided.tolist(),
        }


@dataclass(frozen=True)
class Decision:
    """Where the continuation of one position is decided, before and after.

    ``before`` and ``after`` are depths: the first from which on the likeliest token stays the
    final one, which is ``token_before`` and ``token_after``.
    """

    position: int
    token: str
    token_before: str
    token_after: str
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class Lens:
    """The lens over a text: P positions by L + 1 depths, L the model's layers.

    Depth 0 is the embedding, depth n what n layers have made of it, depth L the model's own
    output, whose row is the model's own logits. (The layer whose sites are called ``layers.11`` is
    the twelfth, so depth 12 is the first that shows what it did.)

    Attributes:
        effect: whether anything can differ; if not, every KL is exactly zero.
        tuned: whether a tuned lens was used.
        positions: the P positions, in the text's order.
        tokens: the tokens there; what is read is the expectation of what follows each of them.
        before: the likeliest tokens; ``after`` likewise.
        kl: float32 [P, L + 1], KL(before || after) in nats of the lens' readings.
        final_before: the token that is finally the likeliest before, followed through both sides;
            ``final_after`` the one that is it after.
        tracked: other tokens that were asked for, one trace each.
    """

    effect: bool
    tuned: bool
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    before: Reading
    after: Reading
    kl: Tensor = field(repr=False)
    final_before: Trace
    final_after: Trace
    tracked: tuple[Trace, ...]

    @property
    def depth(self) -> int:
        """L: how many layers the model has."""
        return self.kl.shape[1] - 1

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Where each position's continuation is decided, before and after."""
        rows = zip(
            self.positions,
            self.tokens,
            self.before.tokens,
            self.after.tokens,
            self.before.decided.tolist(),
            self.after.decided.tolist(),
            strict=True,
        )
        return tuple(
            Decision(position, token, old[-1], new[-1], before, after)
            for position, token, old, new, before, after in rows
        )

    @property
    def summary(self) -> dict[str, Any]:
        """The lens in a few figures.

        ``{layers positions decided_before decided_after earlier later same_depth same_token
        kl_by_depth first_moved last}``: mean depths at which it is decided; at how many positions
        that is earlier, later and as before; at how many the final token stays; the mean KL at
        each depth; the first depth at which its mean is a tenth of its largest mean (None where
        nothing moves); and the last position's decision.
        """
        before, after = self.before.decided, self.after.decided
        mean = self.kl.mean(0)
        moved = torch.nonzero((mean >= 0.1 * mean.max()) & (mean > 0))
        return {
            "layers": self.depth,
            "positions": len(self.positions),
            "decided_before": float(before.double().mean()),
            "decided_after": float(after.double().mean()),
            "earlier": int((after < before).sum()),
            "later": int((after > before).sum()),
            "same_depth": int((after == before).sum()),
            "same_token": int((self.before.ids[:, -1] == self.after.ids[:, -1]).sum()),
            "kl_by_depth": mean.tolist(),
            "first_moved": int(moved[0, 0]) if len(moved) else None,
            "last": asdict(self.decisions[-1]),
        }

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to say in English, the headline first."""
        if not self.effect:
            return ("At no layer is anything else expected: before and after are the same",)
        summary, last = self.summary, self.decisions[-1]
        at, old, new = map(visible, (last.token, last.token_before, last.token_after))
        if old == new:
            headline = (
                f"After '{at}' comes '{old}' before and after: decided from layer {last.before} "
                f"of {self.depth} on before, from {last.after} on after"
            )
        else:
            headline = (
                f"After '{at}' comes '{old}' before, decided from layer {last.before} of "
                f"{self.depth} on, and '{new}' after, from layer {last.after} on"
            )
        said = (
            f"Over {summary['positions']} positions the next token is decided at layer "
            f"{summary['decided_before']:.1f} before and {summary['decided_after']:.1f} after on "
            f"average: earlier at {summary['earlier']}, later at {summary['later']}; at "
            f"{summary['positions'] - summary['same_token']} it is another token"
        )
        return headline, said

    def to_json(self) -> dict[str, Any]:
        """Return the whole lens as plain data.

        ``{effect tuned kl_direction depth positions tokens before after kl final_before
        final_after tracked decisions summary sentences}``; see the attributes for shapes.
        """
        return {
            "effect": self.effect,
            "tuned": self.tuned,
            "kl_direction": "KL(before || after), nats",
            "depth": self.depth,
            "positions": list(self.positions),
            "tokens": list(self.tokens),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "kl": self.kl.tolist(),
            "final_before": self.final_before.to_json(),
            "final_after": self.final_after.to_json(),
            "tracked": [trace.to_json() for trace in self.tracked],
            "decisions": [asdict(decision) for decision in self.decisions],
            "summary": self.summary,
            "sentences": list(self.sentences),
        }
