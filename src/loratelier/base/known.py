"""Bases that a newcomer may begin with: what they read, what they are, under which licence.

The table is recalled, not fetched, and says so; nothing depends on it but a recommendation.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from loratelier.base.plan.figures import config_of


@dataclass(frozen=True)
class Known:
    """A base that is known by name; ``languages`` are those of ours that it reads and writes."""

    spec: str
    about: str
    languages: tuple[str, ...]
    licence: str
    told: str  # its config as JSON, as far as a plan needs it

    @property
    def config(self) -> Any:
        """Its config."""
        return config_of(json.loads(self.told))


@cache
def known_bases() -> tuple[Known, ...]:
    """Return the bases, the smallest first."""
    return tuple(
        Known(
            spec=each["spec"],
            about=each["about"],
            languages=tuple(each["languages"]),
            licence=each["licence"],
            told=json.dumps(each["config"]),
        )
        for each in _table()["bases"]
    )


def known_source() -> str:
    """Return where the table is from."""
    return str(_table()["source"])


@cache
def _table() -> dict[str, Any]:
    path = files("loratelier.base") / "data" / "known.json"
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told
