"""The search for a damage: every reading once, and every two of them where one is not enough."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from loratelier.corpus.codecs import (
    SINGLE,
    UTF8,
    Pair,
    Reading,
    high_characters,
    reread,
)
from loratelier.corpus.evidence import evidence, won_lines
from loratelier.corpus.language import Model
from loratelier.corpus.words import known_share

# Lines whose characters above ASCII score better than this on average look right, in nats.
GOOD = -3.6
# Only text worse than this is worth the thousand pairs of readings, and a few lines of it suffice.
_GARBLED = -4.2
_TWICE_LINES = 8
# Of those pairs this many are looked at closely: what trigrams rank lower is no cure.
_SHORTLIST = 12
# Two misreadings are rarer than one: a second must be worth this much more, in nats.
_SECOND = 8.0

_BY_DESIGN = 10.0
_READS = 0.5  # of a line's Cyrillic, in known words

# Someone who writes about damage shows it as code.
_QUOTED = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")

# Characters that clean Russian and English hardly ever need: a line with one is looked at again.
_ODD = re.compile(
    r"[\x7f-\xa8\xaa-\xac\xaf\xb4-\xb6\xb8-\xba\xbc-\u03ff\u0402-\u040f\u0450-\u04ff"
    r"†‡‰ˆ˜‹›‚€™√≈∆\u2500-\u259f\ue000-\uf8ff]"
    # One capital inside or after small Cyrillic letters, scripts mixed in a word, single capitals.
    r"|[а-яё][А-ЯЁ](?![А-ЯЁ])|[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]"
    r"|(?<![\w.])[БГДЕЖЗЙЛМНПРСТУФХЦЧШЩЪЫЬЭЮ](?![\w.])|[A-Za-z][\xc0-\u024f]|[\xc0-\u024f][A-Za-z]"
    # Marks where they do not belong.
    r"|^[»”’…\xa0–—][ а-яёa-z]|\s[»”’…–—][а-яё]|[«“„—–][ ]?$|[«“„][»”]|^[«“‘„][^»”’“]*$"
)

# An apostrophe, a quote or a dash that was UTF-8 and was exchanged thereafter.
_SPRINKLED = re.compile(
    r"[A-Za-z][^\x00-\x7f]{3,9}[a-z]{0,2}\b|(?<!\S)[^\x00-\x7f\w]{3,9}[A-Za-z ]"
)

Chain = tuple[Pair, ...]

_PAIRS = tuple(
    Pair(wrong, right) for right, wrong in product((UTF8, *SINGLE), SINGLE) if wrong != right
)
_SWAPS = tuple(pair for pair in _PAIRS if pair.right != UTF8)
_FROM_UTF8 = tuple(pair for pair in _PAIRS if pair.right == UTF8)


@dataclass(frozen=True)
class Found:
    """Readings to apply one after the other, and what they would gain, in nats."""

    pairs: Chain
    gain: float


def search(lines: list[str], language: Model) -> Found | None:
    """Return the best-proven damage in some lines, or None.

    A reading as UTF-8 counts for more: bytes form it by design and hardly ever by chance.
    """
    as_utf8 = _best([(pair,) for pair in _FROM_UTF8], lines, language)
    if as_utf8 and _is_good(_after(lines, as_utf8), language):
        return as_utf8
    # Between single-byte codecs a damaged line is Russian no more: one that reads is left out.
    lines = [line for line in lines if known_share(line) < _READS]
    if not lines:
        return as_utf8
    once = _best(_likely([(pair,) for pair in _SWAPS], lines, language), lines, language)
    if as_utf8 and (once is None or as_utf8.gain + _BY_DESIGN > once.gain):
        return as_utf8
    garbled = _garbled(_after(lines, once), lines, language, mended=once is not None)
    if not garbled:
        return once
    twice = _best(_likely(_twice(), garbled, language), garbled, language)
    if once is None or twice is None:
        return twice or once
    before = _best([once.pairs], garbled, language)
    return twice if twice.gain > (before.gain if before else 0.0) + _SECOND else once


def read_chain(lines: list[str], chain: Chain) -> list[Reading | None]:
    """Read lines again under each damage of a chain in turn; None where nothing changes."""
    current = lines
    for pair in chain:
        readings = reread(current, pair)
        current = [
            reading.text if reading else line
            for line, reading in zip(current, readings, strict=True)
        ]
    if len(chain) == 1:
        return readings
    return [Reading(new) if new != old else None for old, new in zip(lines, current, strict=True)]


def _after(lines: list[str], found: Found | None) -> list[str]:
    if found is None:
        return lines
    readings = read_chain(lines, found.pairs)
    return [
        reading.text if reading else line for line, reading in zip(lines, readings, strict=True)
    ]


def looks_odd(line: str) -> bool:
    """Say whether a line holds what clean Russian and English hardly ever need."""
    return _ODD.search(_QUOTED.sub("", line)) is not None


def is_quoted(line: str) -> bool:
    """Say whether all that a line holds above ASCII stands in code, as text about damage does."""
    return "`" in line and _QUOTED.sub("", line).isascii()


def _garbled(after: list[str], lines: list[str], language: Model, *, mended: bool) -> list[str]:
    """Return some of the lines that look wrong even after one reading.

    Without one they must be mostly above ASCII and read like no language, or hold in some word more
    such characters than any letter or mark is worth.
    """
    totals, high = language.telling(after)
    chosen = []
    for line, now, total, count in zip(lines, after, totals, high, strict=True):
        bad = total < _GARBLED * count
        mostly = 2 * count > sum(char.isalpha() for char in now)
        if (
            (bad and mostly)
            or (mended and now != line and looks_odd(now))
            or _SPRINKLED.search(now)
        ):
            chosen.append(line)
    return chosen[:_TWICE_LINES]


def _best(chains: Iterable[Chain], lines: list[str], language: Model) -> Found | None:
    best: Found | None = None
    before = language.lines(lines)
    for chain in chains:
        readings = read_chain(lines, chain)
        if not any(readings):
            continue
        won = won_lines(lines, before, readings, language, chain)
        gain = evidence(chain, won, language)
        if gain is not None and (best is None or gain > best.gain + 1e-6):
            best = Found(chain, gain)
    return best


def _is_good(lines: list[str], language: Model) -> bool:
    totals, high = language.telling(lines)
    return float(totals.sum()) >= GOOD * float(high.sum())


def _likely(chains: Iterable[Chain], lines: list[str], language: Model) -> list[Chain]:
    """Return the chains that trigrams like best, one of those that agree."""
    results: dict[tuple[str, ...], Chain] = {}
    for chain in chains:
        result = _after(lines, Found(chain, 0.0))
        if result != lines:
            results.setdefault(tuple(result), chain)
    if not results:
        return []
    flat = [line for result in results for line in result]
    totals = language.lines(flat).reshape(len(results), len(lines)).sum(axis=1)
    order = sorted(zip(totals, results.values(), strict=True), key=lambda pair: -float(pair[0]))
    return [chain for _, chain in order[:_SHORTLIST]]


@lru_cache
def _twice() -> tuple[Chain, ...]:
    """Return the chains of two readings, leaving out those that come to the same."""
    found: dict[tuple[tuple[str, str], ...], Chain] = {}
    for first, second in product(_SWAPS, _SWAPS):
        if second.wrong != first.right:
            outer, inner = _exchange(second), _exchange(first)
            both = {a: outer.get(b, b) for a, b in inner.items()}
            found.setdefault(tuple(sorted((outer | both).items())), (first, second))
    mixed = (*product(_SWAPS, _FROM_UTF8), *product(_FROM_UTF8, _SWAPS))
    return (*found.values(), *(chain for chain in mixed if chain[1].wrong != chain[0].right))


def _exchange(pair: Pair) -> dict[str, str]:
    return dict(zip(high_characters(pair.wrong), high_characters(pair.right), strict=True))
