"""Notes of the Obsidian plugin Nexus AI Chat Importer, cut into messages and what stands between.

Both forms are known: callouts (``>[!nexus_user] **User** - time``, with the name on the same line
or the next) and the headings of version 1.1 (``### User, on D at T;``). A note is recognised by one
message; front matter is not needed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_CALLOUT = re.compile(r"^>[ \t]?\[!nexus_(user|agent)\][+-]?[ \t]*(.*)$")
_NAME = re.compile(r"^>[ \t]?\*\*[^*]+\*\*(?:[ \t]+-[ \t].*)?[ \t]*$")
_HEADING = re.compile(
    r"^#{3,4} (User|You|Assistant\b[^,]*|ChatGPT|Claude), on (.+?) at (.+?);[ \t]*$"
)
_UID = re.compile(r"^[ \t]*<!--[ \t]*UID:[ \t]*(.*?)[ \t]*-->[ \t]*$")
_NESTED = re.compile(r"^>[ \t]?\[!nexus_(attachment|artifact|prompt)\]")
_RULE = re.compile(r"^[ \t]*(?:-{3,}|\*{3,}|_{3,})[ \t]*$")
_TITLE = re.compile(r"^# (.+)$")
_DATES = re.compile(r"^(?:Created|Last Updated): ")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
_KEY = re.compile(r"^([A-Za-z_]\w*):[ \t]*(.*)$")

_ROLES = {"user": "user", "agent": "assistant"}


@dataclass(frozen=True)
class Line:
    """A line without its end, and where it stands in the file's text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Piece:
    """Part of a note; ``text`` is its own words, ``start`` and ``end`` count characters."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Nested(Piece):
    """A callout inside a message: ``attachment``, ``artifact`` or ``prompt``."""

    kind: str = ""


@dataclass(frozen=True)
class Message(Piece):
    """One message; its span covers the quoted lines, the header first.

    ``uid`` is empty when the note gives none. ``time`` is the raw string: its order of day and
    month depends on the locale.
    """

    role: str = ""
    uid: str = ""
    time: str = ""
    nested: tuple[Nested, ...] = ()


@dataclass(frozen=True)
class Note:
    """A note in its parts; ``meta`` is the front matter's plain keys."""

    messages: tuple[Message, ...]
    commentary: tuple[Piece, ...]
    title: str = ""
    meta: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Note:
    """Cut a note into messages and commentary; a text without messages is commentary alone."""
    return _Parser(text).note()


def _lines(text: str) -> list[Line]:
    found = (Line(match[1], match.start(1), match.end(1)) for match in _LINE.finditer(text))
    return list(found)


