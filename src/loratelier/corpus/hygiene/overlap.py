"""Rows that stand in an evaluation set: they share thirteen words in a row with an item of it."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratelier.kit.errors import InputError

WORDS = 13
_SHORTEST = 6  # a whole item of fewer words is no evidence
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """Where a text meets an evaluation item: the file, the item's number from 1, the words."""

    file: str
    item: int
    words: str


class Evaluations:
    """The word sequences of evaluation files, to look texts up in."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._grams: dict[int, tuple[str, int]] = {}
        self._lengths: set[int] = set()
        for file in files:
            self._take(file)

    def find(self, text: str) -> Overlap | None:
        """Return the first place where a text shares enough words in a row with an item."""
        words = _words(text)
        for at in range(len(words)):
            for length in self._lengths:
                gram = " ".join(words[at : at + length])
                found = self._grams.get(hash(gram)) if at + length <= len(words) else None
                if found:
                    return Overlap(*found, gram)
        return None

    def _take(self, file: Path) -> None:
        number = 0
        for number, text in enumerate(_items(file), start=1):
            words = _words(text)
            length = min(WORDS, len(words))
            if length < _SHORTEST:
                continue
            self._lengths.add(length)
            for at in range(len(words) - length + 1):
                gram = hash(" ".join(words[at : at + length]))
                self._grams.setdefault(gram, (file.name, number))
        if not number:
            raise InputError(f"{file} holds no evaluation items", "Give one item a line, or JSON")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _items(file: Path) -> Iterator[str]:
    """Yield the items of a file: records of JSON or JSONL, else lines."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read", "Give a text or JSON file in UTF-8") from error
    if file.suffix == ".json":
        yield from map(_flat, _whole(file, text))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _flat(_record(file, number, line)) if file.suffix == ".jsonl" else line


def _whole(file: Path, text: str) -> Iterable[Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}", "Mend it, or leave it out") from error
    return found if isinstance(found, list) else [found]


def _record(file: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{file}, line {number} is no JSON", "Mend it, or leave it out") from error


def _flat(value: Any) -> str:
    """Return all strings in a record, one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(_flat(each) for each in value.values())
    return "\n".join(_flat(each) for each in value) if isinstance(value, list) else ""
