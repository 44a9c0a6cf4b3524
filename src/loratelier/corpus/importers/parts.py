"""What an importer hands over: conversations, texts, and what it could not read.

Importers say what a source holds and no more: which turns are learned, what is mended and cut is
decided after them, so every source goes the same way.
"""

from dataclasses import dataclass
from typing import Any

from loratelier.corpus.codecs import LOST
from loratelier.corpus.sources import Decoded

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

REGENERATED, REWORDED, LABELLED = "regenerated", "reworded", "labelled"


@dataclass(frozen=True, eq=False)
class Said:
    """One message as its source has it.

    ``item`` is where it stands in a structured file, as a JSON pointer (RFC 6901); ``start`` and
    ``end`` count characters of a text file. ``lost`` counts characters that could not be decoded.
    ``fault`` says why it cannot be learned although it stands in the dialogue: what answers it
    cannot stand without it. Compared by identity: two messages may say the same.
    """

    text: str
    role: str
    uid: str = ""
    item: str = ""
    start: int | None = None
    end: int | None = None
    lost: int = 0
    steps: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Aside:
    """What is no turn of the dialogue: a tool's message, an attachment, commentary.

    ``kind`` ``message`` marks what the source calls a message; ``cause`` says why it is left out.
    """

    said: Said
    kind: str
    cause: str
    detail: str = ""


@dataclass(frozen=True)
class Other:
    """What else was said in the place of ``of`` and what belongs to it, in order.

    ``how``: ``regenerated``, ``reworded`` (the person's edit) or ``labelled`` (a data set says that
    it is worse). It may hold messages of the main line that both versions share.
    """

    of: Said
    said: tuple[Said, ...]
    how: str = REGENERATED


@dataclass(frozen=True)
class Thread:
    """One conversation.

    ``versions``: neighbours of one role are versions of one turn and the last counts (notes flatten
    branches by time); otherwise they are parts of one turn, put together with ``joint``. ``learn``
    names the role to learn where the source decides it. ``refused`` says why none of it can be
    learned.
    """

    kind: str
    messages: tuple[Said, ...]
    id: str = ""
    title: str = ""
    encoding: str = "utf-8"
    provider: str = ""
    asides: tuple[Aside, ...] = ()
    others: tuple[Other, ...] = ()
    versions: bool = False
    joint: str = "\n\n"
    learn: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Mark:
    """From ``start`` on, a document's text comes from this place (a chapter, a page)."""

    start: int
    item: str


@dataclass(frozen=True)
class Document:
    """A text that is no dialogue. Spans count characters of ``text``, learned from ``body`` on.

    What stands before ``body`` is front matter: read, and not learned.
    """

    kind: str
    text: str
    title: str = ""
    body: int = 0
    marks: tuple[Mark, ...] = ()
    encoding: str = "utf-8"
    steps: tuple[str, ...] = ()
    lost: bool = False


@dataclass(frozen=True)
class Written:
    """A file of scenes or structures of thought: written for us, so its faults are told at once."""

    text: Decoded


@dataclass(frozen=True)
class Broken:
    """One item that could not be read, while the rest of its file was."""

    item: str
    reason: str
    excerpt: str = ""


@dataclass(frozen=True)
class Unread:
    """A file that gives nothing, and why."""

    why: str


Part = Thread | Document | Written | Broken | Unread


def said(text: str, role: str, *, uid: Any = "", item: str = "", fault: str = "") -> Said:
    """Make a message of a structured file.

    Half of a surrogate pair, which JSON can spell and no text can hold, becomes U+FFFD.
    """
    whole = plain(text)
    lost = 0
    steps: tuple[str, ...] = ()
    if whole is not text:
        lost = whole.count(LOST) - text.count(LOST)
        steps = (f"{lost} halves of characters became U+FFFD",) if lost else ()
    return Said(whole, role, uid=word(uid), item=item, lost=lost, steps=steps, fault=fault)


def plain(text: str) -> str:
    """Return a text that can be written as UTF-8; the same object when it already can."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def word(value: Any) -> str:
    """Return a string or a number as text, and anything else as an empty one."""
    if isinstance(value, str):
        return plain(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object as it is, and anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return a JSON array as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else []
