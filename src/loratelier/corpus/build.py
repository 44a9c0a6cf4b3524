"""The road from notes and written files to a corpus."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from loratelier.corpus.clean import clean
from loratelier.corpus.codecs import LOST, Pair
from loratelier.corpus.convert import LEARN, choose, conversation_id, split, to_row
from loratelier.corpus.folder import Corpus, content_hash, to_tables
from loratelier.corpus.formats import FORMATS
from loratelier.corpus.lineage import (
    MESSAGE,
    Conversation,
    Dropped,
    Origin,
    Row,
    Turn,
    check_conserved,
    check_script,
    drop,
)
from loratelier.corpus.nexus import Message, Note, Piece, parse
from loratelier.corpus.repair import Repair, Step, repair_texts
from loratelier.corpus.report import (
    Mended,
    NoteReport,
    Remark,
    Report,
    SameConversation,
    count,
    first_words,
)
from loratelier.corpus.sources import Found, Source, find, read
from loratelier.corpus.written import (
    Made,
    WrittenFile,
    check_apart,
    is_written,
    read_written,
    written_rows,
)
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import task

_NOT_LEARNED = {"attachment", "artifact", "prompt"}


def build_corpus(
    sources: str | Path | Sequence[str | Path],
    *,
    format: str = "chat",
    learn: str = "assistant",
    holdout: float = 0.1,
    include_lossy: bool = False,
    script: str | None = None,
    language: str | None = None,
) -> Corpus:
    """Read notes, mend their encodings, and make training rows.

    Args:
        sources: a note or a folder of notes, or several; recognised by what is in them.
        format: the shape of a row, one of :data:`~loratelier.corpus.formats.FORMATS`.
        learn: whose turns are learned: ``assistant``, or ``user`` for the person's, who then takes
            the assistant's role in the rows. Written files have no such side.
        holdout: the share of conversations kept for measuring, from 0 to below 1.
        include_lossy: keep messages whose repair lost characters.
        script: keep only conversations in this script (``Latn`` or ``Cyrl``).
        language: ``ru`` or ``en``, when the notes are known to be in one of them.

    Raises:
        InputError: a bad argument, a missing or unreadable path, or nothing to learn in the end.
    """
    _check(format, learn, holdout)
    check_script(script)
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    notes = _read_all(find(paths), language, format)
    check_apart({note.report.file: note.written for note in notes if note.written})
    conversations = [note.conversation for note in notes if note.conversation]
    chosen = choose(conversations)
    dropped = [each for note in notes for each in note.beside] + list(chosen.dropped)
    rows: list[Row] = []
    for conversation in chosen.kept:
        row, left = _row(conversation, learn, include_lossy, script)
        dropped += left
        rows += [row] if row else []
    made = [each for note in notes for each in note.made]
    for each in made:
        left = _other_script(each, script)
        dropped += left
        rows += [] if left else [each.row]
    turns = [turn for conversation in conversations for turn in conversation.turns]
    turns += [turn for each in made for turn in each.row.turns]
    check_conserved((turn.origin for turn in turns), rows, dropped)
    if not rows:
        raise _nothing(notes, dropped)
    rows = split(rows, holdout)
    row_table, drop_table = to_tables(rows, dropped, format)
    reasons = Counter(each.cause for each in dropped if each.kind == MESSAGE)
    report = Report(
        hash=content_hash(row_table, drop_table),
        versions={"loratelier": version("loratelier")},
        format=format,
        learn=learn,
        holdout=holdout,
        include_lossy=include_lossy,
        script=script,
        conversations=len(chosen.kept) + len({each.row.conversation for each in made}),
        messages=len(turns),
        rows=len(rows),
        train=sum(row.split == "train" for row in rows),
        held_out=sum(row.split == "holdout" for row in rows),
        messages_in_rows=sum(len(row.turns) for row in rows),
        dropped=sum(reasons.values()),
        repaired=sum(each.repaired for each in conversations),
        lossy=sum(bool(turn.lost) for each in conversations for turn in each.turns),
        commentary=sum(len(note.report.commentary) for note in notes),
        nested=sum(each.kind in _NOT_LEARNED for each in dropped),
        tokens=[token for note in notes if note.written for token in note.written.tokens],
        reasons=dict(reasons.most_common()),
        same=[SameConversation(kept=same.kept, left=list(same.left)) for same in chosen.same],
        files=_with_outcome([note.report for note in notes], rows, dropped),
    )
    return Corpus(row_table, drop_table, report)


@dataclass(frozen=True)
class _Read:
    """One file after reading: its conversation, what stands beside it, and its report.

    A written file has rows at once.
    """

    report: NoteReport
    conversation: Conversation | None = None
    beside: tuple[Dropped, ...] = ()
    written: WrittenFile | None = None
    made: tuple[Made, ...] = ()


def _check(format: str, learn: str, holdout: float) -> None:
    if format not in FORMATS:
        raise InputError(f"The format '{format}' is unknown", did_you_mean(format, FORMATS))
    if learn not in LEARN:
        raise InputError(f"learn = '{learn}' is unknown", did_you_mean(learn, LEARN))
    if not 0 <= holdout < 1:
        raise InputError(f"holdout = {holdout} is no share", "Give a number from 0 to below 1")


def _read_all(found: Sequence[Found], language: str | None, format: str) -> list[_Read]:
    notes = []
    with task("Reading notes", total=len(found)) as bar:
        for each in found:
            bar.say(each.name)
            notes.append(_read(each, language, format))
            bar.advance()
    return notes


def _read(found: Found, language: str | None, format: str) -> _Read:
    source = read(found, language)
    if not isinstance(source, Source):
        return _unused(source.name, source.why, "file", source.why, "")
    if not source.text.strip():
        return _unused(source.name, "empty", "note", "an empty note", source.text)
    if is_written(source.text):
        return _written(source, format)
    note = parse(source.text)
    if not note.messages:
        reason = "no messages in this note"
        return _unused(source.name, "no messages found", "note", reason, source.text)
    return _mend(source, note, language)


def _written(source: Source, format: str) -> _Read:
    file = read_written(source.text, source.name)
    made = written_rows(file, source, format)
    report = NoteReport(
        file=source.name,
        state="read",
        encoding=source.encoding,
        title=file.title,
        messages=sum(len(each.row.turns) for each in made),
    )
    return _Read(report, written=file, made=tuple(made))


def _unused(name: str, state: str, kind: str, reason: str, text: str) -> _Read:
    origin = Origin(name, "", 0, len(text), "")
    return _Read(
        NoteReport(file=name, state=state), beside=(Dropped(kind, reason, reason, text, origin),)
    )


def _mend(source: Source, note: Note, language: str | None) -> _Read:
    # All texts of a file are mended together: what one cannot prove another can.
    pieces: list[Piece] = [*note.messages, *note.commentary]
    pieces += [nested for message in note.messages for nested in message.nested]
    repairs = dict(
        zip(pieces, repair_texts([piece.text for piece in pieces], language=language), strict=True)
    )
    turns = [_turn(source, message, repairs[message]) for message in note.messages]
    conversation = Conversation(
        conversation_id(note.meta.get("conversation_id", ""), turns), source.name, tuple(turns)
    )
    report = NoteReport(
        file=source.name,
        state="read",
        encoding=source.encoding,
        title=note.title,
        conversation=conversation.id,
        messages=len(turns),
        repaired=conversation.repaired,
        lossy=sum(bool(turn.lost) for turn in turns),
        commentary=[_remark(piece, repairs[piece].text) for piece in note.commentary],
        repairs=[
            _mended(source.name, piece, step) for piece in pieces for step in repairs[piece].steps
        ],
    )
    beside = [_beside(source, "commentary", piece, repairs[piece]) for piece in note.commentary]
    for message in note.messages:
        beside += [_beside(source, each.kind, each, repairs[each]) for each in message.nested]
    return _Read(report, conversation, tuple(beside))


def _turn(source: Source, message: Message, repair: Repair) -> Turn:
    cleaned = clean(repair.text)
    # Bytes that could not be decoded at all are lost characters too; source.text was clean UTF-8
    # unless decoding took steps.
    undecoded = message.text.count(LOST) if source.steps else 0
    origin = Origin(
        source.name,
        message.uid,
        message.start,
        message.end,
        message.role,
        (*source.steps, *map(str, repair.steps), *cleaned.steps),
    )
    return Turn(origin, cleaned.text, repair.lost + undecoded, repair.changed)


def _beside(source: Source, kind: str, piece: Piece, repair: Repair) -> Dropped:
    steps = (*source.steps, *map(str, repair.steps))
    origin = Origin(source.name, "", piece.start, piece.end, "", steps)
    return Dropped(kind, kind, kind, repair.text, origin, lossy=repair.lossy)


def _remark(piece: Piece, text: str) -> Remark:
    return Remark(
        start=piece.start,
        end=piece.end,
        characters=piece.end - piece.start,
        first_words=first_words(text),
    )


def _mended(file: str, piece: Piece, step: Step) -> Mended:
    longest = max(step.changes, key=lambda change: min(len(change.was), 160))
    return Mended(
        file=file,
        uid=piece.uid if isinstance(piece, Message) else "",
        role=piece.role if isinstance(piece, Message) else "",
        what=str(Pair(step.wrong, step.right)),
        wrong=step.wrong,
        right=step.right,
        first_line=step.changes[0].line,
        last_line=step.changes[-1].line,
        lines=len(step.changes),
        lost=step.lost,
        score_before=step.before,
        score_after=step.after,
        excerpt_before=first_words(longest.was, 320),
        excerpt_after=first_words(longest.now, 160),
    )


def _row(
    conversation: Conversation, learn: str, include_lossy: bool, script: str | None
) -> tuple[Row | None, list[Dropped]]:
    theirs = conversation.script()
    if script and theirs and theirs != script:
        cause = f"another script than {script}"
        return None, [drop(turn, conversation.id, cause, theirs) for turn in conversation.turns]
    return to_row(conversation, learn, include_lossy=include_lossy)


def _other_script(made: Made, script: str | None) -> list[Dropped]:
    if not script or made.script == script:
        return []
    cause, row = f"another script than {script}", made.row
    return [drop(turn, row.conversation, cause, made.script) for turn in row.turns]


def _with_outcome(
    reports: Sequence[NoteReport], rows: Sequence[Row], dropped: Sequence[Dropped]
) -> list[NoteReport]:
    kept = Counter(turn.origin.file for row in rows for turn in row.turns)
    left = Counter(each.origin.file for each in dropped if each.kind == MESSAGE)
    return [
        report.model_copy(update={"in_rows": kept[report.file], "dropped": left[report.file]})
        for report in reports
    ]


def _nothing(notes: Sequence[_Read], dropped: Sequence[Dropped]) -> InputError:
    """Say why there is nothing to learn: the reasons, counted."""
    if len(notes) == 1 and notes[0].report.state == "empty":
        return InputError(f"{notes[0].report.file} is empty", "Give a note with messages in it")
    reasons = Counter(each.cause for each in dropped if each.kind != "commentary")
    counted = ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common(5))
    return InputError(
        f"Nothing to learn in {count(len(notes), 'note')}: {counted}",
        "Give notes of the Obsidian plugin Nexus AI Chat Importer",
    )
