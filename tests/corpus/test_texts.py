"""Texts without messages: notes, pages, books, PDFs; what is recognised, kept apart and said."""

import pytest

from loratelier.corpus.segment import LONGEST, passages
from loratelier.kit.errors import InputError
from tests.corpus.corpus_texts import ENGLISH, RUSSIAN
from tests.corpus.exports import archive, build, dropped, save, talk
from tests.corpus.pdfs import LATIN, glyphs, latin, numbered, pdf


@pytest.fixture
def raw():
    """Build rows of plain text."""
    return lambda source, **options: build(source, format="raw", **options)


def texts(corpus):
    return [row["text"] for row in corpus.rows.to_pylist()]


NOTE = """---
title: "Заметка о море"
tags: [море]
---

# Море

Вода холодная, см. [[Берег|другую заметку]].

## Вечер

Стало тихо.
"""


def test_a_plain_note_is_text_and_its_front_matter_is_read_not_learned(tmp_path, raw):
    corpus = raw(save(tmp_path, "note", NOTE))
    (row,) = corpus.rows.to_pylist()
    assert row["messages"] is None
    assert row["text"] == (
        "# Море\n\nВода холодная, см. другую заметку.\n\n## Вечер\n\nСтало тихо."
    )
    (origin,) = row["lineage"]
    assert NOTE[origin["start"] : origin["end"]].startswith("# Море")
    assert NOTE[origin["start"] : origin["end"]].endswith("Стало тихо.")
    assert "tags: [море]" in next(iter(dropped(corpus, "front matter")))
    (note,) = corpus.report.files
    assert (note.title, note.kind, note.passages, note.state) == (
        "Заметка о море",
        "note",
        1,
        "read",
    )


def test_texts_give_no_chat_rows_and_that_is_said(tmp_path):
    save(tmp_path, "note.md", NOTE)
    save(tmp_path, "page.html", "<html><body><p>Words</p></body></html>")
    save(tmp_path, "talk.json", [talk("a", "Q", "A")])
    corpus = build(tmp_path)
    assert dropped(corpus, "note") == {
        NOTE: "no messages in this note",
        "Words": "no messages in this page",
    }
    assert corpus.report.passages == 0


def test_long_texts_are_cut_between_paragraphs_and_nothing_is_lost(tmp_path, raw):
    paragraphs = [f"{number}. " + " ".join(RUSSIAN) for number in range(30)]
    text = "\n\n".join(paragraphs) + "\n\n" + "x" * (2 * LONGEST + 10) + "\r\n\r\nКонец."
    corpus = raw(save(tmp_path, "book.txt", text.encode("utf-8")))
    found = texts(corpus)
    assert len(found) > 3
    assert all(len(each) <= LONGEST for each in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert sum(each.count("Экзамен перенесли") for each in found) == 30
    assert found[0].startswith("0. ") and found[1].split(".")[0].isdecimal()


def test_passages_begin_at_headings_and_cut_long_paragraphs_between_sentences():
    section = " ".join(ENGLISH) + "\n\n"
    text = "# One\n\n" + section * 8 + "# Two\n\n" + section
    (first, second) = passages(text)
    assert text[slice(*first)].startswith("# One")
    assert text[slice(*second)].startswith("# Two")
    long = "A sentence that ends. " * 1000
    assert all(long[start:end].endswith(".") for start, end in passages(long))
    assert passages(" \n\n ") == []


def test_a_page_shows_its_words_alone(tmp_path, raw):
    page = """<!DOCTYPE html><html><head><title>Чай &amp; мята</title><style>p{}</style></head>
    <body><nav>Menu</nav><h1>Чай</h1><p>Первый   абзац,<br>вторая строка.</p>
    <script>var x = "<p>no</p>"</script><ul><li>мята</li><li>мёд</li></ul>
    <pre>  a\n    b</pre><p>Unclosed <b>bold</p></body></html>"""
    corpus = raw(save(tmp_path, "x", page.encode("cp1251")))
    assert texts(corpus) == [
        "# Чай\n\nПервый абзац,\nвторая строка.\n\n- мята\n- мёд\n\n  a\n    b\n\nUnclosed bold"
    ]
    assert corpus.report.files[0].title == "Чай & мята"
    assert corpus.report.files[0].encoding == "cp1251"


BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": '<container xmlns="urn:c"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
    "OEBPS/book.opf": '<package xmlns="urn:p" xmlns:dc="urn:dc"><metadata>'
    "<dc:title>Книга</dc:title></metadata><manifest>"
    '<item id="n" href="nav.xhtml" properties="nav"/><item id="b" href="two%20b.xhtml"/>'
    '<item id="a" href="one.xhtml"/><item id="x" href="gone.xhtml"/></manifest>'
    '<spine><itemref idref="n"/><itemref idref="a"/><itemref idref="x"/><itemref idref="b"/>'
    "</spine></package>",
    "OEBPS/nav.xhtml": "<html><body>Contents</body></html>",
    "OEBPS/one.xhtml": "<?xml version='1.0'?><html><body><h1>Раз</h1><p>Начало.</p></body></html>",
    "OEBPS/two b.xhtml": "<html><body><h1>Два</h1><p>Конец.</p></body></html>",
}