class _Parser:
    """Walks the lines once; every line goes to a message, to commentary, or is structure."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = _lines(text)
        self._messages: list[Message] = []
        self._commentary: list[Piece] = []
        self._loose: list[Line] = []
        self._title = ""

    def note(self) -> Note:
        at, meta = self._front_matter()
        while at < len(self._lines):
            at = self._step(at)
        self._flush()
        return Note(tuple(self._messages), tuple(self._commentary), self._title, meta)

    def _front_matter(self) -> tuple[int, dict[str, str]]:
        if self._lines[0].text.rstrip() != "---":
            return 0, {}
        for end in range(1, len(self._lines)):
            if self._lines[end].text.rstrip() == "---":
                keys = (_KEY.match(line.text) for line in self._lines[1:end])
                return end + 1, {key[1]: key[2].strip().strip("\"'") for key in keys if key}
        return 0, {}

    def _step(self, at: int) -> int:
        if self._is_callout(at):
            self._flush()
            return self._callout(at)
        heading = _HEADING.match(self._lines[at].text)
        if heading:
            self._flush()
            return self._headed(at, heading)
        title = _TITLE.match(self._lines[at].text)
        if title and not (self._title or self._messages) and all(map(_is_blank, self._loose)):
            self._title = title[1].strip()
            return at + 1
        if not _DATES.match(self._lines[at].text) or self._messages:
            self._loose.append(self._lines[at])
        return at + 1

    def _is_callout(self, at: int) -> bool:
        line = self._lines[at].text
        if not _CALLOUT.match(line):
            return False
        # With a space it may be a quoted line of a message that speaks about this very format;
        # a callout can only stand at the start of a quoted block.
        before = self._lines[at - 1].text if at else ""
        return line.startswith(">[") or not before.startswith(">")

    def _callout(self, at: int) -> int:
        header = _CALLOUT.match(self._lines[at].text)
        assert header is not None
        body = at + 1
        label = header[2]
        if not label and body < len(self._lines) and _NAME.match(self._lines[body].text):
            label = self._lines[body].text.lstrip("> \t")
            body += 1
        end = self._block_end(body)
        _, _, time = label.partition(" - ")
        return self._message(at, body, end, _ROLES[header[1]], time.strip(), quoted=True)

    def _headed(self, at: int, heading: re.Match[str]) -> int:
        role = "user" if heading[1] in {"User", "You"} else "assistant"
        body = at + 1
        first = next(
            (n for n in range(body, len(self._lines)) if self._lines[n].text.strip()), body
        )
        quoted = first < len(self._lines) and self._lines[first].text.startswith(">")
        end = self._block_end(first) if quoted else self._open_end(body)
        return self._message(
            at,
            first if quoted else body,
            end,
            role,
            f"{heading[2]} at {heading[3]}",
            quoted=quoted,
            headed=True,
        )

    def _block_end(self, at: int) -> int:
        """Return the line after the quoted block, and after blocks that blank lines cut off it."""
        end = at
        while end < len(self._lines):
            while self._quoted(end):
                end += 1
            follows = self._after_blanks(end)
            if not (self._quoted(follows) and self._uid_ahead(follows)):
                return end
            end = follows
        return end

    def _quoted(self, at: int) -> bool:
        return (
            at < len(self._lines)
            and self._lines[at].text.startswith(">")
            and not self._is_callout(at)
        )

    def _after_blanks(self, at: int) -> int:
        while at < len(self._lines) and not self._lines[at].text.strip():
            at += 1
        return at

    def _uid_ahead(self, at: int) -> bool:
        while self._quoted(at) or (at < len(self._lines) and not self._lines[at].text.strip()):
            at += 1
        return at < len(self._lines) and _UID.match(self._lines[at].text) is not None

    def _open_end(self, at: int) -> int:
        """Return the line after an unquoted message: its UID, the next header, or the end."""
        end = at
        while end < len(self._lines):
            line = self._lines[end].text
            if _UID.match(line) or _HEADING.match(line) or self._is_callout(end):
                break
            end += 1
        while end > at and (
            not self._lines[end - 1].text.strip() or _RULE.match(self._lines[end - 1].text)
        ):
            end -= 1
        return end

    def _message(
        self,
        at: int,
        body: int,
        end: int,
        role: str,
        time: str,
        *,
        quoted: bool,
        headed: bool = False,
    ) -> int:
        lines = self._lines[body:end]
        if headed and _twice_quoted(lines):
            lines = [Line(line.text[1:], line.start, line.end) for line in lines]
        own, nested = _unquote(lines) if quoted else ([line.text for line in lines], [])
        mark = self._after_blanks(end)
        uid = _UID.match(self._lines[mark].text) if mark < len(self._lines) else None
        self._messages.append(
            Message(
                start=self._lines[at].start,
                end=self._lines[max(end, at + 1) - 1].end,
                text=_trim(own),
                role=role,
                uid=uid[1] if uid else "",
                time=time,
                nested=tuple(nested),
            )
        )
        return mark + 1 if uid else end

    def _flush(self) -> None:
        """Keep what stood between two messages, unless it is blank lines and rules alone."""
        lines = self._loose
        self._loose = []
        while lines and _is_blank(lines[0]):
            lines = lines[1:]
        while lines and _is_blank(lines[-1]):
            lines = lines[:-1]
        if lines:
            start, end = lines[0].start, lines[-1].end
            self._commentary.append(Piece(start, end, self._text[start:end]))


def _is_blank(line: Line) -> bool:
    return not line.text.strip() or _RULE.match(line.text) is not None


def _twice_quoted(lines: Sequence[Line]) -> bool:
    """Say whether every line is quoted twice, as version 1.1 wrote its answers (``>> ``)."""
    return (
        len(lines) > 0
        and all(line.text.startswith(">>") for line in lines)
        and not any(_NESTED.match(line.text[1:]) for line in lines)
    )


def _unquote(lines: Sequence[Line]) -> tuple[list[str], list[Nested]]:
    """Take the quote marks off a message's lines and set its nested callouts apart.

    A line of content that begins with ``>`` was written without the space, so only a space right
    after the first mark belongs to the quoting.
    """
    own: list[str] = []
    nested: list[list[tuple[Line, str]]] = []
    inside, fenced = False, False
    for line in lines:
        text = line.text[1:]
        text = text[1:] if text.startswith(" ") else text
        opens = not fenced and _NESTED.match(text)
        if opens:
            nested.append([])
        inside = bool(opens) or (inside and text.startswith(">"))
        if inside:
            nested[-1].append((line, text))
            continue
        fenced ^= _FENCE.match(text) is not None
        own.append(text)
    return own, [_nested(block) for block in nested]


def _nested(block: list[tuple[Line, str]]) -> Nested:
    head = _NESTED.match(block[0][1])
    assert head is not None
    words = "\n".join(text.lstrip(">").strip() for _, text in block)
    return Nested(block[0][0].start, block[-1][0].end, words, head[1])


def _trim(lines: list[str]) -> str:
    """Drop blank lines around a text and nothing else."""
    while lines and not lines[0].strip():
        lines = lines[1:]
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return "\n".join(lines)
