"""An objective: which rows it takes, how they are packed, what is minimised and what is measured.

The loop knows none of it: it follows the sum of weighted losses, whatever they are losses of, and
keeps the state whose held-out loss is the lowest.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.base.vocabulary import numbers_of
from loratelier.corpus import Corpus
from loratelier.train.examples import Example
from loratelier.train.invocation import invocation_of, invoked
from loratelier.train.learner import Learner
from loratelier.train.measure import change, mean_nll
from loratelier.train.packing import Pack, U, pack
from loratelier.train.recipe import Recipe
from loratelier.train.rows import examples, require_taught, split

if TYPE_CHECKING:
    from loratelier.train.loop import Plan

# What was measured on held-out rows, by name. ``nll`` is nats per learned token and nothing else;
# ``loss`` is what another objective minimises, and then the kept state is chosen by it.
Figures = Mapping[str, float]


class Objective(Protocol[U]):
    """What a run is after; ``U`` is what it learns from, a row or rows that belong together."""

    @property
    def source(self) -> str | None:
        """A digest of what it learns from beside the corpus; None where there is nothing."""

    def rows(self, base: Base, corpus: Corpus, recipe: Recipe) -> tuple[list[U], list[U]]:
        """Return what is learned from and what is held out.

        Raises:
            InputError: the corpus has nothing of the kind.
        """

    def lay(self, rows: Sequence[U], limit: int, /, *, padded: bool = False) -> Sequence[Pack]:
        """Lay rows side by side into packs of at most ``limit`` tokens."""

    def ready(self, plan: "Plan", prepared: Any, device: torch.device) -> "Plan":
        """Return the plan with what only the base, before the first step, can say of its packs."""

    def loss(self, learner: Learner, pack: Pack) -> Tensor:
        """Return the loss of a pack, weighted and summed: a number with a gradient."""

    def measure(self, prepared: Any, packs: Sequence[Pack], device: torch.device) -> Figures:
        """Return what the held-out packs say of the model as it is."""

    def say(self, now: Figures, base: Figures | None) -> list[str]:
        """Return what :meth:`measure` found, in words; ``base`` is what it found of the base."""


class Sft:
    """Learn the rows as they stand: the mean ``-log p`` of the learned tokens."""

    source = None

    def rows(
        self, base: Base, corpus: Corpus, recipe: Recipe
    ) -> tuple[list[Example], list[Example]]:
        """Return the corpus' rows; of an adapter that waits for an invocation, those with one."""
        rows = examples(base, corpus, recipe)
        if recipe.invocation:
            rows = invoked(rows, invocation_of(base, recipe.invocation), recipe.invocation)
        require_taught(rows, numbers_of(base, recipe.new_tokens))
        return split(corpus, rows, recipe)

    def lay(self, rows: Sequence[Example], limit: int, /, *, padded: bool = False) -> list[Pack]:
        """Lay rows side by side."""
        return pack(rows, limit, padded=padded)

    def ready(self, plan: "Plan", prepared: Any, device: torch.device) -> "Plan":
        """Return the plan as it is."""
        return plan

    def loss(self, learner: Learner, pack: Pack) -> Tensor:
        """Return the weighted ``-log p``."""
        return learner.loss(pack)

    def measure(self, prepared: Any, packs: Sequence[Pack], device: torch.device) -> Figures:
        """Return ``nll``."""
        return {"nll": mean_nll(prepared, packs, device)}

    def say(self, now: Figures, base: Figures | None) -> list[str]:
        """Return the loss and its change."""
        return [f"held-out loss {changed(now, base, 'nll')}"]


def changed(now: Figures, base: Figures | None, name: str) -> str:
    """Return a figure with its change from the base's."""
    was = f" ({change(base[name], now[name]):+.1%})" if base else ""
    return f"{now[name]:.3f}{was}"
