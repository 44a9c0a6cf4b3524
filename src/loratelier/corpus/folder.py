"""A corpus in memory and on disk: rows, dropped, manifest, report."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from loratelier.corpus.formats import Rendered, render
from loratelier.corpus.lineage import Dropped, Origin, Row
from loratelier.corpus.page import page
from loratelier.corpus.report import KIND, Report
from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder

ROWS, DROPPED, MANIFEST, REPORT = "rows.parquet", "dropped.parquet", "manifest.json", "report.html"

_LINEAGE = pa.list_(
    pa.struct(
        [
            ("file", pa.string()),
            ("uid", pa.string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("role", pa.string()),
            ("steps", pa.list_(pa.string())),
        ]
    )
)
ROWS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("format", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("text", pa.string()),
        ("split", pa.string()),
        ("conversation", pa.string()),
        ("lossy", pa.bool_()),
        ("lineage", _LINEAGE),
    ]
)
DROPPED_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("conversation", pa.string()),
        ("lossy", pa.bool_()),
        ("lineage", _LINEAGE),
    ]
)

_BUILD = "Build it with: loratelier corpus build SOURCE -o DIR"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Training rows with where each came from, and everything that is in no row.

    ``rows``: id, format, messages (role, content) or text (the other is null), split (``train`` or
    ``holdout``), conversation, lossy, lineage (one entry a message, in order). ``dropped``: reason,
    kind (``message``, ``commentary``, ``attachment``, ``artifact``, ``prompt``, ``note``,
    ``file``), text, conversation, lossy, lineage (one entry). ``hash`` covers the content of both
    tables.
    """

    rows: Any
    dropped: Any
    report: Report

    @property
    def hash(self) -> str:
        """The SHA-256 of all rows and all dropped texts, in hexadecimal."""
        return self.report.hash

    def save(self, folder: str | Path, replace: bool = False) -> Path:
        """Write the corpus folder whole, or not at all.

        Raises:
            InputError: see :func:`check_target`; or the folder cannot be written.
        """
        target = Path(folder)
        check_target(target, replace=replace)
        with atomic_folder(target, replace=target.exists()) as scratch:
            pq.write_table(self.rows, scratch / ROWS)
            pq.write_table(self.dropped, scratch / DROPPED)
            manifest = json.dumps(self.report.model_dump(mode="json"), ensure_ascii=False, indent=2)
            (scratch / MANIFEST).write_text(manifest + "\n", encoding="utf-8")
            html = page(self.report, self.dropped.to_pylist())
            (scratch / REPORT).write_text(html, encoding="utf-8")
        return target

    @classmethod
    def load(cls, folder: str | Path) -> "Corpus":
        """Read a corpus folder and check it against its hash.

        Raises:
            InputError: the folder is missing, is no corpus, or is damaged.
        """
        path = Path(folder)
        report = _manifest(path)
        rows = _table(path / ROWS, ROWS_SCHEMA)
        dropped = _table(path / DROPPED, DROPPED_SCHEMA)
        if content_hash(rows, dropped) != report.hash:
            raise InputError(
                f"The corpus {path} is damaged: its rows do not match its manifest",
                "Build it anew",
            )
        return cls(rows, dropped, report)


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse a folder that a corpus must not be written over.

    Raises:
        InputError: it is a file, a folder of something else, or a corpus and ``replace`` is false.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not _is_corpus(target):
        raise InputError(f"{target} exists and is no corpus", "Choose another folder")
    if not replace:
        raise InputError(f"The corpus {target} exists already", "Rebuild it with --force")


def to_tables(rows: Sequence[Row], dropped: Sequence[Dropped], format: str) -> tuple[Any, Any]:
    """Return the two tables of a corpus."""
    row_table = pa.Table.from_pylist([_row(row, format) for row in rows], schema=ROWS_SCHEMA)
    drop_table = pa.Table.from_pylist([_dropped(each) for each in dropped], schema=DROPPED_SCHEMA)
    return row_table, drop_table


def content_hash(rows: Any, dropped: Any) -> str:
    """Return the SHA-256 of everything that stands in two tables, independent of their encoding."""
    digest = hashlib.sha256()
    for table in (rows, dropped):
        for batch in table.to_batches(max_chunksize=1000):
            for record in batch.to_pylist():
                line = json.dumps(record, ensure_ascii=False, sort_keys=True)
                digest.update(line.encode("utf-8") + b"\n")
        digest.update(b"\0")
    return digest.hexdigest()


def _row(row: Row, format: str) -> dict[str, Any]:
    said = [
        {"role": role, "content": turn.text}
        for role, turn in zip(row.roles, row.turns, strict=True)
    ]
    rendered = render(said, format) if row.text is None else Rendered(text=row.text)
    return {
        "id": row.id,
        "format": format,
        "messages": rendered.messages,
        "text": rendered.text,
        "split": row.split,
        "conversation": row.conversation,
        "lossy": row.lossy,
        "lineage": [_origin(turn.origin) for turn in row.turns],
    }


def _dropped(each: Dropped) -> dict[str, Any]:
    return {
        "reason": each.reason,
        "kind": each.kind,
        "text": each.text,
        "conversation": each.conversation,
        "lossy": each.lossy,
        "lineage": [_origin(each.origin)],
    }


def _origin(origin: Origin) -> dict[str, Any]:
    return {
        "file": origin.file,
        "uid": origin.uid,
        "start": origin.start,
        "end": origin.end,
        "role": origin.role,
        "steps": list(origin.steps),
    }


def _is_corpus(path: Path) -> bool:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def _manifest(path: Path) -> Report:
    if not path.exists():
        raise InputError(f"The corpus {path} does not exist", _BUILD)
    if not _is_corpus(path):
        raise InputError(f"{path} is no corpus: {MANIFEST} is missing or not ours", _BUILD)
    try:
        return Report.model_validate_json((path / MANIFEST).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"The corpus {path} is damaged: {MANIFEST}, {where}: {first['msg']}", "Build it anew"
        ) from error


def _table(path: Path, schema: Any) -> Any:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"The corpus {path.parent} is damaged: {path.name} cannot be read", "Build it anew"
        ) from error
    if not table.schema.equals(schema):
        raise InputError(
            f"The corpus {path.parent} is damaged: {path.name} has other columns", "Build it anew"
        )
    return table
