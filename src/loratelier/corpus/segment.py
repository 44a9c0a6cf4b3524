"""Long texts cut into passages that a training step can hold."""

import re
from collections.abc import Iterator

LONGEST = 6000  # characters of a passage; some 1500 tokens of English, 2000 of Russian
_FULL = 0.25  # of LONGEST: from there on a heading begins a new passage

_BLANK = " \t\r\n\f\v"  # a no-break space at an edge may be a letter that was misread
_BREAK = re.compile(r"\r?\n[ \t]*(?:\r?\n[ \t]*)+")
_HEADING = re.compile(r"#{1,6} \S")
_SENTENCE = re.compile(r"(?<=[.!?…。！？])[\"'»”)]*\s+|\n")


def passages(text: str, start: int = 0) -> list[tuple[int, int]]:
    """Return where passages of a text begin and end, from ``start`` on, without blank edges.

    Paragraphs are kept whole and together while they fit; a heading begins a passage unless the one
    before is still short. A longer paragraph is cut between sentences, or between words.
    """
    found: list[tuple[int, int]] = []
    for begin, end in _paragraphs(text, start):
        if found and _goes_together(text, found[-1], begin, end):
            found[-1] = found[-1][0], end
        else:
            found.append((begin, end))
    return found


def _goes_together(text: str, before: tuple[int, int], begin: int, end: int) -> bool:
    if end - before[0] > LONGEST:
        return False
    is_short = before[1] - before[0] < _FULL * LONGEST
    return is_short or not _HEADING.match(text, begin)


def _paragraphs(text: str, start: int) -> Iterator[tuple[int, int]]:
    at = start
    for gap in _BREAK.finditer(text, start):
        yield from _pieces(text, at, gap.start())
        at = gap.end()
    yield from _pieces(text, at, len(text))


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield a paragraph, in several pieces when it is longer than a passage may be."""
    while start < end and text[start] in _BLANK:
        start += 1
    while end > start and text[end - 1] in _BLANK:
        end -= 1
    while end - start > LONGEST:
        cut = _cut(text, start)
        yield start, cut
        start = cut
        while start < end and text[start] in _BLANK:
            start += 1
    if start < end:
        yield start, end


def _cut(text: str, start: int) -> int:
    limit = start + LONGEST
    last = 0
    for stop in _SENTENCE.finditer(text, start + LONGEST // 2, limit):
        last = stop.start()
    if last > start:
        return last
    space = text.rfind(" ", start + LONGEST // 2, limit)
    return space if space > start else limit
