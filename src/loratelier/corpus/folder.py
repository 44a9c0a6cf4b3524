"""A corpus in memory and on disk: rows, dropped, manifest, report."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from loratelier.corpus.formats import Rendered, render
from loratelier.corpus.lineage import Candidate, Changed, Dropped, Origin, Row, Turn
from loratelier.corpus.notes import ScoreNote
from loratelier.corpus.page import SHOWN, page
from loratelier.corpus.report import KIND, Mended, Report
from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder

ROWS, DROPPED, MANIFEST, REPORT = "rows.parquet", "dropped.parquet", "manifest.json", "report.html"
CANDIDATES, REPAIRS = "candidates.parquet", "repairs.parquet"

_BATCH = 64  # records turned into a table at once
_GROUP = 2000  # rows of a parquet row group, which is held in memory while it is written

# ``message`` is the place, in the row's messages, of the one that this became part of.
_LINEAGE = pa.list_(
    pa.struct(
        [
            ("file", pa.string()),
            ("uid", pa.string()),
            ("item", pa.string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("role", pa.string()),
            ("steps", pa.list_(pa.string())),
            ("message", pa.int32()),
        ]
    )
)
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
ROWS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("format", pa.string()),
        ("messages", _MESSAGES),
        ("text", pa.string()),
        ("split", pa.string()),
        ("conversation", pa.string()),
        ("lossy", pa.bool_()),
        ("language", pa.string()),
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
CANDIDATES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("how", pa.string()),
        ("prompt", _MESSAGES),
        ("kept", pa.string()),
        ("others", pa.list_(pa.string())),
        ("split", pa.string()),
        ("conversation", pa.string()),
        ("row", pa.string()),
        ("lineage", _LINEAGE),
        ("others_lineage", pa.list_(_LINEAGE)),
    ]
)
REPAIRS_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("uid", pa.string()),
        ("item", pa.string()),
        ("start", pa.int64()),
        ("role", pa.string()),
        ("step", pa.int32()),
        ("what", pa.string()),
        ("line", pa.int32()),
        ("was", pa.string()),
        ("now", pa.string()),
    ]
)
_STEP = ("file", "uid", "item", "start", "step")  # what the lines of one step share

_BUILD = "Build it with: loratelier corpus build SOURCE -o DIR"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Training rows with where each came from, and everything that is in no row.

    ``rows``: id, format, messages (role, content) or text (the other is null), split (``train`` or
    ``holdout``), conversation, lossy, language, lineage (one entry a message of the source, in
    order; ``message`` says which of the row's messages it became). ``dropped``: reason, kind
    (``message``, ``passage``, ``commentary``, ``attachment``, ``artifact``, ``prompt``, ``note``,
    ``item``, ``file``…), text, conversation, lossy, lineage (one entry). ``candidates``: turns of
    rows that have other versions: how, prompt, kept, others, with the lineage of each. ``repairs``:
    every line that repair changed, step by step, as it was and as it is now (see
    :class:`~loratelier.corpus.lineage.Changed`). ``hash`` covers the content of the other tables.
    """

    rows: Any
    dropped: Any
    report: Report
    candidates: Any = field(default_factory=CANDIDATES_SCHEMA.empty_table)
    repairs: Any = field(default_factory=REPAIRS_SCHEMA.empty_table)

    @property
    def hash(self) -> str:
        """The SHA-256 of all rows and all dropped texts, in hexadecimal."""
        return self.report.hash

    def mended(self) -> Iterator[tuple[Mended, list[dict[str, Any]]]]:
        """Yield each step of the repairs with the records of ``repairs`` that are its lines."""
        steps = (step for file in self.report.files for step in file.repairs)
        batches = (batch.to_pylist() for batch in self.repairs.to_batches(max_chunksize=_BATCH))
        groups = groupby(chain.from_iterable(batches), itemgetter(*_STEP))
        for step, (_, lines) in zip(steps, groups, strict=True):
            yield step, list(lines)

    def save(self, folder: str | Path, replace: bool = False) -> Path:
        """Write the corpus folder whole, or not at all.

        Raises:
            InputError: see :func:`check_target`; or the folder cannot be written.
        """
        target = Path(folder)
        check_target(target, replace=replace)
        with atomic_folder(target, replace=target.exists()) as scratch:
            pq.write_table(self.rows, scratch / ROWS, row_group_size=_GROUP)
            pq.write_table(self.dropped, scratch / DROPPED, row_group_size=_GROUP)
            if self.candidates.num_rows:
                pq.write_table(self.candidates, scratch / CANDIDATES, row_group_size=_GROUP)
            if self.repairs.num_rows:
                pq.write_table(self.repairs, scratch / REPAIRS, row_group_size=_GROUP)
            manifest = json.dumps(self.report.model_dump(mode="json"), ensure_ascii=False, indent=2)
            (scratch / MANIFEST).write_text(manifest + "\n", encoding="utf-8")
            html = page(self.report, *_shown(self.dropped))
            (scratch / REPORT).write_text(html, encoding="utf-8")
        return target

    @classmethod
    def load(cls, folder: str | Path) -> "Corpus":
        """Read a corpus folder and check it against its hash.

        Raises:
            InputError: the folder is missing, is no corpus, or is damaged.
        """
        path = Path(folder)
        report = read_manifest(path)
        rows = _table(path / ROWS, ROWS_SCHEMA)
        dropped = _table(path / DROPPED, DROPPED_SCHEMA)
        candidates = CANDIDATES_SCHEMA.empty_table()
        if (path / CANDIDATES).exists():
            candidates = _table(path / CANDIDATES, CANDIDATES_SCHEMA)
        if content_hash(rows, dropped, candidates, report.scores) != report.hash:
            raise InputError(
                f"The corpus {path} is damaged: its rows do not match its manifest",
                "Build it anew",
            )
        repairs = REPAIRS_SCHEMA.empty_table()
        if (path / REPAIRS).exists():
            repairs = _table(path / REPAIRS, REPAIRS_SCHEMA)
        return cls(rows, dropped, report, candidates, repairs)


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


