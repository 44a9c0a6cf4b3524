"""Which recipe keys belong to which objective, and what an objective's own defaults are."""

from collections.abc import Mapping
from typing import Any

from loratelier.train.recipe_variants import Variants

# Keys that only some objectives read.
_WITH_LORA = ("sft", "dpo")
_READ_BY = {
    **dict.fromkeys(("rank", "alpha", "targets", "layers"), _WITH_LORA),
    **dict.fromkeys(Variants.model_fields, _WITH_LORA),
    # What is said of one row, and not of two that belong together.
    "invocation": ("sft",),
    "new_tokens": ("sft",),
    "beta": ("dpo",),
    "label_smoothing": ("dpo",),
    "sft_weight": ("dpo",),
}
# Defaults other than the recipe's own.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "dpo": {"learning_rate": 5e-5},
    "full": {"learning_rate": 5e-5},
    # The budget is on drift from the base, of which nothing is left.
    "scratch": {"learning_rate": 1e-3, "guards": {"drift_budget": None}},
}


def for_objective(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with the defaults of its objective.

    Raises:
        ValueError: a key that the objective does not read.
    """
    objective = values.get("objective", "sft")
    for key in unread(objective):
        if key in values:
            readers = " and ".join(_READ_BY[key])
            raise ValueError(f"'{key}' is read by objective {readers}, and this one is {objective}")
    own = _DEFAULTS.get(str(objective), {})
    groups = {
        key: {**default, **values[key]}
        for key, default in own.items()
        if isinstance(default, Mapping) and isinstance(values.get(key), Mapping)
    }
    return {**own, **values, **groups}


def unread(objective: str) -> list[str]:
    """Return the keys that mean nothing to an objective."""
    return [key for key, readers in _READ_BY.items() if objective not in readers]
