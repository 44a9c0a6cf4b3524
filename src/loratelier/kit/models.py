"""Data from outside: models that refuse an unknown key and name the nearest known one."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from loratelier.kit.errors import InputError, did_you_mean


class Strict(BaseModel):
    """A frozen model whose unknown keys are refused with the likely meaning.

    Raises:
        InputError: an unknown key. Values that are not allowed raise pydantic's own error, which
            :func:`problem` turns into a line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise InputError(f"unknown key '{key}'", did_you_mean(key, cls.model_fields))
        return values


def problem(error: ValidationError) -> str:
    """Return the first thing that is wrong, as one line that names the key and what was given."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"the key '{key}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (given: {first['input']!r})" if key else message
