"""The recipe's guards: what keeps the base's other abilities while an adapter is trained."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from loratelier.kit.models import Strict


class Guards(Strict):
    """Each guard works alone and may be off; `off`, `false`, `null` and 0 are the same."""

    drift_budget: float | None = Field(
        default=0.02,
        gt=0,
        description="The most that bits per byte on general text may rise (0.02 = 2%); a state "
        "beyond it is never kept. 'off' keeps the best held-out loss whatever it costs.",
    )
    strength: Literal["auto"] | None = Field(
        default="auto",
        description="auto: a state that learned more than the budget allows is worn at the "
        "greatest strength that the budget allows, if that is better on held-out rows than the "
        "best state at full strength. off: states are kept at full strength only.",
    )
    replay: float | None = Field(
        default=None,
        gt=0,
        le=0.9,
        description="Share of a step's tokens that are general text, read beside the rows.",
    )
    replay_from: Path | None = Field(
        default=None,
        description="Where general rows come from: a corpus folder, or a text file with an empty "
        "line between texts; left empty, English and Russian prose that the package has along.",
    )
    replay_kl: float | None = Field(
        default=1.0,
        gt=0,
        description="Replayed tokens hold the model to what the base expected there: this times "
        "the mean of KL(base || model). off: they are learned like any row.",
    )
    kl: float | None = Field(
        default=None,
        gt=0,
        description="Add this times KL(base || model) to the loss of every learned token.",
    )
    token_mask: float | None = Field(
        default=None,
        gt=1,
        description="Leave out of the loss the tokens whose perplexity under the base is above "
        "this (2.5 in arXiv:2501.14315). End tokens are always learned.",
    )
    norm: float | None = Field(
        default=None,
        gt=0,
        description="Add this times the squared Frobenius norm of the whole update to the loss.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        # YAML reads a bare `off` as False.
        return None if value is False or value == "off" or value == 0 else value

    @model_validator(mode="after")
    def _replayed_at_all(self) -> "Guards":
        if self.replay is None and self.replay_from is not None:
            raise ValueError("replay_from says what is replayed, but replay is off")
        return self

    @property
    def weakens(self) -> bool:
        """Whether a state beyond the budget may be worn at less than full strength."""
        return self.drift_budget is not None and self.strength == "auto"

    def pull(self, *, replayed: bool) -> float | None:
        """Return what KL(base || model) of a pack's targets is multiplied by, if by anything."""
        return self.replay_kl if replayed else self.kl
