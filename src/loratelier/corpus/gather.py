"""All sources read and mended, one conversation after the other, with a report for each file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from loratelier.corpus import importers
from loratelier.corpus.engine import Engine
from loratelier.corpus.importers.blobs import file_blob
from loratelier.corpus.importers.parts import Broken, Document, Part, Thread, Unread, Written
from loratelier.corpus.importers.telegram import Names
from loratelier.corpus.lineage import MESSAGE, Changed, Conversation, Dropped, Origin
from loratelier.corpus.mend import Ready, mend_document, mend_thread
from loratelier.corpus.report import NAMED, BrokenItem, NoteReport
from loratelier.corpus.sources import Found
from loratelier.corpus.spool import Spool
from loratelier.corpus.written import Made, WrittenFile, read_written, written_rows
from loratelier.kit.progress import Bar, task

NO_MESSAGES = "no messages found"
# Formats whose rows are running text: they take texts without messages too.
TEXT_FORMATS = frozenset({"raw", "markdown"})


@dataclass
class Gathered:
    """What the sources hold; conversations and what stands beside them go to disk when large.

    ``written`` files by name have rows at once, ``made``. ``names`` knows who wrote in the chats
    between people.
    """

    conversations: Spool[Conversation] = field(default_factory=Spool)
    beside: Spool[Dropped] = field(default_factory=Spool)
    made: Spool[Made] = field(default_factory=Spool)
    written: dict[str, WrittenFile] = field(default_factory=dict)
    reports: list[NoteReport] = field(default_factory=list)
    names: Names = field(default_factory=Names)
    changes: Spool[Changed] = field(default_factory=Spool)


def gather(
    found: Sequence[Found],
    *,
    learn: str,
    speaker: str | None,
    language: str | None,
    format: str,
    engine: Engine,
) -> Gathered:
    """Read and mend all sources.

    Args:
        found: the files.
        learn: whose turns are learned, ``assistant`` or ``user``.
        speaker: whose turns are learned in chats between people.
        language: ``ru`` or ``en`` when it is known.
        format: the shape of rows; texts without messages are read for :data:`TEXT_FORMATS`.
        engine: where encodings are mended.

    Raises:
        InputError: the system does not let us read a file, or one of scenes or structures is wrong.
    """
    gathered = Gathered()
    settings = importers.Settings(speaker, learn == "user", language, gathered.names)
    mend = partial(_Mend, language, format)
    with task("Reading sources", total=sum(each.path.stat().st_size for each in found)) as bar:
        readers: list[_File] = []
        for step in engine.map(mend, _steps(found, settings, bar)):
            if step.part is None:
                readers.append(_File(gathered, step.file, format))
            else:
                readers[-1].take(step)
    gathered.reports = [each.report() for each in readers]
    return gathered


@dataclass(frozen=True)
class _Step:
    """A part of a file, and what mending made of it; no part where the file begins."""

    file: str
    part: Part | None
    ready: Ready | None = None


def _steps(found: Sequence[Found], settings: importers.Settings, bar: Bar) -> Iterator[_Step]:
    for each in found:
        bar.say(each.name)
        for file in importers.read(file_blob(each.path, each.name, bar.advance), settings):
            yield _Step(file.name, None)
            yield from (_Step(file.name, part) for part in file.parts)


class _Mend:
    """Mends what a step holds; the texts themselves are not needed after that."""

    def __init__(self, language: str | None, format: str) -> None:
        self._language = language
        self._texts = format in TEXT_FORMATS

    def __call__(self, step: _Step) -> _Step:
        """Return the step with its part mended."""
        if isinstance(step.part, Thread):
            ready = mend_thread(step.file, step.part, self._language)
            return _Step(step.file, replace(step.part, messages=(), asides=(), others=()), ready)
        if isinstance(step.part, Document) and self._texts:
            ready = mend_document(step.file, step.part, self._language)
            return _Step(step.file, replace(step.part, text=""), ready)
        return step


@dataclass(frozen=True)
class _Looks:
    """What a file's first part is."""

    kind: str
    encoding: str
    title: str


