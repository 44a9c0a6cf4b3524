"""From what an importer read to what rows are made of: encodings mended, marks cleaned away."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loratelier.corpus.clean import clean
from loratelier.corpus.codecs import LOST
from loratelier.corpus.convert import conversation_id
from loratelier.corpus.importers.parts import Aside, Document, Mark, Said, Thread
from loratelier.corpus.lineage import Alternative, Changed, Conversation, Dropped, Origin, Turn
from loratelier.corpus.repair import Repair, Step, repair_texts
from loratelier.corpus.report import Mended, Remark, first_words
from loratelier.corpus.segment import passages

TEXT = "text"  # the role of a passage that nobody says


@dataclass(frozen=True)
class Ready:
    """One conversation or text after mending, what stands beside it, and what was done."""

    conversation: Conversation | None
    beside: tuple[Dropped, ...] = ()
    commentary: tuple[Remark, ...] = ()
    repairs: tuple[Mended, ...] = ()
    changes: tuple[Changed, ...] = ()


def mend_thread(file: str, thread: Thread, language: str | None) -> Ready:
    """Mend a conversation.

    All its texts are mended together: what one cannot prove another can.
    """
    pieces = _pieces(thread)
    texts = [piece.text for piece in pieces]
    repairs = dict(zip(pieces, repair_texts(texts, language=language), strict=True))
    turns = {piece: _turn(file, piece, repairs[piece]) for piece in pieces if piece.role}
    places = {message: number for number, message in enumerate(thread.messages)}
    main = tuple(turns[message] for message in thread.messages)
    conversation = Conversation(
        id=conversation_id(thread.id, main),
        file=file,
        turns=main,
        alternatives=tuple(
            Alternative(places[other.of], tuple(turns[one] for one in other.said), other.how)
            for other in thread.others
        ),
        versions=thread.versions,
        joint=thread.joint,
        learn=thread.learn,
        refused=thread.refused,
        kind=thread.kind,
        provider=thread.provider,
    )
    return Ready(
        conversation if main else None,
        tuple(
            _beside(file, aside, repairs[aside.said], conversation.id) for aside in thread.asides
        ),
        tuple(
            _remark(aside.said, repairs[aside.said].text)
            for aside in thread.asides
            if aside.kind == "commentary"
        ),
        tuple(_mended(file, piece, step) for piece in pieces for step in repairs[piece].steps),
        tuple(each for piece in pieces for each in _changed(file, piece, repairs[piece])),
    )


def mend_document(file: str, document: Document, language: str | None) -> Ready:
    """Cut a text into passages and mend them together."""
    spans = passages(document.text, document.body)
    pieces = [
        Said(
            document.text[start:end],
            TEXT,
            item=_item(document.marks, start),
            start=start,
            end=end,
            lost=document.text.count(LOST, start, end) if document.lost else 0,
            steps=document.steps,
        )
        for start, end in spans
    ]
    repairs = repair_texts([piece.text for piece in pieces], language=language)
    turns = tuple(_turn(file, piece, repair) for piece, repair in zip(pieces, repairs, strict=True))
    front = document.text[: document.body].strip()
    origin = Origin(file, "", 0, document.body, "", document.steps)
    apart = Dropped("front matter", "front matter", "front matter", front, origin)
    beside = (apart,) if front else ()
    if not turns:
        return Ready(None, beside)
    conversation = Conversation(
        conversation_id("", turns), file, turns, kind=document.kind, is_text=True
    )
    made = tuple(zip(pieces, repairs, strict=True))
    return Ready(
        conversation,
        beside,
        repairs=tuple(
            _mended(file, piece, step) for piece, repair in made for step in repair.steps
        ),
        changes=tuple(each for piece, repair in made for each in _changed(file, piece, repair)),
    )


def _item(marks: Sequence[Mark], start: int) -> str:
    """Return the last place that begins at or before ``start``."""
    found = ""
    for mark in marks:
        if mark.start > start:
            break
        found = mark.item
    return found


def _pieces(thread: Thread) -> list[Said]:
    """Return every text of a conversation once."""
    others = (one for other in thread.others for one in other.said)
    asides = (aside.said for aside in thread.asides)
    return list(dict.fromkeys((*thread.messages, *others, *asides)))


def _turn(file: str, piece: Said, repair: Repair) -> Turn:
    cleaned = clean(repair.text)
    drawn = len(repair.unreadable)
    doubts = (f"{drawn} lines of drawn letters, as in a PDF without a text map",) if drawn else ()
    steps = (*piece.steps, *map(str, repair.steps), *doubts, *cleaned.steps)
    return Turn(
        _origin(file, piece, steps),
        cleaned.text,
        # Bytes that could not be decoded at all are lost characters too.
        repair.lost + piece.lost,
        repair.changed,
        fault=piece.fault,
    )


def _origin(file: str, piece: Said, steps: tuple[str, ...]) -> Origin:
    return Origin(file, piece.uid, piece.start, piece.end, piece.role, steps, piece.item)


def _beside(file: str, aside: Aside, repair: Repair, conversation: str) -> Dropped:
    steps = (*aside.said.steps, *map(str, repair.steps))
    reason = f"{aside.cause}: {aside.detail}" if aside.detail else aside.cause
    return Dropped(
        aside.kind,
        aside.cause,
        reason,
        repair.text,
        _origin(file, aside.said, steps),
        conversation,
        lossy=repair.lossy or bool(aside.said.lost),
    )


def _remark(piece: Said, text: str) -> Remark:
    start, end = piece.start or 0, piece.end or 0
    return Remark(start=start, end=end, characters=end - start, first_words=first_words(text))


def _changed(file: str, piece: Said, repair: Repair) -> Iterator[Changed]:
    for number, step in enumerate(repair.steps):
        for change in step.changes:
            yield Changed(
                file=file,
                uid=piece.uid,
                item=piece.item,
                start=piece.start,
                role=piece.role,
                step=number,
                what=step.what,
                line=change.line,
                was=change.was,
                now=change.now,
            )


def _mended(file: str, piece: Said, step: Step) -> Mended:
    longest = max(step.changes, key=lambda change: min(len(change.was), 160))
    return Mended(
        file=file,
        uid=piece.uid,
        role=piece.role,
        what=step.what,
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
