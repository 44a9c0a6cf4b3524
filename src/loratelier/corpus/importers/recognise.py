"""What a file is, told by its content, and which importer reads it."""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from loratelier.corpus.importers import epub, html, items, jsonstream, notes, pdf, tables, telegram
from loratelier.corpus.importers.blobs import (
    HEAD,
    ZIP_ERRORS,
    Blob,
    members,
    utf8,
)
from loratelier.corpus.importers.parts import Broken, Document, Part, Unread, Written
from loratelier.corpus.sources import Decoded, decode, unicode_form
from loratelier.corpus.written import is_written

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
# White space as JSON has it: a form feed before a bracket makes it a text.
_ARRAY = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*(?:\{[ \t\r\n]*(?:[\"}]|\Z)|\Z)")
_OBJECT = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*(?:\"|\}|\Z)")
_XML = re.compile(rb"\s*<(?:\?xml|svg|rss|feed)\b", re.I)
_TEXT = 256 << 20  # bytes of a text, which is read whole
_LINE = 64 << 20  # bytes of a first line by which lines of JSON are told

_KNOWN_BINARY = (
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"OggS", "a sound file (Ogg)"),
    (b"ID3", "a sound file (MP3)"),
    (b"SQLite format 3\0", "a database (SQLite)"),
    (b"\xd0\xcf\x11\xe0", "an old Office document: save it as text"),
    (b"{\\rtf", "an RTF document: save it as text"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
)


@dataclass(frozen=True)
class Settings:
    """What importers must know: whose turns are learned, and the language if it is known."""

    speaker: str | None = None
    owner_speaks: bool = False
    language: str | None = None
    names: telegram.Names = field(default_factory=telegram.Names)


@dataclass(frozen=True)
class FileParts:
    """A file or an archive's member, and what is in it; ``parts`` is read as it is walked."""

    name: str
    parts: Iterable[Part]


def read(blob: Blob, settings: Settings) -> Iterator[FileParts]:
    """Yield a file's content; an archive gives one entry a member.

    Never raises for what the bytes are.

    Raises:
        InputError: the system does not let us read the file.
    """
    head = blob.head()
    if head.startswith(_ZIP):
        yield from _archive(blob, settings)
        return
    yield FileParts(blob.name, _content(blob, head, settings))


def _archive(blob: Blob, settings: Settings) -> Iterator[FileParts]:
    with blob.open() as stream:
        try:
            archive = zipfile.ZipFile(stream)
            inside = list(members(archive, blob.name))
            names = set(archive.namelist())
        except ZIP_ERRORS as error:
            why = f"a damaged archive ({str(error)[:100]})"
            yield FileParts(blob.name, [Unread(why)])
            return
        if epub.is_book(names):
            yield FileParts(blob.name, epub.read(archive))
        elif {"[Content_Types].xml", "content.xml"} & names:
            why = "an Office document: save it as text, HTML or PDF"
            yield FileParts(blob.name, [Unread(why)])
        else:
            for member in inside:
                yield FileParts(member.name, _member(member, settings))


def _member(member: Blob, settings: Settings) -> Iterator[Part]:
    try:
        head = member.head()
        if head.startswith(_ZIP):
            yield Unread("an archive inside an archive: unpack it first")
        else:
            yield from _content(member, head, settings)
    except ZIP_ERRORS as error:
        yield Broken("", f"the archive is damaged here ({str(error)[:100]})")


def _content(blob: Blob, head: bytes, settings: Settings) -> Iterator[Part]:
    if not head.strip() and len(head) < HEAD:
        yield Unread("empty")
    elif pdf.MAGIC in head[:1024]:
        with blob.open() as stream:
            yield from pdf.read(stream)
    elif head.startswith(tables.MAGIC):
        yield from items.read(tables.rows(blob))
    else:
        yield from _text_or_json(blob, head, settings)


def _text_or_json(blob: Blob, head: bytes, settings: Settings) -> Iterator[Part]:
    known = next((what for magic, what in _KNOWN_BINARY if head.startswith(magic)), "")
    if known or head.startswith(_EMPTY_ZIP):
        yield Unread(known or "an empty archive")
        return
    encoding = unicode_form(head)
    if encoding is None and b"\0" in head:
        yield Unread("a binary file, not text")
        return
    start = head if encoding is None else head.decode(encoding, errors="replace").encode()
    if is_written(start.decode("utf-8", errors="replace")):
        yield Written(decode(blob.read(), settings.language))
    elif _ARRAY.match(start) or _OBJECT.match(start):
        yield from _json(blob, head, start, settings)
    else:
        yield _text(blob, start, settings)


def _json(blob: Blob, head: bytes, start: bytes, settings: Settings) -> Iterator[Part]:
    in_array = _ARRAY.match(start) is not None
    with utf8(blob.open(), head) as stream:
        if telegram.is_export(start) and not in_array:
            yield from telegram.read(
                stream,
                speaker=settings.speaker,
                owner_speaks=settings.owner_speaks,
                names=settings.names,
            )
            return
        if in_array or not _is_lines(blob, head):
            found = jsonstream.values(stream, in_array=in_array, accept=items.is_known)
        else:
            found = jsonstream.lines(stream)
        yield from _or_text(blob, start, settings, items.read(found))


def _or_text(blob: Blob, start: bytes, settings: Settings, parts: Iterator[Part]) -> Iterator[Part]:
    """Yield the parts; what only began like JSON (a note in brackets) is a text after all."""
    first = next(parts, None)
    if isinstance(first, Unread) and first.why.startswith("broken: ") and not _looks_coded(start):
        yield _text(blob, start, settings)
        return
    yield from () if first is None else (first,)
    yield from parts


def _looks_coded(start: bytes) -> bool:
    """Say whether a text is full of keys, as JSON is and no note."""
    return len(re.findall(rb"\"\s*:", start[:4096])) >= 2


def _is_lines(blob: Blob, head: bytes) -> bool:
    """Say whether the first line is a JSON value of its own."""
    with utf8(blob.open(), head) as stream:
        line = stream.readline(_LINE)
        while line and not line.strip():
            line = stream.readline(_LINE)
    try:
        json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return False
    return True


def _text(blob: Blob, start: bytes, settings: Settings) -> Part:
    is_page = html.is_page(start)
    elsewhere = html.known_viewer(start) if is_page else ""
    if elsewhere or (_XML.match(start) and not is_page):
        return Unread(elsewhere or "XML of no known kind")
    if blob.size > _TEXT:
        return Unread(f"a text of more than {_TEXT >> 20} MiB: cut it up first")
    declared = html.charset(start) if is_page else ""
    decoded = decode(blob.read(), settings.language, declared=declared)
    if not decoded.text.strip():
        return Unread("empty")
    if "\0" in decoded.text or not notes.is_text(decoded.text):
        return Unread("a binary file, not text")
    return _page(decoded) if is_page else notes.read(decoded)


def _page(decoded: Decoded) -> Part:
    text, title = html.words(decoded.text)
    if not text:
        return Unread("a page without words")
    return Document(
        kind="page",
        text=text,
        title=title,
        encoding=decoded.encoding,
        steps=decoded.steps,
        lost=bool(decoded.steps),
    )
