"""When a reading is proof enough that a text was misread: what it gains, and what it then says."""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loratelier.corpus import marks, words
from loratelier.corpus.codecs import UTF8, Pair, Reading, high_characters
from loratelier.corpus.english import is_english
from loratelier.corpus.language import AT_HOME, Model

# A reading must make the text at least this much likelier in all ...
_GAIN = {"utf-8": 12.0, "single": 9.0}
# ... and by this much per character exchanged, so that many small gains are no proof.
_GAIN_PER_CHARACTER = 1.5
# Where marks alone are exchanged, clean text has more ways to look damaged.
_GAIN_FROM_MARKS = 12.0
# What a line may gain by chance: no evidence for its neighbours.
_CHANCE = 2.0
# UTF-8 that gives a mark of clean prose spans three bytes that fit each other: proof by itself.
_MARK_IN_UTF8 = 5.0
# Between single-byte codecs nothing but the language tells right from wrong: it must read well.
_LIGATURES = frozenset("ﬁﬂ")  # at home in what a PDF gave
_NATURAL = -4.6
# A line begins with a capital more often than not.
_CAPITAL = 2.5
# Below this not even known words could make up for it.
_HOPELESS = -4.0
LETTERS = 5
_KNOWN_SHARE, _MORE_KNOWN = 0.5, 0.01
_WORD = re.compile("[\u0400-\u04ff]{3}")
_CONTROLS = re.compile("[\x80-\x9f]")
_RUNS = re.compile(r"[^\x00-\x7f]{2}")  # signs that stand singly are drawn, not misread


@dataclass(frozen=True)
class Won:
    """A line that a reading makes likelier, by ``gain`` nats; ``index`` is its place."""

    index: int
    old: str
    new: str
    gain: float


def won_lines(
    lines: list[str],
    before: NDArray[np.float64],
    readings: list[Reading | None],
    language: Model,
    chain: tuple[Pair, ...],
) -> list[Won]:
    """Return the lines that gain; ``before`` is what they score as they are.

    Between single-byte codecs a line must gain by every character exchanged, and not by quotes and
    dashes alone: those are at home beside letters, and «слово» would pass for letters in disguise.
    """
    single = chain[-1].right != UTF8
    read = [(index, reading.text) for index, reading in enumerate(readings) if reading is not None]
    after = language.lines([text for _, text in read])
    made = [
        Won(index, lines[index], text, float(score - before[index]))
        for (index, text), score in zip(read, after, strict=True)
    ]
    if single:
        likely = [won for won in made if won.gain > _HOPELESS]
        made = [replace(won, gain=won.gain + _besides(won)) for won in likely]
    else:
        made = [replace(won, gain=won.gain + _MARK_IN_UTF8 * _marks_gained(won)) for won in made]
    return [
        won
        for won in made
        if won.gain > 0 and not (single and (_doubtful(won) or _impossible(won, chain[0].wrong)))
    ]


def _besides(won: Won) -> float:
    """Return what words, marks and the first letter say, which trigrams cannot."""
    gain = words.gain(won.old, won.new)
    gain += marks.gain(won.old, won.new)
    return gain + _CAPITAL * (won.new[:1].isupper() - won.old[:1].isupper())


def _marks_gained(won: Won) -> int:
    before, after = (sum(char in AT_HOME for char in text) for text in (won.old, won.new))
    return max(0, after - before)


def evidence(chain: tuple[Pair, ...], won: list[Won], language: Model) -> float | None:
    """Return the pooled gain of a chain of readings when it is proof enough, else None."""
    gain = sum(line.gain for line in won)
    kind = "utf-8" if chain[-1].right == UTF8 else "single"
    changed = sum(_differing(line.old, line.new) for line in won)
    if kind == "utf-8":
        return gain if gain >= max(_GAIN[kind], _GAIN_PER_CHARACTER * changed) else None
    pooled = sum(max(0.0, line.gain - _CHANCE) for line in won)
    if pooled < max(_GAIN[kind], _GAIN_PER_CHARACTER * changed):
        return None
    if not (_from_controls(won) or _reads_well(won, language)) or _shouts(won):
        return None
    return gain


