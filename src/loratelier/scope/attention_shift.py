"""Where an adapter moves attention, as data."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.scope.pieces import visible


@dataclass(frozen=True)
class Gaze:
    """How much of its attention one token gives to another, before and after.

    ``at`` is the position that looks and ``to`` the one it looks at, each with its token's text.
    ``layer`` and ``head`` (from 0) are None where it is the mean over all of them.
    """

    at: int
    to: int
    at_token: str
    to_token: str
    layer: int | None
    head: int | None
    before: float
    after: float

    @property
    def moved(self) -> float:
        """after - before."""
        return self.after - self.before


@dataclass(frozen=True)
class Touched:
    """What a layer itself does differently to the same inputs.

    ``queries`` are the query heads (from 0) whose queries differ, ``keys`` and ``values`` the
    key/value groups whose keys and values do. Values do not enter the probabilities: they change
    what is carried and not where from.
    """

    layer: int
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AttentionShift:
    """Attention of every layer and query head before and after, and its difference.

    Shapes: L layers that attend, H query heads, T tokens, Q rows kept whole. The shift of a query
    is the total variation between its two distributions, ``0.5 sum |after - before|``, in [0, 1]:
    the share of its attention that went elsewhere (what a sink takes is a place too).

    Attributes:
        effect: whether anything can differ; if not, every figure is exactly zero.
        tokens: the T tokens' texts.
        layers: the L layers' numbers, from 0; those without attention are left out.
        groups: for each layer the key/value group of each query head (grouped-query attention);
            all different where every head has keys of its own.
        queries: the Q positions whose rows are kept whole, in order.
        before: float32 [L, H, Q, T], probabilities; ``after`` likewise.
        by_query: float32 [L, H, T], the shift of each query.
        direct: float32 [L, H], the mean shift over queries that each layer causes by itself, given
            the inputs that it had before; what it inherits from the layers below is left out.
        touched: what each layer does differently by itself.
        moves: the largest moves of single heads, largest first.
        pairs: the pairs of tokens with the largest move of the mean over all layers and heads.
        mean_before: float32 [T, T], the mean map over all layers and heads; ``mean_after``
            likewise.
    """

    effect: bool
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    queries: tuple[int, ...]
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    by_query: Tensor = field(repr=False)
    direct: Tensor = field(repr=False)
    touched: tuple[Touched, ...]
    moves: tuple[Gaze, ...]
    pairs: tuple[Gaze, ...]
    mean_before: Tensor = field(repr=False)
    mean_after: Tensor = field(repr=False)

    @property
    def difference(self) -> Tensor:
        """after - before: float32 [L, H, Q, T]."""
        return self.after - self.before

    @property
    def by_head(self) -> Tensor:
        """The mean shift over all T queries: float32 [L, H]."""
        return self.by_query.mean(-1)

    @property
    def by_layer(self) -> Tensor:
        """The mean shift over all heads and queries: float32 [L]."""
        return self.by_head.mean(-1)

    @property
    def together(self) -> dict[int, tuple[int, ...]]:
        """The groups of each layer whose heads move together: layer -> groups.

        A group's keys are changed there and the queries of none of its heads, so that one change
        is seen by all of them.
        """
        found = {}
        for layer, groups, touched in zip(self.layers, self.groups, self.touched, strict=True):
            own = {groups[head] for head in touched.queries}
            shared = {group for group in touched.keys if groups.count(group) > 1} - own
            if shared:
                found[layer] = tuple(sorted(shared))
        return found

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to say in English, the headline first."""
        if not self.effect:
            return ("No attention moves: nothing differs between before and after",)
        by_head = self.by_head
        row, head = divmod(int(by_head.argmax()), by_head.shape[1])
        said = [
            f"On average {float(by_head.mean()):.1%} of attention goes elsewhere, most in head "
            f"{head} of layer {self.layers[row]} ({float(by_head[row, head]):.1%})"
        ]
        if self.moves:
            first = self.moves[0]
            at, to = visible(first.at_token), visible(first.to_token)
            said.append(
                f"The largest single move: in head {first.head} of layer {first.layer} "
                f"'{at}' looks at '{to}' with {first.after:.1%} of its attention instead of "
                f"{first.before:.1%}"
            )
        if self.together:
            said.append(
                f"In {len(self.together)} of {len(self.layers)} layers keys are changed and "
                "queries are not: there the heads that share keys move together"
            )
        return tuple(said)

    def row(self, position: int) -> dict[str, Any]:
        """Return one kept row as plain data: ``{position before after}``, each [L][H][T].

        Raises:
            InputError: the row was not kept.
        """
        if position not in self.queries:
            raise InputError(
                f"The attention of position {position} was not kept", "Ask for it with query"
            )
        number = self.queries.index(position)
        return {
            "position": position,
            "before": self.before[:, :, number].tolist(),
            "after": self.after[:, :, number].tolist(),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summaries as plain data.

        ``by_layer`` [L], ``by_head`` and ``direct`` [L][H], ``by_query`` [L][T] (the mean over
        heads), ``moves`` and ``pairs`` as lists of ``{at to at_token to_token layer head before
        after}``, ``touched`` as ``{layer queries keys values}``, ``together`` as ``{layer:
        groups}``. Whole maps are not in it: they are :attr:`before` and :attr:`after`, and by
        position :meth:`row`.
        """
        return {
            "effect": self.effect,
            "measure": "mean over queries of 0.5 sum |after - before|, 0 to 1",
            "tokens": list(self.tokens),
            "layers": list(self.layers),
            "groups": [list(groups) for groups in self.groups],
            "queries": list(self.queries),
            "by_layer": self.by_layer.tolist(),
            "by_head": self.by_head.tolist(),
            "by_query": self.by_query.mean(1).tolist(),
            "direct": self.direct.tolist(),
            "touched": [
                {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(each).items()}
                for each in self.touched
            ],
            "together": {str(layer): list(groups) for layer, groups in self.together.items()},
            "moves": [asdict(gaze) for gaze in self.moves],
            "pairs": [asdict(gaze) for gaze in self.pairs],
            "sentences": list(self.sentences),
        }
