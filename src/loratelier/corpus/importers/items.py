"""Structured items of any file (array, lines, table), each recognised by its own shape."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from loratelier.corpus.importers import chatgpt, claude, datasets
from loratelier.corpus.importers.jsonstream import Value
from loratelier.corpus.importers.parts import (
    Broken,
    Document,
    Mark,
    Other,
    Part,
    Said,
    Thread,
    Unread,
)
from loratelier.corpus.importers.telegram import damaged_text

_LOOK = 20  # items after which a file of nothing known is given up


@dataclass(frozen=True)
class Shape:
    """A kind of item: how it is told, and what reads it into a conversation or a text."""

    matches: Callable[[dict[str, Any]], bool]
    read: Callable[[dict[str, Any], str], Thread | Document]


# The first that matches reads the item: those with keys of their own come before general ones.
_SHAPES = (
    Shape(chatgpt.is_conversation, chatgpt.read),
    Shape(claude.is_conversation, claude.read),
    Shape(datasets.is_sharegpt, datasets.read_sharegpt),
    Shape(datasets.is_preference, datasets.read_preference),
    Shape(datasets.is_messages, datasets.read_messages),
    Shape(datasets.is_completion, datasets.read_completion),
    Shape(datasets.is_alpaca, datasets.read_alpaca),
    Shape(datasets.is_text, datasets.read_text),
)


def shape_of(value: Any) -> Shape | None:
    """Return the shape of an item, or None."""
    if not isinstance(value, dict):
        return None
    return next((shape for shape in _SHAPES if shape.matches(value)), None)


def is_known(value: Any) -> bool:
    """Say whether an item is of a shape that we read."""
    return shape_of(value) is not None


def read(found: Iterable[Value | Broken]) -> Iterator[Part]:
    """Read items; a file whose first ones are all unknown is unread as a whole."""
    stream = iter(found)
    first = list(islice(stream, _LOOK))
    if not any(isinstance(each, Value) and is_known(each.data) for each in first):
        yield Unread(_unknown(first))
        return
    for each in chain(first, stream):
        yield each if isinstance(each, Broken) else _item(each)


def _item(value: Value) -> Thread | Document | Broken:
    shape = shape_of(value.data)
    place = f"/{value.number}"
    if shape is None:
        return Broken(place, f"an item of no known shape ({_keys(value.data)})")
    part = shape.read(value.data, place)
    if isinstance(part, Document):
        return replace(part, marks=(Mark(0, place),), lost=value.damaged)
    return _damaged(part) if value.damaged else part


def _damaged(thread: Thread) -> Thread:
    """Count in every message what was no UTF-8."""
    new: dict[Said, Said] = {}

    def counted(one: Said) -> Said:
        return new.setdefault(one, damaged_text(one))

    return replace(
        thread,
        messages=tuple(map(counted, thread.messages)),
        asides=tuple(replace(one, said=counted(one.said)) for one in thread.asides),
        others=tuple(
            Other(counted(one.of), tuple(map(counted, one.said)), one.how) for one in thread.others
        ),
    )


def _unknown(first: list[Value | Broken]) -> str:
    values = [each for each in first if isinstance(each, Value)]
    if values:
        return f"structured data of no known kind ({_keys(values[0].data)})"
    broken = [each for each in first if isinstance(each, Broken)]
    return f"broken: {broken[0].reason}" if broken else "no items"


def _keys(value: Any) -> str:
    if not isinstance(value, dict):
        return f"a {type(value).__name__} and no object"
    keys = ", ".join(str(key)[:40] for key in list(value)[:6])
    return f"keys: {keys}" if keys else "an empty object"
