"""What scanners, PDFs and web pages leave in a text: ligatures, stray marks, words cut in two.

Every rule works on lines and keeps their number, so that a repair can be taken back line by line.
Code, fenced or between backticks, is left as it is, but for characters that nobody can see.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loratelier.corpus.lookalikes import MIXED, set_right
from loratelier.corpus.words import is_known

_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
# A ligature by itself is spoken of, not printed.
_LIGATURE = re.compile(r"(?<=[^\W\d_])[{0}]|[{0}](?=[^\W\d_])".format("".join(_LIGATURES)))
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_OVERPRINTED = re.compile("[^\b]\b")
# Soft hyphens and zero-width marks between letters; a joiner between emoji is part of one.
_INVISIBLE = re.compile(r"(?<=[^\W\d_])[\u00ad\u200b\u2060\ufeff]+(?=[^\W\d_])|\u200b+")
_CUT = re.compile(r"([^\W\d_]{2,})[-\u00ad\u2010]$", re.MULTILINE)
_TAIL = re.compile(r"([a-zа-яё]{2,})([.,;:!?»”)]*)(?:[ \t]+|$)")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_FENCE = re.compile(r"^[ \t]*(?:> ?)*[ \t]*(?:`{3,}|~{3,})")

# Cyrillic drawn with Latin letters and digits, as a PDF without a table of characters gives it.
_DRAWN = re.compile(
    r"\b\w*(?:JI|bI|bl|lO|IO|I0|III|TIb|9l|6bI|KaK|4To|4e)\w*\b|\b[a-z]+[A-Z][a-z]*\b"
)
_MAY_BE_DRAWN = re.compile("JI|b[Il]|lO|I[O0I]|9l|KaK|4To|4e|[a-z][A-Z]")
_FEW_WORDS = 4
_DRAWN_SHARE = 0.4


@dataclass(frozen=True)
class Rule:
    """One kind of tidying: its name in the record, and what it makes of the lines of a text.

    Where ``sign`` is not found there is nothing to do.
    """

    kind: str
    sign: re.Pattern[str]
    apply: Callable[[list[str]], list[str]]


def _each(change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [change(line) for line in lines]


def _printed(line: str) -> str:
    """Return a line without controls; a backspace takes what a printer would have overprinted."""
    while "\b" in line and (erased := _OVERPRINTED.sub("", line)) != line:
        line = erased
    return _CONTROLS.sub("", line)


def _written_out(line: str) -> str:
    return _LIGATURE.sub(lambda match: _LIGATURES[match.group()], line)


def _outside_code(change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    def apply(lines: list[str]) -> list[str]:
        return [
            line if coded else _around(line, change)
            for line, coded in zip(lines, _coded(lines), strict=True)
        ]

    return apply


def _around(line: str, change: Callable[[str], str]) -> str:
    if "`" not in line:
        return change(line)
    pieces, end = [], 0
    for code in _CODE.finditer(line):
        pieces += [change(line[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*pieces, change(line[end:])])


def _coded(lines: list[str]) -> Iterator[bool]:
    """Yield whether each line is code or the fence around it."""
    inside = False
    for line in lines:
        fence = _FENCE.match(line) is not None
        yield inside or fence
        inside ^= fence


def _joined(lines: list[str]) -> list[str]:
    """Give the first half of a word that a line end cut in two its second half."""
    whole = set(re.findall(r"[^\W\d_]{4,}", " ".join(lines).lower()))
    coded = list(_coded(lines))
    made = list(lines)
    for number in range(len(lines) - 1):
        cut = _CUT.search(made[number])
        tail = _TAIL.match(made[number + 1])
        if coded[number] or not cut or not tail:
            continue
        word = cut[1] + tail[1]
        seen = word.lower() in whole
        if seen or is_known(word) or cut[0].endswith("\u00ad"):
            made[number] = made[number][: cut.start()] + word + tail[2]
            made[number + 1] = made[number + 1][tail.end() :]
    return made


RULES = (
    Rule("control characters removed", _CONTROLS, _each(_printed)),
    Rule("words cut at a line end joined", _CUT, _joined),
    Rule("invisible characters removed", _INVISIBLE, _each(lambda line: _INVISIBLE.sub("", line))),
    Rule("ligatures written out", _LIGATURE, _outside_code(_written_out)),
    Rule("look-alike letters set right", MIXED, _outside_code(set_right)),
)


def drawn_lines(lines: list[str]) -> list[int]:
    """Return the numbers, from 1, of lines whose letters are drawn and not meant.

    «noJI» for «пол»: which letters were meant is lost, so nothing is put in their place.
    """
    if not any(map(_MAY_BE_DRAWN.search, lines)):
        return []
    found = []
    for number, (line, coded) in enumerate(zip(lines, _coded(lines), strict=True), start=1):
        words = re.findall(r"\b\w{2,}\b", line)
        drawn = len(_DRAWN.findall(line))
        if not coded and len(words) >= _FEW_WORDS and drawn >= _DRAWN_SHARE * len(words):
            found.append(number)
    return found
