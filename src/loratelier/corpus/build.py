"""The road from sources to a corpus."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pyarrow.compute as pc

from loratelier.corpus.convert import LEARN, split, to_row, to_text_rows
from loratelier.corpus.copies import Choice, choose
from loratelier.corpus.engine import engine_of
from loratelier.corpus.folder import Corpus, content_hash, to_candidates, to_repairs, to_tables
from loratelier.corpus.formats import FORMATS
from loratelier.corpus.gather import Gathered, gather
from loratelier.corpus.hygiene import Hygiene, Washed, washed
from loratelier.corpus.hygiene.quarantine import quarantined
from loratelier.corpus.importers.telegram import Names
from loratelier.corpus.lineage import (
    COUNTED,
    MESSAGE,
    Changed,
    Conversation,
    Dropped,
    Origin,
    Row,
    check_conserved,
    check_script,
    drop,
)
from loratelier.corpus.report import NoteReport, Report, SameConversation, count
from loratelier.corpus.sources import find
from loratelier.corpus.spool import Spool
from loratelier.corpus.written import Made, check_apart
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import task

_NOT_LEARNED = {"attachment", "artifact", "prompt"}


@dataclass(frozen=True)
class Wanted:
    """What the rows are to be; see :func:`build_corpus`."""

    format: str
    learn: str
    speaker: str | None
    holdout: float
    include_lossy: bool
    script: str | None
    language: str | None
    hygiene: Hygiene


@dataclass(frozen=True)
class _Made:
    """Rows before they are split, and everything that is in none."""

    rows: Spool[Row]
    dropped: Spool[Dropped]
    conversations: int


def build_corpus(
    sources: str | Path | Sequence[str | Path],
    *,
    format: str = "chat",
    learn: str = "assistant",
    speaker: str | None = None,
    holdout: float = 0.1,
    include_lossy: bool = False,
    script: str | None = None,
    language: str | None = None,
    hygiene: Hygiene | None = None,
    engine: str = "local",
    ray_address: str | None = None,
) -> Corpus:
    """Read sources, mend their encodings, and make training rows.

    Nothing is held in memory that grows with the sources but ids and counts: conversations, rows
    and tables lie in temporary files.

    Args:
        sources: a file or a folder, or several: notes, exports, data sets, texts; recognised by
            what is in them.
        format: the shape of a row, one of :data:`~loratelier.corpus.formats.FORMATS`.
        learn: whose turns are learned: ``assistant``, or ``user`` for the person's, who then takes
            the assistant's role in the rows. Written files have no such side.
        speaker: the name (or id) of the person whose turns are learned in chats between people.
        holdout: the share of conversations kept for measuring, from 0 to below 1.
        include_lossy: keep messages whose repair lost characters.
        script: keep only conversations in this script (``Latn`` or ``Cyrl``).
        language: ``ru`` or ``en``, when the sources are known to be in one of them.
        hygiene: what cleaning may change; by default it only reports, and quarantines damaged code.
        engine: where encodings are mended and rows looked at: ``local``, or ``ray`` for Ray Data.
            The rows are the same.
        ray_address: of a Ray cluster that runs; without it a local one is begun and ended.

    Raises:
        InputError: a bad argument, a missing or unreadable path, or nothing to learn in the end.
    """
    wanted = Wanted(
        format, learn, speaker, holdout, include_lossy, script, language, hygiene or Hygiene()
    )
    _check(wanted)
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    found = find(paths)
    with engine_of(engine, ray_address) as where:
        gathered = gather(
            found, learn=learn, speaker=speaker, language=language, format=format, engine=where
        )
        _check_speaker(speaker, gathered.names)
        check_apart(gathered.written)
        messages = Spool(_places(gathered))
        choice = choose(gathered.conversations)
        made = _rows(gathered, choice, wanted)
        clean = washed(made.rows, made.dropped, wanted.hygiene, where)
    made = _Made(clean.rows, clean.dropped, made.conversations)
    check_conserved(messages, made.rows, made.dropped)
    if not len(made.rows):
        raise _nothing(gathered.reports, made.dropped)
    return _corpus(gathered, choice, made, wanted, clean)


def _check(wanted: Wanted) -> None:
    if wanted.format not in FORMATS:
        raise InputError(
            f"The format '{wanted.format}' is unknown", did_you_mean(wanted.format, FORMATS)
        )
    if wanted.learn not in LEARN:
        raise InputError(f"learn = '{wanted.learn}' is unknown", did_you_mean(wanted.learn, LEARN))
    if not 0 <= wanted.holdout < 1:
        raise InputError(
            f"holdout = {wanted.holdout} is no share", "Give a number from 0 to below 1"
        )
    check_script(wanted.script)
    wanted.hygiene.check()


def _check_speaker(speaker: str | None, names: Names) -> None:
    if speaker is None or names.knows(speaker):
        return
    often = [name for name, _ in names.counts.most_common(12)]
    if not often:
        raise InputError(
            f"The speaker '{speaker}' is in no source: none is a chat between people",
            "Leave the speaker out, or add Telegram's result.json",
        )
    raise InputError(f"Nobody in the chats is called '{speaker}'", did_you_mean(speaker, often))


def _places(gathered: Gathered) -> Iterator[Origin]:
    """Yield every message and passage that came in."""
    for one in gathered.conversations:
        yield from (turn.origin for turn in one.messages)
    for each in gathered.made:
        yield from (turn.origin for turn in each.row.turns)
    yield from (each.origin for each in gathered.beside if each.kind in COUNTED)


def _rows(gathered: Gathered, choice: Choice, wanted: Wanted) -> _Made:
    rows: Spool[Row] = Spool()
    dropped = gathered.beside
    conversations = 0
    with task("Making rows", total=len(gathered.conversations)) as bar:
        for number, one in enumerate(gathered.conversations):
            bar.advance()
            if choice.best[number] != number:
                dropped.extend(choice.copy(number, one))
                continue
            conversations += not one.is_text
            made, left = _of_one(one, wanted)
            rows.extend(made)
            dropped.extend(left)
    for each in gathered.made:
        left = _other_script(each, wanted.script)
        dropped.extend(left)
        rows.extend([] if left else [each.row])
    conversations += len({each.row.conversation for each in gathered.made})
    return _Made(rows, dropped, conversations)


def _other_script(made: Made, script: str | None) -> list[Dropped]:
    if not script or made.script == script:
        return []
    cause, row = f"another script than {script}", made.row
    return [drop(turn, row.conversation, cause, made.script) for turn in row.turns]


def _of_one(one: Conversation, wanted: Wanted) -> tuple[list[Row], list[Dropped]]:
    theirs = one.script() if wanted.script else ""
    if theirs and theirs != wanted.script:
        cause = f"another script than {wanted.script}"
        return [], [drop(turn, one.id, cause, theirs) for turn in one.messages]
    if not wanted.hygiene.include_code:
        one = quarantined(one)
    if one.is_text:
        return to_text_rows(one, include_lossy=wanted.include_lossy)
    row, left = to_row(one, wanted.learn, include_lossy=wanted.include_lossy)
    return ([row] if row else []), left


def _corpus(
    gathered: Gathered, choice: Choice, made: _Made, wanted: Wanted, clean: Washed
) -> Corpus:
    row_table, drop_table = to_tables(split(made.rows, wanted.holdout), made.dropped, wanted.format)
    candidates = to_candidates(split(made.rows, wanted.holdout))
    kinds = Counter(drop_table["kind"].to_pylist())
    reports = [_hidden(each, clean) for each in _with_outcome(gathered.reports, made)]
    held_out = int(pc.sum(pc.equal(row_table["split"], "holdout")).as_py() or 0)
    report = Report(
        hash=content_hash(row_table, drop_table, candidates),
        versions={"loratelier": version("loratelier")},
        format=wanted.format,
        learn=wanted.learn,
        speaker=wanted.speaker,
        holdout=wanted.holdout,
        include_lossy=wanted.include_lossy,
        script=wanted.script,
        conversations=made.conversations,
        messages=sum(each.messages for each in reports),
        rows=len(made.rows),
        train=len(made.rows) - held_out,
        held_out=held_out,
        messages_in_rows=sum(each.messages - each.dropped for each in reports),
        dropped=kinds[MESSAGE],
        repaired=sum(each.repaired for each in reports),
        lossy=sum(each.lossy for each in reports),
        commentary=sum(len(each.commentary) for each in reports),
        nested=sum(kinds[kind] for kind in _NOT_LEARNED),
        passages=sum(each.passages for each in reports),
        candidates=candidates.num_rows,
        broken=sum(each.broken_items for each in reports),
        tokens=[token for file in gathered.written.values() for token in file.tokens],
        cleaning=clean.note,
        reasons=dict(_reasons(made.dropped).most_common()),
        same=[
            SameConversation(kept=same.kept, left=list(same.left), times=same.times)
            for same in choice.same
        ],
        files=reports,
    )
    return Corpus(
        row_table, drop_table, report, candidates, to_repairs(_masked(gathered.changes, clean))
    )


def _masked(changes: Iterable[Changed], clean: Washed) -> Iterator[Changed]:
    """Yield changes masked as the rows are: what is hidden there must not stand here."""
    for each in changes:
        yield replace(each, was=clean.hide(each.was), now=clean.hide(each.now))


def _hidden(report: NoteReport, clean: Washed) -> NoteReport:
    """Return a file's report with its excerpts masked as the rows are."""
    repairs = [
        each.model_copy(
            update={
                "excerpt_before": clean.hide(each.excerpt_before),
                "excerpt_after": clean.hide(each.excerpt_after),
            }
        )
        for each in report.repairs
    ]
    remarks = [
        each.model_copy(update={"first_words": clean.hide(each.first_words)})
        for each in report.commentary
    ]
    title = clean.hide(report.title)
    return report.model_copy(update={"title": title, "repairs": repairs, "commentary": remarks})


def _reasons(dropped: Iterable[Dropped]) -> Counter[str]:
    return Counter(each.cause for each in dropped if each.kind == MESSAGE)


def _with_outcome(reports: Sequence[NoteReport], made: _Made) -> list[NoteReport]:
    origins = (turn.origins for row in made.rows for turn in row.turns)
    kept = Counter(origin.file for origin in chain.from_iterable(origins))
    left = Counter(each.origin.file for each in made.dropped if each.kind == MESSAGE)
    return [
        report.model_copy(update={"in_rows": kept[report.file], "dropped": left[report.file]})
        for report in reports
    ]


def _nothing(reports: Sequence[NoteReport], dropped: Iterable[Dropped]) -> InputError:
    """Say why there is nothing to learn: the reasons, counted."""
    if len(reports) == 1 and reports[0].state == "empty":
        return InputError(f"{reports[0].file} is empty", "Give a note with messages in it")
    reasons = Counter(each.cause for each in dropped if each.kind != "commentary")
    counted = ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common(5))
    return InputError(
        f"Nothing to learn in {count(len(reports), 'file')}: {counted}",
        "Give notes with messages, an export of ChatGPT, Claude or Telegram, or a data set",
    )
