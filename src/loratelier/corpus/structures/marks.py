"""Where a structure of thought shows in a text: measured by its signs, without a model."""

import re
from dataclasses import dataclass

from loratelier.corpus.scenes.model import Language
from loratelier.corpus.structures.model import Part, Structure


@dataclass(frozen=True)
class Mark:
    """A sign in a text: the part that it belongs to, its characters, its words."""

    part: str
    start: int
    end: int
    words: str


@dataclass(frozen=True)
class Recognition:
    """What of a structure a text shows.

    ``path``: the first sign of each step, each after the one before it; of an epistemology the
    first sign of each ground. ``missing``: what the structure asks for and the text does not show.
    ``refused``: signs of grounds that an epistemology does not accept. ``marks``: all signs.
    """

    path: tuple[Mark, ...]
    missing: tuple[str, ...]
    refused: tuple[Mark, ...]
    marks: tuple[Mark, ...]

    @property
    def complete(self) -> bool:
        """Whether the text shows the structure whole."""
        return not self.missing and not self.refused


def recognise(structure: Structure, text: str, language: Language) -> Recognition:
    """Find a structure in a text by the signs of one language.

    Steps must come in order, so that "then" before "if" is no movement; a step without signs in
    this language is passed over. Of grounds one is enough.
    """
    parts = structure.steps or structure.grounds
    marks = [mark for part in parts for mark in _marks(part, text, language)]
    refused = [mark for part in structure.refused for mark in _marks(part, text, language)]
    if structure.steps:
        path, missing = _in_order(structure.steps, text, language)
    else:
        path = [mark for part in parts for mark in _marks(part, text, language)[:1]]
        missing = [] if path else ["a ground"]
    ordered = sorted(marks, key=lambda mark: mark.start)
    return Recognition(tuple(path), tuple(missing), tuple(refused), tuple(ordered))


def _marks(part: Part, text: str, language: Language) -> list[Mark]:
    pattern = part.patterns.get(language)
    return [_mark(part, found) for found in pattern.finditer(text)] if pattern else []


def _in_order(
    steps: tuple[Part, ...], text: str, language: Language
) -> tuple[list[Mark], list[str]]:
    path: list[Mark] = []
    missing: list[str] = []
    at = 0
    for step in steps:
        pattern = step.patterns.get(language)
        if pattern is None:
            continue
        found = pattern.search(text, at)
        if found:
            path.append(_mark(step, found))
            at = found.end()
        else:
            missing.append(step.id)
    return path, missing


def _mark(part: Part, found: re.Match[str]) -> Mark:
    return Mark(part.id, found.start(), found.end(), found.group())
