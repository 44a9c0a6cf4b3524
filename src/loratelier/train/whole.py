"""Baselines: all of the base's weights are trained, as they are or drawn anew.

No second model stands beside it. The weights are trained where they are; a base that was handed in
is given back from a copy, one that was loaded for the run alone is let go. What comes out is kept
as an adapter like any other: a PEFT folder whose ``modules_to_save`` are the modules that hold
weights, so that everything that reads adapters reads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.adapter import Adapter, Card
from loratelier.base import Base, load_base
from loratelier.base.weights import drawn_anew, states_of, ties
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.loop import as_part_of, whole
from loratelier.train.recipe import Recipe


@dataclass(frozen=True)
class Whole:
    """A base whose weights are all trained; ``copy`` are those that it was handed in with."""

    base: Base
    recipe: Recipe
    copy: dict[str, Tensor] | None

    @property
    def draws(self) -> bool:
        """Whether training begins with weights drawn anew."""
        return self.recipe.objective == "scratch"

    def begin(self) -> None:
        """Put the weights that training begins with into the model."""
        self._fill(drawn_anew(self.base.model, self.recipe.seed) if self.draws else self._own())

    def adapter(self, card: Card, name: str) -> Adapter:
        """Return what was trained as an adapter."""
        model = self.base.model
        weights = {each: whole(p) for each, p in model.named_parameters()}
        return Adapter.from_modules(states_of(model, weights), card, name, tied=ties(model))

    def give_back(self) -> None:
        """Make the base what it was, if it was handed in."""
        if self.copy is not None:
            self._fill(self.copy)
        self.base.model.requires_grad_(False).eval()

    def _own(self) -> dict[str, Tensor]:
        if self.copy is not None:
            return self.copy
        again = load_base(self.base.spec, dtype=self.base.dtype, device="cpu")
        return dict(again.model.named_parameters())

    @torch.no_grad()
    def _fill(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.base.model.named_parameters():
            parameter.copy_(as_part_of(parameter, weights[name]))


@contextmanager
def all_weights(base: Base, recipe: Recipe, *, handed_in: bool) -> Iterator[Whole]:
    """Let all of a base's weights be trained inside the block.

    Args:
        base: the base.
        recipe: of objective full or scratch.
        handed_in: somebody else has the base too, and gets it back as it was.

    Raises:
        InputError: the base's weights are packed in 4 bits.
    """
    if base.quantization is not None:
        raise InputError(
            f"{base.name} is loaded in 4 bits, and objective {recipe.objective} trains the weights",
            "Load it without quantization",
        )
    if base.dtype != torch.float32:
        remark(f"The weights are {base.dtype}: steps too small for it are lost. float32 is safe")
    model = base.model
    copy = {n: p.detach().clone() for n, p in model.named_parameters()} if handed_in else None
    trained = Whole(base, recipe, copy)
    model.requires_grad_(True).train()
    if recipe.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield trained
    finally:
        if recipe.checkpointing:
            model.gradient_checkpointing_disable()
        trained.give_back()
