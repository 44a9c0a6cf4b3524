"""The recipe: everything that decides what a training run does, frozen, and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict, problem

# The recipe's short names for the linear layers of a transformer block.
ALL_TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


class Guards(Strict):
    """What watches over the base's other abilities while the adapter is trained."""

    drift_budget: float | None = Field(
        default=0.02,
        gt=0,
        description="The most that bits per byte on general text may rise (0.02 = 2%); a state "
        "beyond it is never kept. 'off' keeps the best held-out loss whatever it costs.",
    )

    @field_validator("drift_budget", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        # YAML reads a bare `off` as False.
        return None if value is False or value == "off" else value


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
    epochs: int = Field(default=3, ge=1)
    max_steps: int | None = Field(default=None, ge=1, description="Stop after so many steps.")
    learning_rate: float = Field(default=5e-4, gt=0)
    batch_tokens: int = Field(
        default=512, ge=1, description="Tokens packed into one step, template included."
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


def load_recipe(path: Path | None = None, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a YAML file, or from nothing, with ``changes`` laid over it.

    Args:
        path: the YAML file; a relative ``corpus`` in it is taken from the file's folder when it
            is there, else from the working folder.
        changes: values by dotted key, as ``--set`` gives them (``{"guards.drift_budget": 0.01}``).

    Raises:
        InputError: the file is missing or no YAML mapping, a key is unknown (the nearest is
            named), or a value is not allowed.
    """
    values = _read(path) if path else {}
    for key, value in (changes or {}).items():
        _set(values, key, value)
    where = str(path) if path else "the recipe"
    try:
        recipe = Recipe.model_validate(values)
    except InputError as error:
        raise InputError(f"{where}: {error.what}", error.mend) from error
    except ValidationError as error:
        raise InputError(f"{where}: {problem(error)}") from error
    if path and not recipe.corpus.is_absolute() and (path.parent / recipe.corpus).exists():
        recipe = recipe.model_copy(update={"corpus": path.parent / recipe.corpus})
    return recipe


def parse_set(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``--set key=value`` pairs; values are read as YAML, so ``rank=8`` is a number.

    Raises:
        InputError: a pair without ``=``, or a value that is not YAML.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair} has no '='", "Write --set rank=8")
        try:
            changes[key.strip()] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair}: the value cannot be read") from error
    return changes


def _number(value: Any) -> Any:
    """Read ``5e-4`` as a number: YAML 1.1 takes it for text because it has no point."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no recipe {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is no recipe", "A recipe is a list of 'key: value' lines")
    return {str(key): _number(value) for key, value in values.items()}


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            raise InputError(f"The recipe key '{group}' holds no keys, so '{key}' is unknown")
        values = inner
    values[last] = value
