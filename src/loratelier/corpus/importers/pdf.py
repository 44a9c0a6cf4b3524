"""PDF files with a text layer; one whose letters are not letters is found out and said.

A PDF draws glyphs. Which letter a glyph means stands in the font's ToUnicode table or its encoding;
where both are missing, copied text is garbage that no re-encoding mends.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pypdf import PdfReader
from pypdf.generic import DictionaryObject

from loratelier.corpus.importers.parts import Broken, Document, Mark, Part, Unread, plain
from loratelier.corpus.language import model

MAGIC = b"%PDF-"
_ODD_SHARE = 0.05  # of characters that no text layer has: private use, controls, U+FFFD
# Nats a letter below which text of a suspicious font is no language: prose of Russian and English
# stands above -3, of other languages in Latin and Cyrillic letters above -4.5.
_NO_LANGUAGE = -4.6
_LETTERS_KNOWN = frozenset({"/WinAnsiEncoding", "/MacRomanEncoding", "/StandardEncoding"})
_EMBEDDED = frozenset({"/FontFile", "/FontFile2", "/FontFile3"})


@dataclass(frozen=True)
class _Page:
    number: int
    text: str
    suspicious: bool


def read(stream: BinaryIO) -> Iterator[Part]:
    """Yield the pages' words as one text, what is broken, and why there is nothing else."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its warnings are ours to say
    try:
        reader = PdfReader(stream, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            yield Unread("a PDF locked with a password")
            return
        count = len(reader.pages)
        title = _title(reader)
    except Exception as error:  # pypdf raises whatever a damaged file leads it into
        yield Unread(f"a damaged PDF ({_why(error)})")
        return
    pages: list[_Page] = []
    for number in range(count):
        try:
            page = reader.pages[number]
            pages.append(_Page(number + 1, plain(page.extract_text()), _no_letters(page)))
        except Exception as error:  # as above; the other pages may be whole
            yield Broken(f"page {number + 1}", f"a page that cannot be read ({_why(error)})")
    yield from _told(pages, title)


def _told(pages: list[_Page], title: str) -> Iterator[Part]:
    written = [page for page in pages if page.text.strip()]
    if not written:
        yield Unread("a PDF without a text layer (a scan?): recognise its text (OCR) first")
        return
    good = [page for page in written if not _is_garbage(page)]
    for page in written:
        if page not in good:
            yield Broken(
                f"page {page.number}",
                "a garbage text layer: its fonts do not say which letters they draw (no ToUnicode)",
                page.text[:300],
            )
    if not good:
        yield Unread(
            "a PDF with a garbage text layer (fonts without ToUnicode): recognise its text (OCR)"
        )
        return
    marks: list[Mark] = []
    pieces: list[str] = []
    length = 0
    for page in good:
        marks.append(Mark(length, f"page {page.number}"))
        pieces.append(page.text.strip())
        length += len(pieces[-1]) + 1
    yield Document(kind="PDF", text="\n".join(pieces), title=title, marks=tuple(marks))


def _is_garbage(page: _Page) -> bool:
    text = "".join(page.text.split())
    odd = sum(char == "\ufffd" or not char.isprintable() for char in text)
    odd += 5 * text.count("(cid:")
    if odd > _ODD_SHARE * len(text):
        return True
    return page.suspicious and _letters(page.text) < _NO_LANGUAGE


def _letters(text: str) -> float:
    """Return how likely the letters of a text are, in nats a letter."""
    scores = model(None).per_character(text)
    told = [float(score) for char, score in zip(text, scores, strict=True) if char.isalnum()]
    return sum(told) / len(told) if told else 0.0


def _no_letters(page: Any) -> bool:
    """Say whether a font of the page lacks every table that tells letters from glyphs."""
    resources = page.get("/Resources")
    fonts = resources.get_object().get("/Font") if resources is not None else None
    if fonts is None:
        return False
    return any(_is_mute(font.get_object()) for font in fonts.get_object().values())


def _is_mute(font: Any) -> bool:
    if not isinstance(font, DictionaryObject) or "/ToUnicode" in font:
        return False
    encoding = font.get("/Encoding")
    encoding = encoding.get_object() if encoding is not None else None
    if font.get("/Subtype") == "/Type0":
        return True
    # A font that is not embedded is one of the standard ones, whose letters are known.
    about = font.get("/FontDescriptor")
    about = about.get_object() if about is not None else None
    embedded = isinstance(about, DictionaryObject) and bool(about.keys() & _EMBEDDED)
    return embedded and encoding not in _LETTERS_KNOWN


def _title(reader: PdfReader) -> str:
    told = reader.metadata
    return plain(str(told.title or "")).strip() if told else ""


def _why(error: Exception) -> str:
    return plain(f"{type(error).__name__}: {error}".split("\n")[0][:120])
