"""Notes and plain texts: Nexus notes give a conversation, any other note is a text."""

import re

from loratelier.corpus import nexus
from loratelier.corpus.codecs import LOST
from loratelier.corpus.importers.parts import Aside, Document, Said, Thread
from loratelier.corpus.sources import Decoded

KIND = "Nexus note"
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def read(decoded: Decoded) -> Thread | Document:
    """Cut a Nexus note into its messages, or take the file as a text."""
    text = decoded.text
    note = nexus.parse(text)
    if note.messages:
        return _conversation(note, decoded)
    front = _FRONT.match(text)
    body = front.end() if front else 0
    title = _TITLE.search(front[1]) if front else None
    heading = _HEADING.search(text, body)
    named = title[1].strip().strip("\"'") if title else heading[1].strip() if heading else ""
    return Document(
        kind="note",
        text=text,
        title=named,
        body=body,
        encoding=decoded.encoding,
        steps=decoded.steps,
        lost=bool(decoded.steps),
    )


def is_text(text: str) -> bool:
    """Say whether a decoded file is something that people read: hardly any control characters."""
    return 50 * len(_CONTROL.findall(text)) <= len(text)


def _conversation(note: nexus.Note, decoded: Decoded) -> Thread:
    steps = decoded.steps
    messages = tuple(_message(message, steps) for message in note.messages)
    asides = [Aside(_piece(each, steps), "commentary", "commentary") for each in note.commentary]
    for message in note.messages:
        asides += [Aside(_piece(each, steps), each.kind, each.kind) for each in message.nested]
    return Thread(
        kind=KIND,
        id=note.meta.get("conversation_id", ""),
        title=note.title,
        provider=note.meta.get("provider", "").strip().lower(),
        encoding=decoded.encoding,
        messages=messages,
        asides=tuple(asides),
        versions=True,
    )


def _message(message: nexus.Message, steps: tuple[str, ...]) -> Said:
    return Said(
        message.text,
        message.role,
        uid=message.uid,
        start=message.start,
        end=message.end,
        lost=message.text.count(LOST) if steps else 0,
        steps=steps,
    )


def _piece(piece: nexus.Piece, steps: tuple[str, ...]) -> Said:
    return Said(piece.text, "", start=piece.start, end=piece.end, steps=steps)
