"""The texts that an adapter was not asked to touch: neutral prose, and requests of all kinds."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from loratelier.base.likelihood import general_text


@dataclass(frozen=True)
class Unrelated:
    """A request that has nothing to do with any adapter's corpus."""

    subject: str
    prompt: str


def prose(language: str) -> list[str]:
    """Return neutral paragraphs; the English ones are those that steered no training run."""
    if language == "en":
        return general_text()[1::2]
    return [str(text) for text in _data()["prose"][language]]


def unrelated(language: str, count: int) -> list[Unrelated]:
    """Return requests: every subject comes once before one comes twice."""
    subjects: dict[str, list[str]] = _data()["unrelated"][language]
    rounds = max(len(prompts) for prompts in subjects.values())
    ordered = [
        Unrelated(subject, prompts[n])
        for n in range(rounds)
        for subject, prompts in subjects.items()
        if n < len(prompts)
    ]
    return ordered[:count]


@cache
def _data() -> dict[str, Any]:
    source = files("loratelier.check") / "data" / "texts.yaml"
    loaded: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return loaded
