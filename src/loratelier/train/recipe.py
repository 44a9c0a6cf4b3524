"""The recipe: everything that decides what a training run does, frozen, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from loratelier.train.guards import Guards
from loratelier.train.recipe_objectives import Distill, for_objective, unread
from loratelier.train.recipe_variants import Variants, require_meaning

# The recipe's short names for the linear layers of a transformer block.
ALL_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


class Recipe(Variants):
    """A training run.

    Raises:
        InputError: an unknown key; the nearest known one is named.
    """

    base: str = Field(description="'demo', a hub id, a folder, or a GGUF file.")
    corpus: Path = Field(description="A corpus folder, as `corpus build` writes it.")
    name: str = Field(description="The adapter's name in the store.")
    objective: Literal["sft", "dpo", "distill", "full", "scratch"] = Field(
        default="sft",
        description="sft: learn the rows. dpo: prefer the chosen answers to the rejected ones. "
        "distill: learn what a teacher expects at each place of the rows. "
        "full, scratch: baselines that learn the rows with all of the base's weights, as they are "
        "or drawn anew.",
    )
    seed: int = Field(default=0, ge=0)
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: float = Field(default=16.0, gt=0)
    targets: tuple[str, ...] = Field(
        default=ALL_TARGETS,
        min_length=1,
        description="'all' (the seven of a block), or any of q k v o gate up down embed head "
        "experts, or a layer's own name.",
    )
    layers: tuple[int, ...] | None = Field(
        default=None, description="'all', or layer numbers from 0: '0-9,20' or a list."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: what this machine multiplies fastest."
    )
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1, description="Stop after so many steps.")
    learning_rate: float = Field(
        default=5e-4,
        gt=0,
        description="Left empty: sft and distill 5e-4, dpo 5e-5, full 5e-5, scratch 1e-3.",
    )
    batch_tokens: int = Field(
        default=512, ge=1, description="Tokens of one step, template included."
    )
    pack_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that are in memory at once; a step that has more is cut into several. "
        "Left empty: 1024 on a CPU, 16384 on a GPU.",
    )
    packing: bool = Field(
        default=True,
        description="Lay rows end to end without padding; off: pad rows of like length.",
    )
    max_length: int = Field(
        default=2048, ge=8, description="A longer row is left out and named, never cut."
    )
    holdout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of conversations held out; left empty, the corpus' own split.",
    )
    patience: int = Field(
        default=2, ge=1, description="Stop after so many evaluations without a better one."
    )
    checkpointing: bool = Field(
        default=False,
        description="Compute activations a second time on the way back instead of keeping them: "
        "a third more time, far less memory.",
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="Measure every so many steps, and after every epoch."
    )
    save_seconds: float = Field(
        default=60.0, ge=0, description="Save the run's state at least so often, to resume from."
    )
    logs: tuple[Literal["tensorboard", "trackio"], ...] = Field(
        default=(), description="Also log to these; nothing leaves the machine."
    )
    beta: float = Field(
        default=0.1, gt=0, description="dpo: how strongly the model is held to the base."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="dpo: the share of preferences that are taken to be the wrong way round.",
    )
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="dpo: add this times the loss per token of the chosen answers.",
    )
    distill: Distill | None = Field(default=None, description="distill: where from, and how.")
    guards: Guards = Guards()

    @model_validator(mode="before")
    @classmethod
    def _of_its_objective(cls, values: Any) -> Any:
        return for_objective(values) if isinstance(values, dict) else values

    @model_serializer(mode="wrap")
    def _what_is_read(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the objective does not read, so that what is written can be read back."""
        unheard = unread(self.objective)
        return {key: value for key, value in whole(self).items() if key not in unheard}

    @model_validator(mode="after")
    def _no_drift_from_nothing(self) -> Self:
        if self.objective == "scratch" and self.guards.drift_budget is not None:
            raise ValueError(
                "guards.drift_budget: weights that are drawn anew have no base to drift from"
            )
        return self

    @model_validator(mode="after")
    def _distilled_from_something(self) -> Self:
        if self.objective == "distill" and self.distill is None:
            raise ValueError("objective distill learns from distill.teacher or from distill.file")
        return self

    @property
    def trains_the_base(self) -> bool:
        """Whether all of the base's weights are trained, and no adapter beside them."""
        return self.objective in ("full", "scratch")

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        words = value.replace(",", " ").split() if isinstance(value, str) else value
        if not isinstance(words, Sequence):
            return words
        named = [each for word in words for each in (ALL_TARGETS if word == "all" else (word,))]
        return tuple(dict.fromkeys(named))

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if value is None or value == "all":
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        return layer_numbers(value) if isinstance(value, str) else tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _meaning(self) -> "Recipe":
        require_meaning(self)
        return self

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the adapter needs a name")
        return value


def layer_numbers(text: str) -> tuple[int, ...]:
    """Read ``'0-9,20'`` as layer numbers.

    Raises:
        ValueError: it is no such list.
    """
    numbers: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"'{part}' is neither a layer number nor a range such as 0-9")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(numbers))
