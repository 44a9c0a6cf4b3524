"""Which recipe keys belong to which objective, and what an objective's own defaults are."""

from collections.abc import Mapping
from typing import Any

# Keys that only some objectives read.
_READ_BY = {
    "beta": ("dpo",),
    "label_smoothing": ("dpo",),
    "sft_weight": ("dpo",),
}
# Defaults other than the recipe's own.
_DEFAULTS: dict[str, dict[str, Any]] = {"dpo": {"learning_rate": 5e-5}}


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
    return {**_DEFAULTS.get(str(objective), {}), **values}


def unread(objective: str) -> list[str]:
    """Return the keys that mean nothing to an objective."""
    return [key for key, readers in _READ_BY.items() if objective not in readers]
