"""Conversations as plain text and as Markdown: a line that names the speaker, then the words.

A row of one assistant's message alone (a page, a chapter) is written without any label. A line of
the content that looks like a label is marked by a backslash, and one that has backslashes already
gets one more, so every text can be read back.
"""

import re
from dataclasses import dataclass

from loratelier.corpus.formats.labels import LANGUAGES, Labels, Messages, labels_for

_NAMES = "|".join(name for labels in LANGUAGES for name in labels.roles.values())


@dataclass(frozen=True)
class _Style:
    """``before`` and ``after`` stand around a speaker's name; ``gap`` between label and words."""

    before: str
    after: str
    gap: str

    def line(self, name: str) -> str:
        return f"{self.before}{name}{self.after}"

    @property
    def label(self) -> re.Pattern[str]:
        """Match a label line; the backslashes are group 1, the name is group 2."""
        return re.compile(rf"(\\*){re.escape(self.before)}({_NAMES}){re.escape(self.after)}")


_RAW = _Style("", ":", "\n")
_MARKDOWN = _Style("# ", "", "\n\n")


def to_raw(messages: Messages) -> str:
    """Write ``User:`` and the words on the next lines; a blank line between turns."""
    return _write(messages, _RAW)


def from_raw(text: str) -> Messages:
    """Read what :func:`to_raw` wrote."""
    return _read(text, _RAW)


def to_markdown(messages: Messages) -> str:
    """Write each turn under a heading that names the speaker."""
    return _write(messages, _MARKDOWN)


def from_markdown(text: str) -> Messages:
    """Read what :func:`to_markdown` wrote."""
    return _read(text, _MARKDOWN)


def _write(messages: Messages, style: _Style) -> str:
    if [message["role"] for message in messages] == ["assistant"]:
        return _escape(messages[0]["content"], style)
    labels = labels_for(messages)
    heads = (style.line(labels.roles[message["role"]]) + style.gap for message in messages)
    bodies = (_escape(message["content"], style) for message in messages)
    return "\n\n".join(map("".join, zip(heads, bodies, strict=True)))


def _read(text: str, style: _Style) -> Messages:
    lines = text.split("\n")
    labels = _opening(lines[0], style)
    if labels is None:
        return [{"role": "assistant", "content": _unescape(lines, style)}]
    known = {style.line(name): role for role, name in labels.roles.items()}
    starts = [number for number, line in enumerate(lines) if line in known]
    # Between two turns stands one blank line, after the last none.
    ends = [start - 1 for start in starts[1:]] + [len(lines)]
    skip = style.gap.count("\n")
    return [
        {"role": known[lines[start]], "content": _unescape(lines[start + skip : end], style)}
        for start, end in zip(starts, ends, strict=True)
    ]


def _opening(line: str, style: _Style) -> Labels | None:
    """Return the labels in whose language a transcript opens; None for a text without speakers."""
    for labels in LANGUAGES:
        if line in {style.line(name) for name in labels.roles.values()}:
            return labels
    return None


def _escape(text: str, style: _Style) -> str:
    label = style.label
    return "\n".join(f"\\{line}" if label.fullmatch(line) else line for line in text.split("\n"))


def _unescape(lines: list[str], style: _Style) -> str:
    label = style.label
    return "\n".join(line[1:] if label.fullmatch(line) else line for line in lines)
