"""Web pages and the chapters of books: the words that a reader sees, by the standard library."""

import re
from html.parser import HTMLParser


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_HIDDEN = _tags(
    "script style template noscript svg math head nav footer aside form button select iframe "
    "object video audio"
)
_BLOCK = _tags(
    "address article blockquote body br dd details div dl dt fieldset figcaption figure h1 h2 h3 "
    "h4 h5 h6 header hr html li main ol p pre section summary table tbody td th thead tr ul"
)
_PARAGRAPH = _tags("p h1 h2 h3 h4 h5 h6 blockquote pre ul ol table hr figure")
_VOID = _tags("br hr img input meta link area base col embed source track wbr param")
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_SPACE = re.compile(r"[ \t\r\n\f]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.I)
_BEGINS = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.I | re.S,
)
_VIEWER = re.compile(rb"(?:var|const|let)\s+jsonData\s*=\s*\[")
_TELEGRAM = re.compile(rb"class=\"page_wrap\".{0,4000}?class=\"(?:page_header|page_body)", re.S)


def is_page(head: bytes) -> bool:
    """Say whether a file that begins so is HTML."""
    return _BEGINS.match(head) is not None


def known_viewer(head: bytes) -> str:
    """Say why a page is left to another file of its export, or return an empty string."""
    if _VIEWER.search(head):
        return "the export's page for reading: conversations.json holds the same"
    if _TELEGRAM.search(head):
        return "Telegram's export as pages: export it once more as JSON (machine-readable)"
    return ""


def charset(data: bytes) -> str:
    """Return the encoding that a page names, or an empty string."""
    found = _CHARSET.search(data[:4096])
    return found[1].decode("ascii") if found else ""


def words(page: str) -> tuple[str, str]:
    """Return the text that a page shows, and its title.

    Blocks stand on lines of their own, paragraphs are set apart by a blank line, headings are
    marked as in Markdown, scripts and navigation are left out.
    """
    reader = _Reader()
    try:
        reader.feed(page)
        reader.close()
    except (AssertionError, ValueError):
        # Markup that the parser itself gives up on; what came before it is kept.
        pass
    return reader.text(), reader.title.strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._pieces: list[str] = []
        self._hidden: list[str] = []
        self._in_title = False
        self._pre = 0
        self._newlines = 1  # at the end of what was read; a beginning is as good as one

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        if tag == "body":
            self._hidden.clear()  # a head that nobody closed
        if tag in _HIDDEN:
            self._hidden.append(tag)
        if self._hidden:
            return
        self._break(tag)
        self._pre += tag == "pre"
        if tag in _HEADINGS:
            self._add(f"{_HEADINGS[tag]} ")
        elif tag == "li":
            self._add("- ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
            return
        if not self._hidden:
            self._break(tag)
            self._pre -= tag == "pre" and self._pre > 0

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._hidden:
            self._add(data if self._pre else _SPACE.sub(" ", data))

    def text(self) -> str:
        """Return what was read."""
        lines = "".join(self._pieces).split("\n")
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    def _add(self, text: str) -> None:
        text = text if self._pre or not self._newlines else text.lstrip(" ")
        if text:
            self._pieces.append(text)
            self._newlines = len(text) - len(text.rstrip("\n"))

    def _break(self, tag: str) -> None:
        """Begin a new line before and after a block, and leave one blank around a paragraph."""
        wanted = 2 if tag in _PARAGRAPH else int(tag in _BLOCK)
        if tag == "br":
            wanted = min(2, self._newlines + 1)
        if self._pieces and wanted > self._newlines:
            self._pieces.append("\n" * (wanted - self._newlines))
            self._newlines = wanted
