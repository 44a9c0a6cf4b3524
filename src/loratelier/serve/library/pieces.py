"""A corpus in pieces that fit into a prompt beside a question, each with its place in a note."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratelier.corpus import Corpus, build_corpus
from loratelier.kit.errors import InputError

# Characters of a piece: a paragraph or two, about 200 tokens of English.
LONGEST = 800
_BREAK = re.compile(r"\n\s*\n|(?<=[.!?…])\s+|\n")


@dataclass(frozen=True)
class Piece:
    """Words of a note.

    ``start`` and ``end`` count characters of the file where its lineage knows them, and then span
    the message or passage that the piece is from; ``item`` is its place in a structured file.
    """

    text: str
    file: str
    uid: str
    item: str
    start: int | None
    end: int | None
    role: str


def read_notes(sources: Sequence[Path]) -> list[Corpus]:
    """Read notes as they are: dialogues by message, and whatever is no dialogue as text.

    Raises:
        InputError: nothing to read in them.
    """
    texts = build_corpus(sources, format="raw")
    try:
        return [build_corpus(sources), texts]
    except InputError:
        return [texts]  # no dialogue among them


def pieces_of(corpora: Sequence[Corpus]) -> Iterator[Piece]:
    """Yield every message and passage, long ones cut between sentences.

    A file that several corpora hold is taken from the first of them.
    """
    done: set[str] = set()
    for corpus in corpora:
        files: set[str] = set()
        for row in corpus.rows.to_pylist():
            if row["lineage"][0]["file"] in done:
                continue
            files.add(row["lineage"][0]["file"])
            yield from _of_row(row)
        done |= files


def _of_row(row: dict[str, Any]) -> Iterator[Piece]:
    if row.get("text") is not None:
        for text in cut(row["text"]):
            yield _piece(text, row["lineage"][0], row["lineage"][-1])
        return
    for number, message in enumerate(row["messages"]):
        origins = [each for each in row["lineage"] if each["message"] == number]
        for text in cut(message["content"]) if origins else ():
            yield _piece(text, origins[0], origins[-1])


def _piece(text: str, first: dict[str, Any], last: dict[str, Any]) -> Piece:
    return Piece(
        text=text,
        file=first["file"],
        uid=first["uid"],
        item=first["item"],
        start=first["start"],
        end=last["end"] if last["file"] == first["file"] else first["end"],
        role=first["role"],
    )


def cut(text: str, longest: int = LONGEST) -> list[str]:
    """Return a text in pieces of at most ``longest`` characters, cut where it breathes."""
    found: list[str] = []
    rest = text.strip()
    while len(rest) > longest:
        places = [gap.end() for gap in _BREAK.finditer(rest, 0, longest + 1)]
        # A cut in the first half would make a piece that says little by itself.
        good = [place for place in places if place > longest // 2]
        blank = rest.rfind(" ", longest // 2, longest)
        at = good[-1] if good else blank + 1 if blank > 0 else longest
        found.append(rest[:at].strip())
        rest = rest[at:].strip()
    return [*found, rest] if rest else found
