"""What a corpus gives to write from: each training row as its conversation, or as its text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loratelier.corpus.folder import Corpus
from loratelier.corpus.formats import Rendered, parse, render
from loratelier.corpus.hygiene.tongue import UNKNOWN
from loratelier.kit.errors import InputError

Talk = list[dict[str, str]]


@dataclass(frozen=True)
class Item:
    """One row to write from: its id, its format, its language.

    ``messages`` are the conversation, whatever format the row is in; empty where the row is a text:
    a passage of a book, a scene in its notation. ``text`` is all of it as a text.
    """

    row: str
    format: str
    language: str
    messages: Talk
    text: str


def items(corpus: Corpus, limit: int | None) -> Iterator[Item]:
    """Yield the first ``limit`` training rows; all where it is None."""
    left = corpus.rows.num_rows if limit is None else limit
    for batch in corpus.rows.to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            if left and row["split"] == "train":
                left -= 1
                yield _item(row)


def _item(row: Mapping[str, Any]) -> Item:
    messages = conversation(row)
    text = row["text"] if not messages else render(messages, "raw").text
    return Item(row["id"], row["format"], row["language"] or UNKNOWN, messages, text or "")


def conversation(row: Mapping[str, Any]) -> Talk:
    """Read a row's conversation back from its format; empty where the row is a text."""
    if all(origin["role"] == "text" for origin in row["lineage"]):
        return []
    try:
        return parse(Rendered(row["messages"], row["text"]), row["format"])
    except InputError:
        return []  # a text that its source wrote itself
