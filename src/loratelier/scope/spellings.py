"""The ways in which a word may go on a text, and the tokens of each."""

from dataclasses import dataclass
from typing import Any

from loratelier.base import Base
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class Spelling:
    """A word as it may stand in a text, and its tokens there."""

    text: str
    ids: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether one token spells it."""
        return len(self.ids) == 1


def continuation_ids(base: Base, text: str) -> tuple[int, ...]:
    """Return the tokens of a text that goes on another one.

    Raises:
        InputError: the text is empty.
    """
    ids = tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise InputError("A text to look for is empty", "Give at least one character")
    return ids


def spellings(base: Base, word: str) -> tuple[Spelling, ...]:
    """Return a word with and without a blank before it, as written and with its first letter large.

    Each in the tokenizer's own tokens; what is spelled by the same tokens is there once. A word of
    small letters is not made smaller: "Paris" is not sought as "paris".

    Raises:
        InputError: the word is blank.
    """
    bare = word.strip()
    if not bare:
        raise InputError("A word to look for is blank", "Give at least one letter")
    cased = dict.fromkeys((bare, bare[0].upper() + bare[1:]))
    texts = [blank + form for form in cased for blank in (" ", "")]
    found: dict[tuple[int, ...], str] = {}
    for text in texts:
        found.setdefault(continuation_ids(base, text), text)
    return tuple(Spelling(text, ids) for ids, text in found.items())


def padded(rows: tuple[tuple[int, ...], ...] | list[tuple[int, ...]]) -> list[list[int]]:
    """Return token rows of one length, filled at the end, where a causal model cannot see it."""
    longest = max(len(row) for row in rows)
    return [[*row, *[row[-1]] * (longest - len(row))] for row in rows]


def require_room(base: Base, length: int, what: str) -> None:
    """Make sure that the base reads so many tokens.

    Raises:
        InputError: it does not.
    """
    context: Any = base.context
    if context is not None and length > context:
        raise InputError(
            f"{what} has {length} tokens, and the base {base.name} reads {context}", "Shorten it"
        )
