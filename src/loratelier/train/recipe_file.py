"""A recipe as a YAML file, and the changes that ``--set`` lays over it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loratelier.kit.errors import InputError
from loratelier.kit.models import problem
from loratelier.train.recipe import Recipe


def load_recipe(path: Path | None = None, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a YAML file, or from nothing, with ``changes`` laid over it.

    Args:
        path: the YAML file; a relative path in it is taken from the file's folder when it is
            there, else from the working folder.
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
    if path is None:
        return recipe
    guards, replayed = recipe.guards, recipe.guards.replay_from
    if replayed is not None:
        guards = guards.model_copy(update={"replay_from": _beside(path, replayed)})
    changed: dict[str, Any] = {"corpus": _beside(path, recipe.corpus), "guards": guards}
    if recipe.distill is not None and recipe.distill.file is not None:
        file = _beside(path, recipe.distill.file)
        changed["distill"] = recipe.distill.model_copy(update={"file": file})
    return recipe.model_copy(update=changed)


def _beside(recipe: Path, given: Path) -> Path:
    """Return a path that a recipe names, from the recipe's folder where it is there."""
    beside = recipe.parent / given
    return beside if not given.is_absolute() and beside.exists() else given


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
