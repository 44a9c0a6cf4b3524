"""Which recipe keys belong to which objective, and what an objective's own defaults are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from loratelier.kit.models import Strict
from loratelier.train.recipe_variants import Variants


class Distill(Strict):
    """Where the distributions come from that objective distill learns towards, and how."""

    teacher: str | None = Field(
        default=None,
        description="An adapter of the store, or another base with the same tokenizer.",
    )
    file: Path | None = Field(
        default=None, description="A parquet file that `teach` wrote, or one of the same columns."
    )
    top: int | None = Field(
        default=None,
        ge=1,
        description="How many of the teacher's likeliest tokens are learned at a place. "
        "Left empty: 32.",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="Above 1 the unlikely tokens say more (arXiv:1503.02531)."
    )
    hard: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the loss that is on the rows' own tokens."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.teacher is None) == (self.file is None):
            raise ValueError("give either teacher or file")
        if self.file is not None and self.top is not None:
            raise ValueError("top is for a teacher: a file has what it has")
        return self


# Keys that only some objectives read.
_WITH_LORA = ("sft", "dpo", "distill")
_READ_BY = {
    **dict.fromkeys(("rank", "alpha", "targets", "layers"), _WITH_LORA),
    **dict.fromkeys(Variants.model_fields, _WITH_LORA),
    # What is said of one row, and not of two that belong together.
    "invocation": ("sft",),
    "new_tokens": ("sft",),
    "beta": ("dpo",),
    "label_smoothing": ("dpo",),
    "sft_weight": ("dpo",),
    "distill": ("distill",),
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
            readers = " or ".join(_READ_BY[key])
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
