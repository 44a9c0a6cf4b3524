"""Direct preference optimisation (Rafailov et al., arXiv:2305.18290).

With ``r(y) = log p(y|x) - log p_base(y|x)`` the margin of a pair is ``beta (r(chosen) -
r(rejected))``, and its loss ``-log sigmoid(margin)``. The base is the model with its gate closed,
never a second model, and is asked once, before the first step.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.progress import task
from loratelier.train.examples import Example
from loratelier.train.learner import Learner
from loratelier.train.objective import Figures
from loratelier.train.packing import Pack, parted, side_by_side, tokens_of
from loratelier.train.pairs import Pair, pairs
from loratelier.train.recipe import Recipe
from loratelier.train.steps import Step

if TYPE_CHECKING:
    from loratelier.train.loop import Plan

# A margin nearer to 0 is none: sums of some hundred nats are no more exact in float32.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Preferences(Pack):
    """P pairs side by side: rows 2p and 2p + 1 are the chosen and the rejected one of pair p.

    ``weights``: those of a pair's targets sum to what its loss is multiplied by. ``reference``:
    float32 [P], ``log p(chosen) - log p(rejected)`` under the base. ``names``: the pairs'.
    """

    reference: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Self:
        """Return the pack on another device."""
        return replace(super().to(device), reference=self.reference.to(device))

    def by_row(self, values: Tensor) -> Tensor:
        """Sum what is [N] over each row's targets: [P, 2], chosen and rejected."""
        sums = torch.zeros(len(self.lengths), dtype=values.dtype, device=values.device)
        return sums.index_add(0, self.owners, values).view(-1, 2)

    def likelier(self, nll: Tensor) -> Tensor:
        """Return ``log p(chosen) - log p(rejected)`` from ``-log p`` of the targets: [P]."""
        sums = self.by_row(nll)
        return sums[:, 1] - sums[:, 0]


