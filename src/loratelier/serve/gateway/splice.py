"""Changes to a JSON object that leave every other byte of it as it was sent."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from loratelier.kit.errors import InputError

_BLANKS = " \t\n\r"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class _Member:
    """Where a member of the object stands: its key's start, its value's start and end."""

    start: int
    value: int
    end: int


class Spliced:
    """A request's body: its members, and how it reads after changes.

    Raises:
        InputError: it is no JSON object, or has a key twice: two readers might then read two
            different requests.
    """

    def __init__(self, body: bytes) -> None:
        try:
            self._text = body.decode("utf-8")
            self.values, self._members = _read(self._text)
        except (UnicodeDecodeError, ValueError, RecursionError, IndexError) as error:
            raise InputError("The body is no JSON object") from error

    def changed(self, values: Mapping[str, Any], without: Collection[str] = ()) -> bytes:
        """Return the body with other values, new members at its end, and without some members."""
        dropped = [key for key in self._members if key in without]
        if not dropped and values.keys() <= self._members.keys():
            return self._in_place(values).encode("utf-8")
        kept = [
            self._text[member.start : member.value] + _json(values[key])
            if key in values
            else self._text[member.start : member.end]
            for key, member in self._members.items()
            if key not in dropped
        ]
        new = [f"{_json(k)}: {_json(v)}" for k, v in values.items() if k not in self._members]
        return ("{" + ", ".join([*kept, *new]) + "}").encode("utf-8")

    def _in_place(self, values: Mapping[str, Any]) -> str:
        text = self._text
        places = sorted(((self._members[key], key) for key in values), key=lambda p: -p[0].value)
        for member, key in places:
            text = text[: member.value] + _json(values[key]) + text[member.end :]
        return text


def _json(value: Any) -> str:
    # In ASCII: whatever stood in the text as an escape can be written as one again.
    return json.dumps(value)


def _read(text: str) -> tuple[dict[str, Any], dict[str, _Member]]:
    values: dict[str, Any] = {}
    members: dict[str, _Member] = {}
    place = _next(text, 0, "{")
    if text[_blank(text, place)] == "}":
        _require_end(text, _blank(text, place) + 1)
        return values, members
    while True:
        start = _blank(text, place)
        key, place = _DECODER.raw_decode(text, start)
        if not isinstance(key, str):
            raise ValueError("a key is no text")
        begin = _blank(text, _next(text, place, ":"))
        value, end = _DECODER.raw_decode(text, begin)
        if key in values:
            raise ValueError(f"{key} is there twice")
        values[key], members[key] = value, _Member(start, begin, end)
        after = _blank(text, end)
        if text[after] == "}":
            _require_end(text, after + 1)
            return values, members
        place = _next(text, after, ",")


def _blank(text: str, place: int) -> int:
    while text[place] in _BLANKS:
        place += 1
    return place


def _next(text: str, place: int, mark: str) -> int:
    place = _blank(text, place)
    if text[place] != mark:
        raise ValueError(f"{mark} was expected")
    return place + 1


def _require_end(text: str, place: int) -> None:
    if text[place:].strip(_BLANKS):
        raise ValueError("there is more after the object")
