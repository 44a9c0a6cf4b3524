"""The recipe: everything that decides what a training run does, frozen, and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from loratelier.kit.models import Strict
from loratelier.train.guards import Guards

# The recipe's short names for the linear layers of a transformer block.
ALL_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


class Recipe(Strict):
    """A training run.

    Raises:
        InputError: an unknown key; the nearest known one is named.
    """

    base: str = Field(description="'demo', a hub id, a folder, or a GGUF file.")
    corpus: Path = Field(description="A corpus folder, as `corpus build` writes it.")
    name: str = Field(description="The adapter's name in the store.")
    objective: Literal["sft"] = "sft"
    seed: int = Field(default=0, ge=0)
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: float = Field(default=16.0, gt=0)
    targets: tuple[str, ...] = Field(
        default=ALL_TARGETS,
        min_length=1,
        description="'all', or any of q k v o gate up down, or a layer's own name.",
    )
    layers: tuple[int, ...] | None = Field(
        default=None, description="'all', or layer numbers from 0: '0-9,20' or a list."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: what this machine multiplies fastest."
    )
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1, description="Stop after so many steps.")
    learning_rate: float = Field(default=5e-4, gt=0)
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
    guards: Guards = Guards()

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        if value == "all":
            return ALL_TARGETS
        words = value.replace(",", " ").split() if isinstance(value, str) else value
        return tuple(dict.fromkeys(words)) if isinstance(words, Sequence) else words

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if value is None or value == "all":
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        return _ranges(value) if isinstance(value, str) else tuple(sorted(set(value)))

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the adapter needs a name")
        return value


def _ranges(text: str) -> tuple[int, ...]:
    """Read ``'0-9,20'`` as layer numbers."""
    numbers: set[int] = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"'{part}' is neither a layer number nor a range such as 0-9")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(numbers))