class _File:
    """One file while its parts come."""

    def __init__(self, into: Gathered, name: str, format: str) -> None:
        self._into = into
        self._name = name
        self._format = format
        self._counts: Counter[str] = Counter()
        self._first: _Looks | None = None
        self._conversation = ""
        self._unread = ""
        self._broken: list[BrokenItem] = []
        self._ready: list[Ready] = []  # without their conversations: what the report tells

    def take(self, step: _Step) -> None:
        """Take the next part of the file."""
        part = step.part
        if isinstance(part, Thread | Document):
            self._look(part.kind, part.encoding, part.title)
            if step.ready is not None:
                self._keep(step.ready)
            elif isinstance(part, Document):
                self._leave_text(part)
        elif isinstance(part, Written):
            self._write(part)
        elif isinstance(part, Broken):
            self._item(part)
        elif isinstance(part, Unread):
            self._leave(part)

    def _look(self, kind: str, encoding: str, title: str) -> None:
        self._first = self._first or _Looks(kind, encoding, title)

    def report(self) -> NoteReport:
        """Return what became of the file so far."""
        first = self._first or _Looks("", "", "")
        alone = self._counts["parts"] == 1
        return NoteReport(
            file=self._name,
            state=self._state(),
            kind=first.kind,
            encoding=first.encoding,
            title=first.title if alone else "",
            conversation=self._conversation if alone else "",
            conversations=self._counts["conversations"],
            messages=self._counts["messages"],
            passages=self._counts["passages"],
            repaired=self._counts["repaired"],
            lossy=self._counts["lossy"],
            commentary=[each for ready in self._ready for each in ready.commentary],
            repairs=[each for ready in self._ready for each in ready.repairs],
            broken_items=self._counts["broken"],
            broken=self._broken,
        )

    def _state(self) -> str:
        if self._counts["messages"] or self._counts["passages"]:
            return "read"
        if self._first:
            return NO_MESSAGES
        return self._unread or "nothing could be read"

    def _keep(self, ready: Ready) -> None:
        self._counts["parts"] += 1
        self._into.beside.extend(ready.beside)
        self._into.changes.extend(ready.changes)
        aside = sum(each.kind == MESSAGE for each in ready.beside)
        self._counts["messages"] += aside
        one = ready.conversation
        if one is not None:
            self._into.conversations.append(one)
            self._conversation = one.id
            self._counts["passages" if one.is_text else "messages"] += len(one.messages)
            self._counts["conversations"] += not one.is_text
            self._counts["repaired"] += one.repaired
            self._counts["lossy"] += sum(bool(turn.lost) for turn in one.messages)
        if ready.commentary or ready.repairs:
            self._ready.append(Ready(None, (), ready.commentary, ready.repairs))

    def _leave_text(self, document: Document) -> None:
        self._counts["parts"] += 1
        item = document.marks[0].item if document.marks else ""
        reason = f"no messages in this {document.kind}"
        self._drop("note", reason, document.text, item, document.steps)

    def _write(self, part: Written) -> None:
        """Take a written file: its rows stand in it."""
        file = read_written(part.text.text, self._name)
        self._look("written", part.text.encoding, file.title)
        self._counts["parts"] += 1
        made = written_rows(file, self._name, part.text.steps, self._format)
        self._into.written[self._name] = file
        self._into.made.extend(made)
        self._counts["messages"] += sum(len(each.row.turns) for each in made)

    def _item(self, broken: Broken) -> None:
        self._counts["broken"] += 1
        if len(self._broken) < NAMED:
            self._broken.append(BrokenItem(item=broken.item, reason=broken.reason))
        self._drop("item", f"a broken item: {broken.reason}", broken.excerpt, broken.item)

    def _leave(self, unread: Unread) -> None:
        self._unread = unread.why
        is_empty = unread.why == "empty"
        kind, reason = ("note", "an empty note") if is_empty else ("file", unread.why)
        self._drop(kind, reason, "", "")

    def _drop(
        self, kind: str, reason: str, text: str, item: str, steps: tuple[str, ...] = ()
    ) -> None:
        end = len(text) if kind == "note" else None
        origin = Origin(self._name, "", None if end is None else 0, end, "", steps, item)
        self._into.beside.append(Dropped(kind, reason, reason, text, origin))
