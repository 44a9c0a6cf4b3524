"""Which lines hold what clean Russian and English hardly ever need: they are looked at again.

All lines are looked at together, as numbers: most are clean, and this is all that they cost.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Kinds of characters.
_OTHER, _SMALL, _CAPITAL, _FOREIGN, _LATIN, _ACCENTED, _ODD, _MARK = range(8)

_NEVER = re.compile(
    r"[\x7f-\xa8\xaa-\xac\xaf\xb4-\xb6\xb8-\xba\xbc-\xbf\xd7\xf7\u0250-\u03ff"
    r"†‡‰ˆ˜‹›‚€™√≈∆\u2500-\u259f]"
)
_MARKS = "«»“”„‘’–—…\xa0"
# A mark where it does not belong, and a capital by itself.
_MISPLACED = re.compile(
    r"^[»”’…\xa0–—][ а-яёa-z]|\s[»”’…–—][а-яё]|[«“„—–][ ]?$|[«“„][»”]|^[«“‘„][^»”’“]*$"
    r"|\s[«“‘„][а-яё][^»”’“]*$"
)
_ALONE = re.compile(r"(?<![\w.])[БГДЕЖЗЙЛМНПРСТУФХЦЧШЩЪЫЬЭЮ](?![\w.])")


def odd_lines(lines: Sequence[str]) -> NDArray[np.bool_]:
    """Say which lines hold a character, or two side by side, that clean lines hardly ever do."""
    if not lines:
        return np.zeros(0, dtype=np.bool_)
    text = "\n".join(lines) + "\n"
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
    kinds = _kinds()[np.minimum(points, 0xFFFF)]
    starts = np.cumsum([0, *(len(line) + 1 for line in lines[:-1])])
    odd: NDArray[np.bool_] = np.logical_or.reduceat(_odd(kinds), starts)
    marked = np.logical_or.reduceat((kinds == _MARK) | _alone(kinds), starts)
    for number in np.flatnonzero(marked & ~odd).tolist():
        line = lines[number]
        odd[number] = bool(_MISPLACED.search(line) or _ALONE.search(line))
    return odd


def _odd(kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    before, after = _shifted(kinds)
    cyrillic = (kinds == _SMALL) | (kinds == _CAPITAL) | (kinds == _FOREIGN)
    beside_latin = (before == _LATIN) | (after == _LATIN)
    torn = (before == _SMALL) & (kinds == _CAPITAL) & (after != _CAPITAL)
    mixed = (cyrillic | (kinds == _ACCENTED)) & beside_latin
    mixed |= cyrillic & ((before == _ACCENTED) | (after == _ACCENTED))
    found: NDArray[np.bool_] = (kinds == _ODD) | (kinds == _FOREIGN) | torn | mixed
    return found


def _alone(kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    before, after = _shifted(kinds)
    apart = (before == _OTHER) | (before == _MARK)
    found: NDArray[np.bool_] = (kinds == _CAPITAL) & apart & ((after == _OTHER) | (after == _MARK))
    return found


def _shifted(kinds: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the kind before and after each character; lines end in one of no kind."""
    edge = np.zeros(1, dtype=np.uint8)
    return np.concatenate((edge, kinds[:-1])), np.concatenate((kinds[1:], edge))


@lru_cache
def _kinds() -> NDArray[np.uint8]:
    """Return the kind of every code point below 0x10000."""
    table = np.zeros(0x10000, dtype=np.uint8)
    table[0xC0:0x250] = _ACCENTED
    table[0x400:0x500] = _FOREIGN
    table[0xE000:0xF900] = _ODD  # private use
    for kind, letters in (
        (_SMALL, "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"),
        (_CAPITAL, "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ"),
        (_LATIN, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (_ODD, _NEVER.findall("".join(map(chr, range(0xD800))))),
        (_MARK, _MARKS),
    ):
        table[[ord(letter) for letter in letters]] = kind
    return table
