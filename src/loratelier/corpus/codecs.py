"""Bytes that were read with the wrong codec: how to get them back, character by character.

All codecs here agree on ASCII, so only characters above it can be damaged. A byte that a codec
leaves undefined is taken as the control character of the same number, as browsers read it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

UTF8 = "utf-8"
SINGLE = ("cp1251", "cp1252", "latin-1", "koi8-r", "cp866", "mac_roman", "mac_cyrillic")
CYRILLIC = frozenset({"cp1251", "koi8-r", "cp866", "mac_cyrillic"})

NAMES = {
    "utf-8": "UTF-8",
    "cp1251": "Windows-1251",
    "cp1252": "Windows-1252",
    "latin-1": "Latin-1",
    "koi8-r": "KOI8-R",
    "cp866": "CP866",
    "mac_roman": "Mac Roman",
    "mac_cyrillic": "Mac Cyrillic",
}

LOST = "\ufffd"

# Codecs under which some bytes of UTF-8 become control characters, soft hyphens or no-break
# spaces, which editors and importers then drop.
_LEAKY = frozenset({"cp1251", "cp1252", "latin-1"})

_SEQUENCE = rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
# A sequence whose tail is missing: it must not be followed by one more continuation byte.
_TRUNCATED = rb"(?:[\xf0-\xf4][\x80-\xbf]{0,2}|[\xe0-\xef][\x80-\xbf]?|[\xc2-\xdf])(?![\x80-\xbf])"
# A word in capitals that ends in an accented one, before a closing quote (CAFÉ»): the two happen to
# form one UTF-8 sequence.
_SHOUTED = re.compile(r"[A-Z][\xc0-\xdf]\W+$")
_PIECE = re.compile(rb"(?P<whole>" + _SEQUENCE + rb")|(?P<cut>" + _TRUNCATED + rb")|[\x00-\x7f]+")


@dataclass(frozen=True)
class Pair:
    """A damage and its cure: bytes in the codec ``right`` were read as the codec ``wrong``."""

    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{NAMES[self.right]} read as {NAMES[self.wrong]}"


@dataclass(frozen=True)
class Reading:
    """A line read again: its text, the UTF-8 sequences that were whole, the characters lost."""

    text: str
    whole: int = 0
    lost: int = 0


@lru_cache
def high_characters(codec: str) -> tuple[str, ...]:
    """Return the 128 characters that the bytes 0x80 to 0xFF stand for."""
    return tuple(
        bytes([byte]).decode(codec, errors="replace").replace(LOST, chr(byte))
        for byte in range(0x80, 0x100)
    )


@lru_cache
def _to_byte(codec: str) -> dict[int, int]:
    """Return a ``str.translate`` table from a codec's high characters to U+0080..U+00FF."""
    return {ord(char): byte for byte, char in enumerate(high_characters(codec), start=0x80)}


@lru_cache
def _swap(pair: Pair) -> dict[int, str]:
    return dict(
        zip(map(ord, high_characters(pair.wrong)), high_characters(pair.right), strict=True)
    )


@lru_cache
def _token(codec: str) -> re.Pattern[str]:
    """Match what stands between white space and consists of the codec's characters alone."""
    chars = "".join(map(re.escape, high_characters(codec))) + (LOST if codec in _LEAKY else "")
    return re.compile(f"[\x21-\x7f{chars}]*[{chars}][\x21-\x7f{chars}]*")


def reread(lines: Sequence[str], pair: Pair) -> list[Reading | None]:
    """Read lines again under one assumed damage; None where it changes nothing.

    Between two single-byte codecs every character of the wrong one is exchanged; others stay. For
    UTF-8 the unit is the word: it is read again when all its bytes form UTF-8, so a clean word
    beside a damaged one stays as it is. Where bytes were dropped, each character that they belonged
    to becomes one U+FFFD.
    """
    if pair.right == UTF8:
        return _Utf8(pair.wrong).read(lines)
    table = _swap(pair)
    if table.keys().isdisjoint(set().union(*(map(ord, line) for line in lines))):
        return [None] * len(lines)
    changed = (line.translate(table) for line in lines)
    return [Reading(new) if new != old else None for old, new in zip(lines, changed, strict=True)]


class _Utf8:
    """Reads words as UTF-8: strictly first, then with losses where the strict pass gives cause."""

    def __init__(self, wrong: str) -> None:
        self._pattern = _token(wrong)
        self._table = _to_byte(wrong)
        self._leaky = wrong in _LEAKY
        self._leads: set[int] = set()
        self._whole = 0
        self._lost = 0

    def read(self, lines: Sequence[str]) -> list[Reading | None]:
        strict = [self._line(line, self._strict) for line in lines]
        if not self._leaky or not self._leads:
            return strict
        kept = self._whole, self._lost
        self._whole, self._lost = 0, 0
        lossy = [self._line(line, self._lossy) for line in lines]
        # More characters lost than saved is no evidence that these were UTF-8 at all.
        if self._lost > self._whole:
            self._whole, self._lost = kept
            return strict
        return lossy

    def _line(self, line: str, word: Callable[[str], str]) -> Reading | None:
        whole, lost = self._whole, self._lost
        text = self._pattern.sub(lambda match: word(match.group()), line)
        if text == line:
            return None
        return Reading(text, self._whole - whole, self._lost - lost)

    def _strict(self, token: str) -> str:
        data = self._bytes(token)
        try:
            text = data.decode(UTF8)
        except UnicodeDecodeError:
            return token
        if sum(char > "\x7f" for char in text) == 1 and _SHOUTED.search(token):
            return token
        self._leads.update(byte for byte in data if byte >= 0xC0)
        self._whole += sum(char > "\x7f" for char in text)
        return text

    def _lossy(self, token: str) -> str:
        marked = token.count(LOST)
        data = self._bytes(token.replace(LOST, ""))
        whole, cut, end = 0, 0, 0
        for piece in _PIECE.finditer(data):
            if piece.start() != end:
                return token
            end = piece.end()
            whole += piece["whole"] is not None
            cut += piece["cut"] is not None
            # A lead byte alone may be a genuine accented letter, unless this text is full of it.
            if piece["cut"] and len(piece["cut"]) == 1 and piece["cut"][0] not in self._leads:
                return token
        text = data.decode(UTF8, errors="replace")
        if end != len(data) or marked > cut or text.count(LOST) != cut:
            return token
        self._whole += whole
        self._lost += cut
        return text

    def _bytes(self, token: str) -> bytes:
        # A character marked as lost has no byte; 0xFF never stands in UTF-8, so the word fails.
        return token.replace(LOST, "\xff").translate(self._table).encode("latin-1")
