"""The corpus that is made: new rows with their lineage, and a reason for what gave none."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from loratelier.corpus.folder import DROPPED_SCHEMA, ROWS_SCHEMA, Corpus, content_hash
from loratelier.corpus.formats import Rendered, render
from loratelier.corpus.hygiene.note import CleaningNote
from loratelier.corpus.lineage import MESSAGE
from loratelier.corpus.notes import SynthesisNote
from loratelier.corpus.records import dropped_records
from loratelier.corpus.report import NoteReport, Report
from loratelier.corpus.synthesize.material import Talk, conversation
from loratelier.corpus.synthesize.tasks import REPHRASE

_TOO_SHORT = "too short to write from"
_BEYOND = "beyond the limit of rows to write from"

Record = dict[str, Any]
Place = tuple[Any, ...]


@dataclass(frozen=True)
class Made:
    """What one request gave: conversations, or why none; ``began`` is how a bad answer begins."""

    talks: tuple[Talk, ...] = ()
    why: str = ""
    began: str = ""
    answered: bool = True

    @property
    def reason(self) -> str:
        """Why there is nothing, with the answer's first words."""
        return f"{self.why}; it began: {self.began}" if self.began else self.why

    @property
    def cause(self) -> str:
        """The reason without names and numbers, for counting."""
        return self.why.partition(":")[0]


@dataclass(frozen=True)
class Piecework:
    """What came of one piece: the row it is from, and the message that it is about."""

    row: str
    message: int
    made: Made


@dataclass
class _Out:
    """What goes into the new corpus, and why rows gave less than they might."""

    rows: list[Record]
    dropped: list[Record]
    causes: Counter[str]

    def drop(self, row: Record, cause: str, reason: str, after: int = 0) -> None:
        """Set aside a row's messages from number ``after`` on."""
        records = dropped_records(row, reason)
        kept = [
            record
            for record, origin in zip(records, row["lineage"], strict=True)
            if origin["message"] >= after
        ]
        self.dropped += kept
        self.causes[cause] += sum(record["kind"] == MESSAGE for record in kept)


def rebuild(source: Corpus, work: Sequence[Piecework], note: Mapping[str, Any]) -> Corpus:
    """Return the corpus of new rows; held-out rows stay as they are.

    Args:
        source: the corpus that was written from.
        work: what came of every piece, in the order of the rows.
        note: what the manifest says about the run.

    Raises:
        RuntimeError: a message vanished: a fault of ours, never of the input.
    """
    task = note["task"]
    step = f"synthesized: {task} version {note['version']} by {note['model']}"
    by_row: dict[str, list[Piecework]] = defaultdict(list)
    for each in work:
        by_row[each.row].append(each)
    limit = note["settings"].get("limit")
    out = _Out([], [], Counter())
    trained = 0
    for batch in source.rows.select(ROWS_SCHEMA.names).to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            if row["split"] != "train":
                out.rows.append(row)
                continue
            trained += 1
            pieces = by_row.get(row["id"])
            if pieces is None:
                cause = _BEYOND if limit is not None and trained > limit else _TOO_SHORT
                out.drop(row, f"synthesis: {cause}", f"synthesis: {cause}")
            elif task == REPHRASE:
                _rephrased(row, pieces, step, out)
            else:
                _written(row, pieces[0].made, task, step, out)
    return _corpus(source, out, work, note)


def _written(row: Record, made: Made, task: str, step: str, out: _Out) -> None:
    """Make a row of each conversation; each message of it has all that the row came from."""
    if not made.talks:
        out.drop(row, f"{task}: {made.cause}", f"{task}: {made.reason}")
        return
    origins = [{**one, "steps": [*one["steps"], step]} for one in row["lineage"]]
    for number, talk in enumerate(made.talks, start=1):
        lineage = [{**one, "message": place} for place in range(len(talk)) for one in origins]
        fresh = {"id": f"{row['id']}~{task}-{number}", "format": "chat", "lineage": lineage}
        out.rows.append(row | fresh | {"messages": talk, "text": None})


