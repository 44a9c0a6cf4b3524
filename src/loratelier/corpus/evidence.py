"""When a reading is proof enough that a text was misread: what it gains, and what it then says."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loratelier.corpus.codecs import UTF8, Pair, Reading
from loratelier.corpus.language import AT_HOME, Model

# A reading must make the text at least this much likelier in all ...
_GAIN = {"utf-8": 14.0, "single": 20.0, "twice": 30.0}
# ... and by this much per character exchanged, so that many small gains are no proof.
_GAIN_PER_CHARACTER = 1.5
# A few characters that make no sense at all prove as much as many that make little.
_STRIKING = 5.0
# Between single-byte codecs nothing but the language tells right from wrong: it must read well,
# and show whole words.
_NATURAL = -4.2
LETTERS = 5
_WORD = re.compile(r"[А-Яа-яЁё]{3,}")


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
    *,
    single: bool,
) -> list[Won]:
    """Return the lines that gain; ``before`` is what they score as they are.

    Between single-byte codecs a line must gain by every character exchanged, and not by quotes and
    dashes alone: those are at home beside letters, and «слово» would pass for letters in disguise.
    """
    read = [(index, reading.text) for index, reading in enumerate(readings) if reading is not None]
    after = language.lines([text for _, text in read])
    made = [
        Won(index, lines[index], text, float(score - before[index]))
        for (index, text), score in zip(read, after, strict=True)
    ]
    return [won for won in made if won.gain > 0 and not (single and _doubtful(won))]


def evidence(chain: tuple[Pair, ...], won: list[Won], language: Model) -> float | None:
    """Return the pooled gain of a chain of readings when it is proof enough, else None."""
    gain = sum(line.gain for line in won)
    kind = "twice" if len(chain) > 1 else "utf-8" if chain[0].right == UTF8 else "single"
    changed = sum(_differing(line.old, line.new) for line in won)
    striking = kind == "single" and gain >= _STRIKING * changed
    needed = _GAIN["utf-8" if striking else kind]
    if gain < max(needed, _GAIN_PER_CHARACTER * changed):
        return None
    if kind != "utf-8" and not (_from_controls(won) or _reads_well(won, language)):
        return None
    return None if kind != "utf-8" and _shouts(won) else gain


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
    exchanged = [a for a, b in zip(won.old, won.new, strict=True) if a != b]
    return won.gain < _GAIN_PER_CHARACTER * len(exchanged) or all(
        char in AT_HOME for char in exchanged
    )


def _reads_well(won: list[Won], language: Model) -> bool:
    """Say whether single-byte readings give natural words, not merely better ones."""
    letters = sum(
        was != now and was not in AT_HOME
        for line in won
        for match in _WORD.finditer(line.new)
        for was, now in zip(line.old[match.start() : match.end()], match.group(), strict=True)
    )
    totals, high = language.telling([line.new for line in won])
    return letters >= LETTERS and float(totals.sum()) >= _NATURAL * float(high.sum())


def _from_controls(won: list[Won]) -> bool:
    """Say whether only C1 controls were exchanged, which no one writes: Windows-1252 as Latin-1.

    U+0085 alone is no sign: it is also a line end.
    """
    exchanged = {
        (was, now)
        for line in won
        for was, now in zip(line.old, line.new, strict=True)
        if was != now
    }
    controls = all("\x80" <= was <= "\x9f" < now for was, now in exchanged)
    return controls and any(was != "\x85" for was, _ in exchanged)
