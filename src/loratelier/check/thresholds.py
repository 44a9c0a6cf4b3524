"""The thresholds of a check, read from a YAML file laid over the defaults."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict, problem


class DriftLimits(Strict):
    """What may change where nothing was asked."""

    general_text: float = Field(ge=0)
    general_kl: float = Field(ge=0)
    unrelated_kl: float = Field(ge=0)
    top_1: float = Field(ge=0, le=1)
    tasks: float = Field(ge=0, le=1)
    one_task: float = Field(ge=0, le=1)


class LeakLimits(Strict):
    """How much of a style may turn up where it was not asked."""

    style: float = Field(ge=0, le=1)
    length: float = Field(ge=0)
    markers: float = Field(ge=0, le=1)


class BehaviourLimits(Strict):
    """How many behaviour tests may fail."""

    failed: int = Field(ge=0)


class MeaningLimits(Strict):
    """What of a scene's meaning may be lost in telling it."""

    smatch: float = Field(ge=0, le=1)
    errors: float = Field(ge=0)


class Thresholds(Strict):
    """All thresholds; what each means stands beside it in ``data/thresholds.yaml``."""

    drift: DriftLimits
    leak: LeakLimits
    behaviour: BehaviourLimits
    meaning: MeaningLimits


def load_thresholds(path: Path | None = None) -> Thresholds:
    """Return the defaults, with those of a YAML file laid over them.

    Raises:
        InputError: the file is missing or no YAML mapping, a key is unknown (the nearest is
            named), or a value is not allowed.
    """
    values = _defaults()
    if path is not None:
        given = read_yaml(path, "thresholds")
        for group, limits in given.items():
            if group in values and isinstance(limits, dict):
                values[group] = {**values[group], **limits}
            else:
                values[group] = limits
    try:
        return Thresholds.model_validate(values)
    except InputError as error:
        raise InputError(f"{path}: {error.what}", error.mend) from error
    except ValidationError as error:
        raise InputError(f"{path}: {problem(error)}") from error


def default_text() -> str:
    """Return the defaults as they stand in the package, with their comments."""
    return (files("loratelier.check") / "data" / "thresholds.yaml").read_text(encoding="utf-8")


def _defaults() -> dict[str, Any]:
    return {group: dict(limits) for group, limits in _read_defaults().items()}


@cache
def _read_defaults() -> dict[str, dict[str, float]]:
    loaded: dict[str, dict[str, float]] = yaml.safe_load(default_text())
    return loaded


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML mapping; ``what`` says what the file should hold.

    Raises:
        InputError: the file is missing, unreadable, no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file") from error
    return parse_yaml(text, str(path), what)


def parse_yaml(text: str, where: str, what: str) -> dict[str, Any]:
    """Parse a YAML mapping.

    Raises:
        InputError: no YAML, or no mapping; it names ``where``.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no {what}", "Write lines of the form 'key: value'")
    return {str(key): value for key, value in values.items()}
