"""EPUB books: a zip of pages, in the order of the book's spine."""

import posixpath
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote

from loratelier.corpus.importers import html
from loratelier.corpus.importers.blobs import ZIP_ERRORS
from loratelier.corpus.importers.parts import Broken, Document, Mark, Part, Unread

_CHAPTER = 64 << 20  # bytes; a larger chapter is no chapter


def is_book(names: set[str]) -> bool:
    """Say whether an archive with these members is a book."""
    return "META-INF/container.xml" in names


def read(archive: zipfile.ZipFile) -> Iterator[Part]:
    """Yield the book as one text, and what of it could not be read."""
    try:
        title, chapters = _spine(archive)
    except (*ZIP_ERRORS, ET.ParseError, KeyError) as error:
        yield Unread(f"a damaged book ({str(error)[:100]})")
        return
    locked = _locked(archive)
    if locked & set(chapters):
        yield Unread("a book protected by DRM: its chapters are encrypted")
        return
    marks: list[Mark] = []
    pieces: list[str] = []
    length = 0
    for chapter in chapters:
        try:
            text, _ = html.words(_member(archive, chapter).decode("utf-8", errors="replace"))
        except (*ZIP_ERRORS, KeyError) as error:
            yield Broken(chapter, f"a chapter that cannot be read ({str(error)[:100]})")
            continue
        if text:
            marks.append(Mark(length, chapter))
            pieces.append(text)
            length += len(text) + 2
    if not pieces:
        yield Unread("a book without text")
        return
    yield Document(kind="book", text="\n\n".join(pieces), title=title, marks=tuple(marks))


def _spine(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """Return the title and the names of the chapters, in reading order.

    Raises:
        KeyError: a member or an attribute that a book must have is missing.
    """
    container = ET.fromstring(_member(archive, "META-INF/container.xml"))
    root = next((each for each in container.iter() if _tag(each) == "rootfile"), None)
    if root is None:
        raise KeyError("no rootfile")
    package = root.attrib["full-path"]
    book = ET.fromstring(_member(archive, package))
    base = posixpath.dirname(package)
    files: dict[str, str] = {}
    for each in book.iter():
        if _tag(each) == "item" and "nav" not in each.get("properties", "").split():
            href = unquote(each.get("href", ""))
            files[each.get("id", "")] = posixpath.normpath(posixpath.join(base, href))
    order = [each.get("idref", "") for each in book.iter() if _tag(each) == "itemref"]
    title = next((each.text or "" for each in book.iter() if _tag(each) == "title"), "")
    return title.strip(), [files[name] for name in dict.fromkeys(order) if name in files]


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """Return the members that are encrypted; fonts often are, without harm to the text."""
    try:
        listed = ET.fromstring(_member(archive, "META-INF/encryption.xml"))
    except (*ZIP_ERRORS, ET.ParseError, KeyError):
        return set()
    found = (each.get("URI", "") for each in listed.iter() if _tag(each) == "CipherReference")
    return {unquote(uri) for uri in found}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > _CHAPTER:
        raise KeyError(f"{name} is too large")
    with archive.open(info) as stream:
        return stream.read(_CHAPTER + 1)


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
