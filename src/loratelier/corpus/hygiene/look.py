"""What can be seen of a row by itself: its language, private data, and what it is like."""

from collections.abc import Callable
from dataclasses import dataclass

from loratelier.corpus.hygiene.found import Finding
from loratelier.corpus.hygiene.near import Signature, signature_of
from loratelier.corpus.hygiene.private import find_private
from loratelier.corpus.hygiene.tongue import language_of
from loratelier.corpus.lineage import Row


@dataclass(frozen=True)
class Seen:
    """A row and what is seen of it.

    ``private``: what is found in each of its texts. ``signature``: what near duplicates are known
    by, where they are looked for.
    """

    row: Row
    language: str
    private: dict[str, list[Finding]]
    signature: Signature | None


def looking(near: bool) -> Callable[[Row], Seen]:
    """Return the function that looks at a row; ``near``: for near duplicates too."""

    def look(row: Row) -> Seen:
        text = text_of(row)
        texts = {turn.text for turn in row.turns} | ({row.text} if row.text is not None else set())
        private = {each: find_private(each) for each in sorted(texts)}
        return Seen(row, language_of(text), private, signature_of(text) if near else None)

    return look


def text_of(row: Row) -> str:
    """Return all that a row says."""
    return row.text if row.text is not None else "\n".join(turn.text for turn in row.turns)