def _rephrased(row: Record, pieces: Sequence[Piecework], step: str, out: _Out) -> None:
    """Make one row of the conversation in new words, as far as every answer has some."""
    talk = conversation(row)
    failed = next((each for each in pieces if not each.made.talks), None)
    end = len(talk) or 1
    if failed is not None:
        end = failed.message
        while end and talk[end - 1]["role"] != "assistant":
            end -= 1
    new = {each.message: each.made.talks[0][0]["content"] for each in pieces if each.made.talks}
    new = {message: words for message, words in new.items() if message < end}
    if failed is not None:
        made = failed.made
        where = f"answer at message {failed.message + 1}, " if talk else ""
        after = end if new else 0
        out.drop(row, f"rephrase: {made.cause}", f"rephrase: {where}{made.reason}", after)
    if not new:
        return
    said = [
        {**one, "content": new.get(place, one["content"])} for place, one in enumerate(talk[:end])
    ]
    shape = render(said, row["format"]) if talk else Rendered(text=new[0])
    lineage = [
        {**one, "steps": [*one["steps"], step]} if one["message"] in new else one
        for one in row["lineage"]
        if one["message"] < end
    ]
    fresh = {"id": f"{row['id']}~rephrase", "lineage": lineage}
    out.rows.append(row | fresh | {"messages": shape.messages, "text": shape.text})


def _corpus(
    source: Corpus, out: _Out, work: Sequence[Piecework], note: Mapping[str, Any]
) -> Corpus:
    rows = pa.Table.from_pylist(out.rows, schema=ROWS_SCHEMA)
    dropped = pa.Table.from_pylist(out.dropped, schema=DROPPED_SCHEMA)
    # A row that was written anew has no other versions of its turns.
    candidates = source.candidates.filter(pc.is_in(source.candidates["row"], rows["id"]))
    _check_conserved(source, out)
    failed = [each.made for each in work if not each.made.talks]
    synthesis = SynthesisNote(
        source=source.hash,
        items=len(work),
        rows=sum(row["split"] == "train" for row in out.rows),
        failed=len(failed),
        unanswered=sum(not made.answered for made in failed),
        reasons=dict(Counter(made.why for made in failed).most_common()),
        **note,
    )
    report = _report(source.report, out, synthesis).model_copy(
        update={
            "hash": content_hash(rows, dropped, candidates),
            "candidates": candidates.num_rows,
        }
    )
    return Corpus(rows, dropped, report, candidates, source.repairs)


def _report(old: Report, out: _Out, note: SynthesisNote) -> Report:
    """Count anew: a message is in rows if one of them or more is made of it."""
    inside = {_place(one): one for row in out.rows for one in row["lineage"]}
    outside = {_place(record["lineage"][0]): record for record in out.dropped}
    kept = Counter((one["file"], one["role"] == "text") for one in inside.values())
    left = Counter(
        (record["lineage"][0]["file"], record["kind"] != MESSAGE) for record in outside.values()
    )
    splits = Counter(row["split"] for row in out.rows)
    of_messages = sum(number for (_, text), number in kept.items() if not text)
    dropped = sum(number for (_, text), number in left.items() if not text)
    return old.model_copy(
        update={
            "format": old.format if note.task == REPHRASE else "chat",
            "conversations": len({row["conversation"] for row in out.rows}),
            "messages": of_messages + dropped,
            "messages_in_rows": of_messages,
            "dropped": dropped,
            "passages": kept.total() + left.total() - of_messages - dropped,
            "rows": len(out.rows),
            "train": splits["train"],
            "held_out": splits["holdout"],
            "repaired": 0,
            "lossy": sum(row["lossy"] for row in out.rows),
            "commentary": 0,
            "nested": 0,
            "broken": 0,
            "reasons": {cause: number for cause, number in out.causes.most_common() if number},
            "same": [],
            "files": _files(old, kept, left),
            "cleaning": CleaningNote(languages=dict(Counter(r["language"] for r in out.rows))),
            "scores": [],
            "comparisons": [],
            "syntheses": [*old.syntheses, note],
        }
    )


def _files(
    old: Report, kept: Counter[tuple[str, bool]], left: Counter[tuple[str, bool]]
) -> list[NoteReport]:
    kinds = {note.file: note.kind for note in old.files}
    return [
        NoteReport(
            file=file,
            state="read",
            kind=kinds.get(file, ""),
            messages=kept[file, False] + left[file, False],
            passages=kept[file, True] + left[file, True],
            in_rows=kept[file, False] + kept[file, True],
            dropped=left[file, False],
        )
        for file in sorted({file for file, _ in [*kept, *left]})
    ]


def _check_conserved(source: Corpus, out: _Out) -> None:
    given = {_place(one) for row in source.rows.column("lineage").to_pylist() for one in row}
    inside = {_place(one) for row in out.rows for one in row["lineage"]}
    outside = {_place(record["lineage"][0]) for record in out.dropped}
    if inside | outside != given:
        raise RuntimeError(f"Messages were lost: {list(given - inside - outside)[:3]}")


def _place(origin: Mapping[str, Any]) -> Place:
    return origin["file"], origin["item"], origin["start"], origin["end"]
