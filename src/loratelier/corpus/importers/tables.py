"""Parquet files of training rows, read a batch at a time."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from loratelier.corpus.importers.blobs import Blob
from loratelier.corpus.importers.datasets import COLUMNS
from loratelier.corpus.importers.jsonstream import Value
from loratelier.corpus.importers.parts import Broken

MAGIC = b"PAR1"
_BATCH = 256  # rows at once

# What Arrow raises on a damaged file, beside its own errors.
_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, KeyError)


def rows(blob: Blob) -> Iterator[Value | Broken]:
    """Yield the rows of a table as items; columns that no training form knows are not read."""
    number = 0
    with blob.open() as stream:
        try:
            table = pq.ParquetFile(stream)
            names = [name for name in table.schema_arrow.names if name in COLUMNS]
            if not names:
                yield Value(0, dict.fromkeys(table.schema_arrow.names), False)
                return
            for batch in table.iter_batches(batch_size=_BATCH, columns=names):
                for row in batch.to_pylist():
                    yield Value(number, _without_none(row), False)
                    number += 1
        except _ERRORS as error:
            reason = str(error).split("\n")[0][:200]
            yield Broken(f"/{number}", f"the table is damaged from here on ({reason})")


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    """Drop what a table's fixed columns leave empty: to be absent is to be None there."""
    return {key: _cell(value) for key, value in row.items() if value is not None}


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return [_cell(one) for one in value]
    return _without_none(value) if isinstance(value, dict) else value