def _shouts(won: list[Won]) -> bool:
    """Say whether text in small letters became text in capitals.

    What people write is mostly small, and so is a cure; letters that stand about singly, as in a
    formula, would pass for damaged capitals.
    """
    old, new = "".join(line.old for line in won), "".join(line.new for line in won)
    return _capitals(new) > 0 >= _capitals(old)


def _capitals(text: str) -> int:
    """Return how many more capitals than small letters above ASCII there are."""
    letters = [char for char in text if not char.isascii()]
    return sum(char.isupper() for char in letters) - sum(char.islower() for char in letters)


def _differing(old: str, new: str) -> int:
    """Count what a reading exchanged: characters, or those above ASCII if it shortened the line."""
    if len(old) == len(new):
        return sum(a != b for a, b in zip(old, new, strict=True))
    return sum(not char.isascii() for char in old)


def _doubtful(won: Won) -> bool:
    if len(won.old) != len(won.new):
        return False
    exchanged = [a for a, b in zip(won.old, won.new, strict=True) if a != b]
    if set(exchanged) <= _LIGATURES:
        return True
    at_home = sum(char in AT_HOME for char in exchanged)
    if 2 * at_home >= len(exchanged) and won.gain < _GAIN_FROM_MARKS:
        return True
    return won.gain < _GAIN_PER_CHARACTER * len(exchanged)


def _impossible(won: Won, wrong: str) -> bool:
    """Say whether a line can not come from a damage, or its cure is no Russian that we know.

    Letters that the wrong codec lacks were never read with it; other languages in Cyrillic turn
    from one unknown word into the next.
    """
    kept = [char for char in won.old if char > "\x7f" and char.isalpha()]
    if not any(map(is_cyrillic, won.new)):
        foreign = not frozenset(high_characters(wrong)).issuperset(kept)
        return foreign or not (is_english(won.new) or _CONTROLS.search(won.old))
    if not kept and not _RUNS.search(won.old):
        return True
    made = sum(map(is_cyrillic, won.new))
    if made >= LETTERS and not _WORD.search(won.new):
        return True
    swapped = sum(map(is_cyrillic, won.old)) >= LETTERS
    before, after = words.known_share(won.old), words.known_share(won.new)
    return swapped and after < max(_KNOWN_SHARE, before + _MORE_KNOWN)


def is_cyrillic(char: str) -> bool:
    """Say whether a character is a Cyrillic letter."""
    return "\u0400" <= char <= "\u04ff"


def _reads_well(won: list[Won], language: Model) -> bool:
    """Say whether single-byte readings give natural words, not merely better ones."""
    # A few accented letters may be Cyrillic by chance.
    accents, cyrillic = _made_cyrillic(won)
    if 0 < accents == cyrillic < LETTERS:
        return False
    totals, high = language.telling([line.new for line in won])
    return float(totals.sum()) >= _NATURAL * float(high.sum())


def _made_cyrillic(won: list[Won]) -> tuple[int, int]:
    """Count the Cyrillic letters that readings made of accented ones, and of any characters."""
    made = [
        was
        for line in won
        if len(line.old) == len(line.new)
        for was, now in zip(line.old, line.new, strict=True)
        if was != now and "\u0400" <= now <= "\u04ff"
    ]
    return sum("\xc0" <= was <= "\xff" and was.isalpha() for was in made), len(made)


def _from_controls(won: list[Won]) -> bool:
    """Say whether only C1 controls were exchanged, which no one writes: Windows-1252 as Latin-1.

    U+0085 alone is no sign: it is also a line end.
    """
    if any(len(line.old) != len(line.new) for line in won):
        return False
    exchanged = {
        (was, now)
        for line in won
        for was, now in zip(line.old, line.new, strict=True)
        if was != now
    }
    controls = all("\x80" <= was <= "\x9f" < now for was, now in exchanged)
    return controls and any(was != "\x85" for was, _ in exchanged)