def test_a_book_is_read_in_the_order_of_its_spine(tmp_path, raw):
    corpus = raw(archive(tmp_path / "b.zip", **BOOK))
    assert texts(corpus) == ["# Раз\n\nНачало.\n\n# Два\n\nКонец."]
    (note,) = corpus.report.files
    assert (note.kind, note.title) == ("book", "Книга")
    assert note.broken[0].item == "OEBPS/gone.xhtml"
    assert corpus.rows.to_pylist()[0]["lineage"][0]["item"] == "OEBPS/one.xhtml"


def test_a_locked_or_damaged_book_is_said(tmp_path):
    lock = '<e><CipherReference URI="OEBPS/one.xhtml"/></e>'
    archive(tmp_path / "locked.epub", **BOOK, **{"META-INF/encryption.xml": lock})
    archive(tmp_path / "bad.epub", **(BOOK | {"OEBPS/book.opf": "<package"}))
    save(tmp_path, "talk.json", [talk("a", "Q", "A")])
    states = {each.file: each.state for each in build(tmp_path).report.files}
    assert states["locked.epub"] == "a book protected by DRM: its chapters are encrypted"
    assert states["bad.epub"].startswith("a damaged book")


PLAIN = "\n".join(
    ("The model's weights do not change: only the adapter's do.", "Ask again (later).")
)


def test_a_pdf_with_a_text_layer(tmp_path, raw):
    order = sorted({*"".join(RUSSIAN)})
    corpus = raw(save(tmp_path, "a.bin", pdf([latin(PLAIN), b"", latin("The end.")], font=LATIN)))
    assert texts(corpus) == [f"{PLAIN}\nThe end."]
    assert corpus.rows.to_pylist()[0]["lineage"][0]["item"] == "page 1"
    drawn = glyphs("\n".join(RUSSIAN[:5]), order)
    corpus = raw(save(tmp_path, "r.pdf", pdf([drawn], font=numbered(order, told=True))))
    assert texts(corpus) == ["\n".join(RUSSIAN[:5])]


def test_a_pdf_whose_letters_are_not_told_is_garbage_and_said_so(tmp_path):
    order = sorted({*"".join(RUSSIAN)})
    drawn = glyphs("\n".join(RUSSIAN[:5]), order)
    save(tmp_path, "mute.pdf", pdf([drawn], font=numbered(order, told=False)))
    save(tmp_path, "scan.pdf", pdf([b"", b""], font=LATIN))
    save(tmp_path, "bad.pdf", b"%PDF-1.7\nnothing")
    save(tmp_path, "talk.json", [talk("a", "Q", "A")])
    states = {each.file: each.state for each in build(tmp_path).report.files}
    assert "garbage text layer (fonts without ToUnicode)" in states["mute.pdf"]
    assert states["scan.pdf"].startswith("a PDF without a text layer")
    assert states["bad.pdf"].startswith("a damaged PDF")


def test_files_are_known_by_content_and_every_other_one_is_named(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder, "photo.md", b"\x89PNG\r\n\x1a\n\0\0")
    save(folder, "noise.txt", bytes(range(1, 32)) * 9)
    save(folder, "feed.txt", "<?xml version='1.0'?><rss><title>x</title></rss>")
    save(folder, "list.md", "[ ] buy milk\n[x] call Ann")
    save(folder, "set.md", "{ not json, a note }")
    archive(folder / "doc.zip", **{"[Content_Types].xml": "<x/>", "word/document.xml": "<x/>"})
    save(folder, "cut.zip", b"PK\x03\x04broken")
    save(folder, "talk.png", [talk("a", "Q", "A")])
    corpus = build(folder)
    states = {each.file: each.state for each in corpus.report.files}
    assert states == {
        "photo.md": "a picture (PNG)",
        "noise.txt": "a binary file, not text",
        "feed.txt": "XML of no known kind",
        "list.md": "no messages found",
        "set.md": "no messages found",
        "doc.zip": "an Office document: save it as text, HTML or PDF",
        "cut.zip": "a damaged archive (File is not a zip file)",
        "talk.png": "read",
    }
    named = {each["lineage"][0]["file"] for each in corpus.dropped.to_pylist()}
    assert named == set(states) - {"talk.png"}
    corpus.save(folder / "built")
    assert build(folder).hash == corpus.hash
    with pytest.raises(InputError, match="is a corpus already"):
        build(folder / "built")
