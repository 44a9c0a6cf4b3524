"""Rows as they stand in a table: their words, and the records of a row that is set aside."""

from collections.abc import Mapping
from typing import Any

from loratelier.corpus.lineage import MESSAGE, PASSAGE


def row_text(row: Mapping[str, Any]) -> str:
    """Return everything that a row says: its messages one after another, or its text."""
    if row.get("messages"):
        return "\n".join(message["content"] for message in row["messages"])
    return row.get("text") or ""


def dropped_records(row: Mapping[str, Any], reason: str) -> list[dict[str, Any]]:
    """Return a record for each source of the row, with the words that it became.

    Sources that were put together give their words with the first of them, and so does a row that
    is no list of messages.
    """
    messages = row["messages"] or []
    turns = 1 + max((origin["message"] for origin in row["lineage"]), default=0)
    words = [message["content"] for message in messages]
    if len(words) != turns:
        words = [row_text(row), *[""] * (turns - 1)]
    records = []
    for origin in row["lineage"]:
        records.append(
            {
                "reason": reason,
                "kind": PASSAGE if origin["role"] == "text" else MESSAGE,
                "text": words[origin["message"]],
                "conversation": row["conversation"],
                "lossy": row["lossy"],
                "lineage": [{**origin, "message": 0}],
            }
        )
        words[origin["message"]] = ""
    return records
