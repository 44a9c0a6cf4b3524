"""A corpus made of some rows of another: every message is in a row or dropped, and counted anew."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from loratelier.corpus.folder import Corpus, content_hash
from loratelier.corpus.lineage import MESSAGE
from loratelier.corpus.notes import ScoreNote, SelectionNote
from loratelier.corpus.records import dropped_records
from loratelier.corpus.report import NoteReport, Report
from loratelier.corpus.score.columns import REASONS, recounted
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
    gone = corpus.rows.take(pa.array(sorted(left), type=pa.int64())).to_pylist()
    rows = corpus.rows.take(pa.array(kept, type=pa.int64()))
    rows = pa.concat_tables([rows, pa.Table.from_pylist(list(extra), schema=rows.schema)])
    fresh = [
        (left[number][0], record)
        for number, row in zip(sorted(left), gone, strict=True)
        for record in dropped_records(row, left[number][1])
    ]
    records = pa.Table.from_pylist([one for _, one in fresh], schema=corpus.dropped.schema)
    dropped = pa.concat_tables([corpus.dropped, records])
    _check_conserved(corpus, rows, dropped, extra)
    # What else an answer might have been has no place without the row that the answer is in.
    candidates = corpus.candidates.filter(pc.is_in(corpus.candidates["row"], rows["id"].unique()))
    causes = Counter(cause for cause, record in fresh if record["kind"] == MESSAGE)
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
    report = _report(corpus.report, rows, [record for _, record in fresh], causes, extra)
    scores = recounted(report.scores, rows)
    report = report.model_copy(
        update={
            "hash": content_hash(rows, dropped, candidates, scores),
            "scores": scores,
            "candidates": candidates.num_rows,
            "selections": [*report.selections, note],
        }
    )
    return Corpus(rows, dropped, report, candidates, corpus.repairs)


def _check_conserved(
    corpus: Corpus, rows: Any, dropped: Any, extra: Sequence[Mapping[str, Any]]
) -> None:
    given = _places(corpus.rows.column("lineage").to_pylist())
    given += _places(corpus.dropped.column("lineage").to_pylist())
    given += _places(row["lineage"] for row in extra)
    found = _places(rows.column("lineage").to_pylist())
    found += _places(dropped.column("lineage").to_pylist())
    if given != found:
        wrong = (given - found) + (found - given)
        raise RuntimeError(f"Messages were lost or doubled on the way: {list(wrong)[:3]}")


def _places(lineages: Iterable[Sequence[Mapping[str, Any]]]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (origin["file"], origin["item"], origin["start"], origin["end"])
        for lineage in lineages
        for origin in lineage
    )


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


def _report(
    old: Report,
    rows: Any,
    fresh: Sequence[Mapping[str, Any]],
    causes: Counter[str],
    extra: Sequence[Mapping[str, Any]],
) -> Report:
    """Return the build's report with its counts moved by what was dropped and what was added."""
    gone = Counter(record["lineage"][0]["file"] for record in fresh)
    gone_messages = Counter(
        record["lineage"][0]["file"] for record in fresh if record["kind"] == MESSAGE
    )
    added = [origin for row in extra for origin in row["lineage"]]
    passages = sum(origin["role"] == "text" for origin in added)
    messages = len(added) - passages
    splits = Counter(rows.column("split").to_pylist())
    files = [
        file.model_copy(
            update={
                "in_rows": file.in_rows - gone[file.file],
                "dropped": file.dropped + gone_messages[file.file],
            }
        )
        for file in old.files
    ]
    return old.model_copy(
        update={
            "conversations": len(set(rows.column("conversation").to_pylist())),
            "messages": old.messages + messages,
            "passages": old.passages + passages,
            "rows": rows.num_rows,
            "train": splits["train"],
            "held_out": splits["holdout"],
            "messages_in_rows": old.messages_in_rows - gone_messages.total() + messages,
            "dropped": old.dropped + gone_messages.total(),
            "reasons": dict((Counter(old.reasons) + causes).most_common()),
            "files": [*files, *_replayed_files(added)],
        }
    )


def _replayed_files(added: Sequence[Mapping[str, Any]]) -> list[NoteReport]:
    counts = Counter((origin["file"], origin["role"] == "text") for origin in added)
    return [
        NoteReport(
            file=_REPLAY + file,
            state="read",
            messages=counts[file, False],
            passages=counts[file, True],
            in_rows=counts[file, False] + counts[file, True],
        )
        for file in sorted({file for file, _ in counts})
    ]
