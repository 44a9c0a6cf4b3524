"""A corpus made of some rows of another: every message is in a row or dropped, and counted anew."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from loratelier.corpus.folder import Corpus, content_hash
from loratelier.corpus.lineage import MESSAGE
from loratelier.corpus.notes import ScoreNote, SelectionNote
from loratelier.corpus.report import NoteReport, Report
from loratelier.corpus.score.columns import REASONS, recounted
from loratelier.corpus.score.likeness import row_text
from loratelier.corpus.select.wish import Wish
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark

# Marks rows of another corpus in their ids and conversations, which must stay apart from ours.
_REPLAY = "replay/"


def rebuild(
    corpus: Corpus,
    chosen: Sequence[int],
    left: Mapping[int, tuple[str, str]],
    extra: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    seed: int,
    replay: Corpus | None,
) -> Corpus:
    """Return the corpus with the chosen training rows, all held-out rows, and ``extra`` rows.

    Args:
        corpus: the one that is chosen from.
        chosen: numbers of training rows.
        left: ``(cause, reason)`` of every other training row by its number.
        extra: rows of another corpus, as :func:`replayed` makes them.
        settings: what was asked for, for the manifest.
        seed: likewise.
        replay: where ``extra`` is from.

    Raises:
        RuntimeError: a message vanished or doubled: a fault of ours, never of the input.
    """
    out = set(left)
    if out & set(chosen):
        raise RuntimeError("A row was chosen and left out at once")
    kept = [number for number in range(corpus.rows.num_rows) if number not in out]
    rows = corpus.rows.take(pa.array(kept, type=pa.int64()))
    rows = pa.concat_tables([rows, pa.Table.from_pylist(list(extra), schema=rows.schema)])
    gone = corpus.rows.to_pylist()
    records = [
        record for number in sorted(left) for record in _dropped(gone[number], left[number][1])
    ]
    dropped = pa.concat_tables(
        [corpus.dropped, pa.Table.from_pylist(records, schema=corpus.dropped.schema)]
    )
    causes = Counter(left[number][0] for number in left for _ in gone[number]["lineage"])
    note = SelectionNote(
        source=corpus.hash,
        settings=dict(settings),
        seed=seed,
        candidates=len(chosen) + len(left),
        selected=len(chosen),
        replayed=len(extra),
        replay_source=replay.hash if replay else None,
        reasons=dict(Counter(cause for cause, _ in left.values()).most_common()),
    )
    report = _report(corpus.report, rows, dropped, causes, extra, note)
    return Corpus(rows, dropped, report)


def replayed(corpus: Corpus, replay: Corpus, selected: int, wish: Wish) -> list[dict[str, Any]]:
    """Draw training rows of another corpus so that they are the wished share of all.

    Their scores stay where the same base made them with the same formula, and are null elsewhere.

    Raises:
        InputError: the other corpus has no training rows.
    """
    wanted = round(wish.replay_share / (1 - wish.replay_share) * selected)
    own = set(corpus.rows.column("id").to_pylist())
    among = [
        row for row in replay.rows.to_pylist() if row["split"] == "train" and row["id"] not in own
    ]
    if not among:
        raise InputError("The corpus to replay from has no training rows of its own")
    if len(among) < wanted:
        remark(f"{wanted} rows were to be replayed; the other corpus has {len(among)}")
    among.sort(key=lambda row: str(row["id"]))
    drawn = random.Random(f"{wish.seed}/replay").sample(among, min(wanted, len(among)))
    lacking = _lacking(corpus, replay)
    return [_replayed(row, corpus, replay.hash, lacking) for row in drawn]


def _lacking(corpus: Corpus, replay: Corpus) -> list[str]:
    """Return our score columns that the other corpus has not, or not from the same base."""
    theirs = {note.column: _made_by(note) for note in replay.report.scores}
    return [
        note.column for note in corpus.report.scores if theirs.get(note.column) != _made_by(note)
    ]


def _made_by(note: ScoreNote) -> tuple[Any, ...]:
    base = note.base
    print_ = (base.fingerprint, base.dtype, base.quantization) if base else ()
    return (note.metric, note.version, *print_)


def _replayed(
    row: dict[str, Any], corpus: Corpus, source: str, lacking: Sequence[str]
) -> dict[str, Any]:
    """Return a row of the other corpus in the columns of ours, its origin marked."""
    made = {name: row.get(name) for name in corpus.rows.column_names}
    made |= dict.fromkeys(lacking)
    made["id"] = _REPLAY + row["id"]
    made["conversation"] = _REPLAY + row["conversation"]
    step = f"replayed from corpus {source[:12]}"
    made["lineage"] = [{**one, "steps": [*one["steps"], step]} for one in row["lineage"]]
    if REASONS in made:
        why = [entry for entry in row.get(REASONS) or [] if entry["column"] not in lacking]
        reason = "replayed from a corpus without this score of this base"
        made[REASONS] = why + [{"column": column, "reason": reason} for column in lacking]
    return made


def _dropped(row: Mapping[str, Any], reason: str) -> list[dict[str, Any]]:
    """Return a record a message of the row.

    A row that is no list of messages gives its text with the first of its sources.
    """
    messages = row.get("messages") or []
    if len(messages) == len(row["lineage"]):
        texts = [message["content"] for message in messages]
    else:
        texts = [row_text(row), *[""] * (len(row["lineage"]) - 1)]
    return [
        {
            "reason": reason,
            "kind": MESSAGE,
            "text": text,
            "conversation": row["conversation"],
            "lossy": row["lossy"],
            "lineage": [origin],
        }
        for text, origin in zip(texts, row["lineage"], strict=True)
    ]


def _report(
    old: Report,
    rows: Any,
    dropped: Any,
    causes: Counter[str],
    extra: Sequence[Mapping[str, Any]],
    note: SelectionNote,
) -> Report:
    origins = rows.column("lineage").to_pylist()
    in_rows = Counter(origin["file"] for lineage in origins for origin in lineage)
    splits = Counter(rows.column("split").to_pylist())
    from_elsewhere = Counter(origin["file"] for row in extra for origin in row["lineage"])
    messages = old.messages + from_elsewhere.total()
    reasons = Counter(old.reasons) + causes
    if messages != in_rows.total() + reasons.total():
        raise RuntimeError("Messages were lost or doubled on the way")
    left = Counter(
        lineage[0]["file"]
        for kind, lineage in zip(
            dropped.column("kind").to_pylist(), dropped.column("lineage").to_pylist(), strict=True
        )
        if kind == MESSAGE
    )
    files = [
        file.model_copy(
            update={
                "in_rows": in_rows[file.file] - from_elsewhere[file.file],
                "dropped": left[file.file],
            }
        )
        for file in old.files
    ]
    files += [
        NoteReport(file=_REPLAY + file, state="read", messages=number, in_rows=number)
        for file, number in sorted(from_elsewhere.items())
    ]
    scores = recounted(old.scores, rows)
    return old.model_copy(
        update={
            "hash": content_hash(rows, dropped, scores),
            "scores": scores,
            "conversations": len(set(rows.column("conversation").to_pylist())),
            "messages": messages,
            "rows": rows.num_rows,
            "train": splits["train"],
            "held_out": splits["holdout"],
            "messages_in_rows": in_rows.total(),
            "dropped": reasons.total(),
            "reasons": dict(reasons.most_common()),
            "files": files,
            "selections": [*old.selections, note],
        }
    )