class Dpo:
    """Prefer the chosen answer to the rejected one, measured from the base."""

    source = None

    def __init__(self, beta: float, label_smoothing: float, sft_weight: float) -> None:
        """Take the constants.

        Args:
            beta: how strongly the model is held to the base.
            label_smoothing: the share of pairs that are taken to be labelled the wrong way round
                (conservative DPO).
            sft_weight: what the chosen answer's mean ``-log p`` per token is multiplied by before
                it is added (arXiv:2404.19733).
        """
        self.beta = beta
        self.label_smoothing = label_smoothing
        self.sft_weight = sft_weight

    def rows(self, base: Base, corpus: Corpus, recipe: Recipe) -> tuple[list[Pair], list[Pair]]:
        """Return the corpus' preferences."""
        return pairs(base, corpus, recipe)

    def lay(self, rows: Sequence[Pair], limit: int, /, *, padded: bool = False) -> list[Pack]:
        """Lay pairs side by side; the two of a pair are never parted."""

        def size(some: Sequence[Pair]) -> int:
            return tokens_of([row for pair in some for row in _both(pair)], padded=padded)

        return [_pack(some, padded) for some in parted(rows, limit, size)]

    @torch.no_grad()
    def ready(self, plan: "Plan", prepared: Any, device: torch.device) -> "Plan":
        """Return the plan with the base's likelihoods in its packs."""
        known: dict[str, float] = {}
        # Every epoch has the same pairs in another order: one epoch says all.
        packs = [*_packs_of(plan.epochs[0]), *_preferences(plan.held_out)]
        with task("Asking the base", total=len(packs)) as bar:
            for pack in packs:
                there = pack.to(device)
                likelier = there.likelier(prepared(Learner.base_nll, there))
                known |= dict(zip(pack.names, likelier.tolist(), strict=True))
                bar.advance()
        epochs = [
            [Step(tuple(_referred(pack, known) for pack in step.packs)) for step in steps]
            for steps in plan.epochs
        ]
        return replace(
            plan, epochs=epochs, held_out=[_referred(pack, known) for pack in plan.held_out]
        )

    def loss(self, learner: Learner, pack: Pack) -> Tensor:
        """Return the weighted loss of the pack's pairs; of other rows, that of plain learning."""
        if not isinstance(pack, Preferences):
            return learner.loss(pack)
        return self.losses(pack, learner.nll(pack)) @ pack.by_row(pack.weights).sum(1)

    def losses(self, pack: Preferences, nll: Tensor) -> Tensor:
        """Return each pair's loss from ``-log p`` of the targets: [P]."""
        margin = self.margins(pack, nll)
        right, wrong = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        losses = (1 - self.label_smoothing) * right + self.label_smoothing * wrong
        if self.sft_weight:
            losses = losses + self.sft_weight * _per_token(pack, nll)[:, 0]
        return losses

    def margins(self, pack: Preferences, nll: Tensor) -> Tensor:
        """Return ``beta (r(chosen) - r(rejected))`` of each pair: [P]."""
        return self.beta * (pack.likelier(nll) - pack.reference)

    @torch.no_grad()
    def measure(self, prepared: Any, packs: Sequence[Pack], device: torch.device) -> Figures:
        """Return means over the held-out pairs.

        ``loss``; ``margin``; ``accuracy``, the share of pairs with a margin above 0, where a
        margin of 0, within rounding, counts half; ``chosen_nll``, ``-log p`` per token of the
        chosen answers, which DPO may raise while the margin grows.
        """
        parts: dict[str, list[Tensor]] = defaultdict(list)
        with task("Measuring held-out preferences", total=len(packs)) as bar:
            for each in _preferences(packs):
                there = each.to(device)
                nll = prepared(Learner.nll, there)
                margins = self.margins(there, nll)
                parts["loss"].append(self.losses(there, nll))
                parts["margin"].append(margins)
                parts["accuracy"].append(_preferred(margins))
                parts["chosen_nll"].append(_per_token(there, nll)[:, 0])
                bar.advance()
        return {name: float(torch.cat(each).double().mean()) for name, each in parts.items()}

    def say(self, now: Figures, base: Figures | None) -> list[str]:
        """Return the loss, the margin, how many are preferred rightly, and the chosen's own."""
        was = f" (base {base['chosen_nll']:.3f})" if base else ""
        return [
            f"held-out DPO loss {now['loss']:.4f}",
            f"margin {now['margin']:+.3f}",
            f"{now['accuracy']:.0%} preferred rightly",
            f"chosen answers {now['chosen_nll']:.3f} nats a token{was}",
        ]


def _both(pair: Pair) -> tuple[Example, Example]:
    return pair.chosen, pair.rejected


def _pack(some: Sequence[Pair], padded: bool) -> Preferences:
    laid = side_by_side([row for pair in some for row in _both(pair)], padded=padded)
    targets = torch.bincount(laid.owners, minlength=len(laid.rows))
    return Preferences(
        **vars(replace(laid, weights=0.5 / targets[laid.owners].float())),
        reference=torch.zeros(len(some)),
        names=tuple(pair.row for pair in some),
    )


def _per_token(pack: Preferences, nll: Tensor) -> Tensor:
    """Return the mean ``-log p`` per token of each row: [P, 2]."""
    return pack.by_row(nll) / pack.by_row(torch.ones_like(nll))


def _preferred(margins: Tensor) -> Tensor:
    return (margins > _ROUNDING).float() + 0.5 * (margins.abs() <= _ROUNDING).float()


def _referred(pack: Pack, known: dict[str, float]) -> Pack:
    if not isinstance(pack, Preferences):
        return pack
    return replace(pack, reference=torch.tensor([known[name] for name in pack.names]))


def _packs_of(steps: Iterable[Step]) -> list[Preferences]:
    return [pack for step in steps for pack in _preferences(step.packs)]


def _preferences(packs: Iterable[Pack]) -> list[Preferences]:
    return [pack for pack in packs if isinstance(pack, Preferences)]