def to_tables(rows: Iterable[Row], dropped: Iterable[Dropped], format: str) -> tuple[Any, Any]:
    """Return the two tables of a corpus."""
    row_table = _on_disk((_row(row, format) for row in rows), ROWS_SCHEMA)
    return row_table, _on_disk(map(_dropped, dropped), DROPPED_SCHEMA)


def to_candidates(rows: Iterable[Row]) -> Any:
    """Return the table of turns that have other versions."""
    records = (_candidate(row, each) for row in rows for each in row.candidates)
    return _on_disk(records, CANDIDATES_SCHEMA)


def to_repairs(changes: Iterable[Changed]) -> Any:
    """Return the table of lines that repair changed."""
    return _on_disk((asdict(each) for each in changes), REPAIRS_SCHEMA)


def _on_disk(records: Iterable[dict[str, Any]], schema: Any) -> Any:
    """Return a table that lies in a temporary file, mapped: the system takes back what is not read.

    The file is without a name from here on and vanishes with the table.
    """
    stream = iter(records)
    handle = tempfile.NamedTemporaryFile(suffix=".arrow", delete=False)  # noqa: SIM115
    path = Path(handle.name)
    with handle, pa.ipc.new_file(handle, schema) as writer:
        while batch := list(islice(stream, _BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    with suppress(PermissionError):  # Windows keeps the name of a file that is open
        path.unlink()
    return table


def content_hash(rows: Any, dropped: Any, candidates: Any, scores: Sequence[ScoreNote] = ()) -> str:
    """Return the SHA-256 of all that stands in the tables, independent of their encoding.

    ``scores`` say with which base and formula a column of scores was made: a number without them
    means nothing, so they are covered too.
    """
    digest = hashlib.sha256()
    for table in (rows, dropped, candidates):
        for batch in table.to_batches(max_chunksize=_BATCH):
            for record in batch.to_pylist():
                line = json.dumps(record, ensure_ascii=False, sort_keys=True)
                digest.update(line.encode("utf-8") + b"\n")
        digest.update(b"\0")
    for note in scores:
        digest.update(json.dumps(note.model_dump(mode="json"), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _row(row: Row, format: str) -> dict[str, Any]:
    said = _messages(row.roles, row.turns)
    rendered = render(said, format) if row.text is None else Rendered(text=row.text)
    return {
        "id": row.id,
        "format": format,
        "messages": rendered.messages,
        "text": rendered.text,
        "split": row.split,
        "conversation": row.conversation,
        "lossy": row.lossy,
        "language": row.language,
        "lineage": _lineage(row.turns),
    }


def _candidate(row: Row, each: Candidate) -> dict[str, Any]:
    return {
        "id": each.id,
        "how": each.how,
        "prompt": _messages(each.roles, each.prompt),
        "kept": each.kept.text,
        "others": [other.text for other in each.others],
        "split": row.split,
        "conversation": row.conversation,
        "row": row.id,
        "lineage": _lineage([each.kept]),
        "others_lineage": [_lineage([other]) for other in each.others],
    }


def _dropped(each: Dropped) -> dict[str, Any]:
    return {
        "reason": each.reason,
        "kind": each.kind,
        "text": each.text,
        "conversation": each.conversation,
        "lossy": each.lossy,
        "lineage": [_origin(each.origin, 0)],
    }


def _messages(roles: Iterable[str], turns: Iterable[Turn]) -> list[dict[str, str]]:
    return [{"role": role, "content": turn.text} for role, turn in zip(roles, turns, strict=True)]


def _lineage(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    return [_origin(origin, number) for number, turn in enumerate(turns) for origin in turn.origins]


def _origin(origin: Origin, message: int) -> dict[str, Any]:
    return {
        "file": origin.file,
        "uid": origin.uid,
        "item": origin.item,
        "start": origin.start,
        "end": origin.end,
        "role": origin.role,
        "steps": list(origin.steps),
        "message": message,
    }


def _shown(dropped: Any) -> tuple[list[dict[str, Any]], int]:
    """Return what the page shows of the dropped, and how many there are of its kind."""
    total = int(pc.sum(pc.not_equal(dropped["kind"], "commentary")).as_py() or 0)
    batches = dropped.to_batches(max_chunksize=_BATCH)
    records: Iterator[dict[str, Any]] = chain.from_iterable(b.to_pylist() for b in batches)
    wanted = (each for each in records if each["kind"] != "commentary")
    return list(islice(wanted, SHOWN)), total


def _is_corpus(path: Path) -> bool:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def read_manifest(path: Path) -> Report:
    """Return what a corpus folder says of itself, without reading its tables.

    Raises:
        InputError: the folder is missing, is no corpus, or its manifest is damaged.
    """
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
    # Scores are columns of their own beside these; the hash covers them all.
    if any(name not in table.column_names for name in schema.names) or not table.select(
        schema.names
    ).schema.equals(schema):
        raise InputError(
            f"The corpus {path.parent} is damaged: {path.name} has other columns", "Build it anew"
        )
    return table
