"""The search for a damage that lines share: every reading, its evidence pooled over all of them.

It mends what no line can prove by itself: lines that lost bytes, and words damaged among others.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from loratelier.corpus import typeset
from loratelier.corpus.codecs import UTF8, Reading, reread
from loratelier.corpus.evidence import evidence, won_lines
from loratelier.corpus.language import Model
from loratelier.corpus.undo import PAIRS, READS, Chain, may_be_russian
from loratelier.corpus.words import known_share

# Lines whose characters above ASCII score better than this on average look right, in nats.
GOOD = -3.6
# This many readings are looked at closely: what trigrams rank lower is no cure.
_SHORTLIST = 12

_BY_DESIGN = 10.0

# Someone who writes about damage shows it as code.
_QUOTED = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")

_CONTROLS = re.compile("[\x80-\x84\x86-\x9f]")

_SWAPS = tuple(pair for pair in PAIRS if pair.right != UTF8)
_FROM_UTF8 = tuple(pair for pair in PAIRS if pair.right == UTF8)


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
    lines = [line for line in lines if _may_be_exchanged(line)]
    if not lines:
        return as_utf8
    once = _best(_likely([(pair,) for pair in _SWAPS], lines, language), lines, language)
    return as_utf8 if as_utf8 and (once is None or as_utf8.gain + _BY_DESIGN > once.gain) else once


def _may_be_exchanged(line: str) -> bool:
    possible = may_be_russian(line) or typeset.is_odd(line) or _CONTROLS.search(line)
    return bool(possible) and known_share(line) < READS


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


def is_quoted(line: str) -> bool:
    """Say whether all that a line holds above ASCII stands in code, as text about damage does."""
    return "`" in line and _QUOTED.sub("", line).isascii()


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
