"""Requests: what each adapter is asked, by its corpus and its words, and what is asked in general.

An adapter's rows are divided by their split; where a corpus holds none out, one conversation in
five is. The general requests are every other one learned from and every other one held out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.route.policy import AdapterRule, Policy

# Rows of an adapter that are read: its centre does not move much after this many.
MOST = 256
# Characters of a row: what is asked stands in its beginning.
_READ = 2_000
_COLUMNS = ["messages", "text", "split", "conversation"]


@dataclass(frozen=True)
class Asked:
    """The requests of one adapter: ``learned`` and ``held``, each row its user's turns as a text.

    ``held_rows`` are the rows of ``held`` whole: a text, or a list of messages.
    """

    learned: tuple[str, ...]
    held: tuple[str, ...]
    held_rows: tuple[Any, ...]
    digest: str


def asked_of(policy: Policy) -> dict[str, Asked]:
    """Return the requests of every adapter that has a corpus or words about it.

    Raises:
        InputError: a corpus is missing or damaged.
    """
    found = {name: _asked(rule) for name, rule in policy.adapters.items()}
    return {name: asked for name, asked in found.items() if asked.learned}


def general_requests(*, held: bool) -> list[str]:
    """Return general requests, Russian and English, that no adapter is for."""
    data = (files("loratelier.route") / "data" / "requests.txt").read_text(encoding="utf-8")
    return data.splitlines()[int(held) :: 2]


def _asked(rule: AdapterRule) -> Asked:
    about = (rule.about,) if rule.about else ()
    if rule.corpus is None:
        digest = hashlib.sha256((rule.about or "").encode()).hexdigest()
        return Asked(about, (), (), digest)
    learned, held, rows, digest = _rows(rule.corpus, _stamp(rule.corpus))
    return Asked((*about, *learned), held, rows, digest)


def _stamp(folder: Path) -> int:
    try:
        return (folder / "rows.parquet").stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{folder} is no corpus: it has no rows.parquet") from error


@lru_cache(maxsize=256)
def _rows(
    folder: Path, _stamp: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...], str]:
    table = Corpus.load(folder).rows.select(_COLUMNS).to_pylist()
    has_split = any(row["split"] == "holdout" for row in table)
    out = [row["split"] == "holdout" if has_split else _fifth(row) for row in table]
    held = [row for row, is_out in zip(table, out, strict=True) if is_out]
    learned = [row for row, is_out in zip(table, out, strict=True) if not is_out]
    kept = _spread(held)
    digest = hashlib.sha256(repr(table).encode()).hexdigest()
    texts = tuple(map(request_of, _spread(learned)))
    return texts, tuple(map(request_of, kept)), tuple(map(_whole, kept)), digest


def _fifth(row: dict[str, Any]) -> bool:
    digest = hashlib.sha256(str(row["conversation"]).encode()).digest()
    return digest[0] % 5 == 0


def _spread(rows: Sequence[Any]) -> list[Any]:
    """Return at most so many rows, evenly from the first to the last."""
    step = max(1, -(-len(rows) // MOST))
    return list(rows[::step])


def request_of(row: dict[str, Any]) -> str:
    """Return what the user says in a row; the text itself where nobody is asked."""
    if row["text"] is not None:
        return str(row["text"])[:_READ]
    said = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
    return (said or "\n".join(m["content"] for m in row["messages"]))[:_READ]


def _whole(row: dict[str, Any]) -> Any:
    return row["text"] if row["text"] is not None else row["messages"]
