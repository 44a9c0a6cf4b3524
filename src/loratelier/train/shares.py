"""Distributions of the next token, row by row and place by place, and the file that holds them.

A place is counted among the row's tokens from 0 and is that of the token that is foretold: the
shares at place 5 say what may stand there after tokens 0 to 4.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.train.examples import Example

SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("place", pa.int32()),
        ("ids", pa.list_(pa.int32())),
        ("shares", pa.list_(pa.float32())),
    ]
)
_BATCH = 4096  # lines of a file looked at at once


@dataclass
class Shares:
    """The distributions of one row: by place, token numbers and their shares, [k] each.

    Shares are among themselves: they need not sum to 1.
    """

    places: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


Given = Mapping[str, Shares]


def write_shares(given: Given, path: Path, tokenizer: Any) -> None:
    """Write distributions to a parquet file, whole or not at all.

    Args:
        given: by row.
        path: the file.
        tokenizer: the one that the token numbers are of; a digest of it is kept.
    """
    buffer = pa.BufferOutputStream()
    schema = SCHEMA.with_metadata({"tokenizer": digest_of(tokenizer)})
    with pq.ParquetWriter(buffer, schema) as writer:
        for row, shares in given.items():
            lines = [
                {"row": row, "place": place, "ids": ids.tolist(), "shares": parts.tolist()}
                for place, (ids, parts) in sorted(shares.places.items())
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(lines, schema=schema))
    write_atomic(path, buffer.getvalue().to_pybytes())


def digest_of(tokenizer: Any) -> str:
    """Return a digest of a tokenizer's vocabulary."""
    words = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()


def read_shares(
    path: Path, rows: Sequence[Example], known: set[str], tokenizer: Any, vocabulary: int
) -> Given:
    """Read distributions of rows from a parquet file with the columns of :data:`SCHEMA`.

    Args:
        path: the file.
        rows: the rows that are trained on; lines of others are not kept.
        known: the names of all rows of the corpus.
        tokenizer: the base's.
        vocabulary: how many tokens the base knows.

    Raises:
        InputError: the file cannot be read, lacks a column, is of another tokenizer, or a line is
            wrong; the line, its row and its place are named.
    """
    wanted = {row.row: row for row in rows}
    given: dict[str, Shares] = {}
    for number, line in _lines(path, tokenizer):
        try:
            if line["row"] not in known:
                raise ValueError("the corpus has no such row")
            row = wanted.get(line["row"])
            if row is None:  # left out for its length
                continue
            places = given.setdefault(row.row, Shares()).places
            checked = _checked(line, row, vocabulary)
            if line["place"] in places:
                raise ValueError("the place stands there twice")
            places[line["place"]] = checked
        except ValueError as error:
            raise InputError(
                f"{path}, line {number} (row {line['row']}, place {line['place']}): {error}"
            ) from error
    if not given:
        raise InputError(f"{path} has no distributions for the rows of this corpus")
    return given


def _lines(path: Path, tokenizer: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}", "Write it with: loratelier teach") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as parquet") from error
    with file:
        if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
            raise InputError(
                f"{path} has no column '{missing[0]}'", f"It has {', '.join(SCHEMA.names)}"
            )
        made_with = (file.schema_arrow.metadata or {}).get(b"tokenizer")
        if made_with is not None and made_with.decode() != digest_of(tokenizer):
            raise InputError(
                f"{path} was made with another tokenizer than the base's",
                "Write it again from a teacher with the same tokenizer",
            )
        number = 0
        for batch in file.iter_batches(_BATCH, columns=SCHEMA.names):
            for line in batch.to_pylist():
                number += 1
                yield number, line


def _checked(line: Mapping[str, Any], row: Example, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return a line's token numbers and shares.

    Raises:
        ValueError: they mean nothing.
    """
    place, ids, shares = line["place"], line["ids"] or [], line["shares"] or []
    if not isinstance(place, int) or not 0 <= place < len(row):
        raise ValueError(f"the row has the places 0 to {len(row) - 1}")
    if not row.learned[place]:
        raise ValueError("the token there is not learned")
    if not ids or len(ids) != len(shares):
        raise ValueError(f"it has {len(ids)} ids and {len(shares)} shares")
    if wrong := [each for each in ids if not isinstance(each, int) or not 0 <= each < vocabulary]:
        raise ValueError(f"the base has no token {wrong[0]}")
    if len(set(ids)) != len(ids):
        raise ValueError("a token stands there twice")
    if not all(isinstance(s, float | int) and math.isfinite(s) and s >= 0 for s in shares):
        raise ValueError("a share is no number from 0 up")
    if sum(shares) <= 0:
        raise ValueError("all shares are 0")
    return torch.tensor(ids), torch.tensor(shares, dtype=torch.float32)
