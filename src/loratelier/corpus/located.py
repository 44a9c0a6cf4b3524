"""YAML (and JSON, which is YAML) that a person wrote, read with the place of every value.

Stricter than YAML, so that a slip is named and not guessed: a key given twice, an anchor or a tag
is refused; ``yes``, ``no``, ``on`` and ``off`` are words. Read event by event with a limit on
depth, since libyaml's own composer follows hostile nesting until the stack ends.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from loratelier.corpus.lineage import Origin, Turn
from loratelier.kit.errors import InputError

Path = tuple[str | int, ...]

_DEPTH = 24
_FRAME = (
    yaml.StreamStartEvent,
    yaml.StreamEndEvent,
    yaml.DocumentStartEvent,
    yaml.DocumentEndEvent,
)
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Span:
    """Where a value stands: characters ``start`` to ``end``, first ``line`` from 1."""

    start: int
    end: int
    line: int


@dataclass(frozen=True)
class Located:
    """A document's value and the span of each value in it, by its path of keys and numbers."""

    value: Any
    spans: Mapping[Path, Span]

    def span(self, *path: str | int) -> Span:
        """Return the span of a value, or of the nearest one around it that was written."""
        while path not in self.spans:
            path = path[:-1]
        return self.spans[path]


@dataclass(frozen=True)
class Place:
    """A value in a written file, from which the messages of rows are made.

    ``uid`` names it in lineage; ``steps`` say what decoding did.
    """

    file: str
    uid: str
    located: Located
    path: Path
    steps: tuple[str, ...] = ()

    def turn(self, role: str, text: str, *path: str | int, step: str = "") -> Turn:
        """Make a message of what stands at ``path`` in this value; ``step`` says what changed."""
        span = self.located.span(*self.path, *path)
        steps = (*self.steps, step) if step else self.steps
        return Turn(Origin(self.file, self.uid, span.start, span.end, role, steps), text)


def load(text: str, name: str) -> Located:
    """Read one document.

    Raises:
        InputError: it is no YAML, or goes beyond what is read here; the line is named.
    """
    return _Reader(text, name).document()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._events: Iterator[Any] = self._parsed()
        self._spans: dict[Path, Span] = {}

    def document(self) -> Located:
        first = next(self._events, None)
        if first is None:
            raise InputError(f"{self._name} holds no YAML document")
        value = self._value(first, ())
        if next(self._events, None) is not None:
            raise InputError(f"{self._name} holds more than one YAML document", "Make it two files")
        return Located(value, self._spans)

    def _parsed(self) -> Iterator[Any]:
        try:
            for event in yaml.parse(self._text, Loader=yaml.CSafeLoader):
                if not isinstance(event, _FRAME):
                    yield event
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or "a character that YAML forbids"
            raise self._fault(mark.line if mark else 0, f"no YAML here ({what})") from error

    def _fault(self, line: int, what: str, mend: str | None = None) -> InputError:
        return InputError(f"{self._name}, line {line + 1}: {what}", mend)

    def _value(self, event: Any, path: Path) -> Any:
        line = event.start_mark.line
        if isinstance(event, yaml.AliasEvent) or event.anchor or self._tagged(event):
            raise self._fault(line, "anchors and tags are not read here", "Write the value out")
        if len(path) > _DEPTH:
            raise self._fault(line, f"nested deeper than {_DEPTH}")
        if isinstance(event, yaml.ScalarEvent):
            self._note(path, event, event)
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path)
        return self._mapping(event, path)

    @staticmethod
    def _tagged(event: Any) -> bool:
        return event.tag is not None and event.tag != "!"

    def _sequence(self, opening: Any, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values))))
        self._note(path, opening, event)
        return values

    def _mapping(self, opening: Any, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        event: Any
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line
            if not isinstance(event, yaml.ScalarEvent):
                raise self._fault(line, "a key must be a word")
            key = event.value
            if key in values:
                raise self._fault(line, f"the key '{key}' stands twice")
            values[key] = self._value(next(self._events), (*path, key))
        self._note(path, opening, event)
        return values

    def _note(self, path: Path, first: Any, last: Any) -> None:
        start, end = first.start_mark.index, last.end_mark.index
        # A block's end mark stands where the next token begins.
        end = start + len(self._text[start:end].rstrip())
        self._spans[path] = Span(start, end, first.start_mark.line + 1)


def _scalar(event: Any) -> Any:
    text = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
