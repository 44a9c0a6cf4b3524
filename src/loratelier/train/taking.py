"""What is taken from a trained model: an adapter that any base of its kind can wear."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from loratelier.adapter import Adapter, Card
from loratelier.adapter.config import settings_from
from loratelier.train.beginnings import without_beginnings
from loratelier.train.recipe import Recipe
from loratelier.train.recipe_variants import IN_THE_BASE


def take(
    peft: Any,
    card: Card,
    recipe: Recipe,
    invocation: tuple[int, ...] | None,
    weights: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """Return the adapter that a recipe has trained.

    Args:
        peft: PEFT's model.
        card: where the adapter comes from.
        recipe: what was trained.
        invocation: the tokens from which on it acts, as PEFT's config has them.
        weights: the trained weights by name, where the model's are shared out over processes.
    """
    adapter = Adapter.from_peft(peft, card, recipe.name, weights=weights)
    pairs, said = dict(adapter.tensors), dict(adapter.settings.raw)
    if recipe.init in IN_THE_BASE:
        pairs, doubled = without_beginnings(peft, pairs, card.base.spec)
        said |= doubled
    if invocation is not None:
        said["alora_invocation_tokens"] = list(invocation)
    return replace(adapter, tensors=pairs, settings=settings_from(said, recipe.name))
