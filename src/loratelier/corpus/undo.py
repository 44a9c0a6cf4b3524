"""What one line was before it was misread once or twice, by Bayes' rule.

Every chain of misreadings that can have made the whole line is undone. A result is as likely as its
text, times the odds of all chains that lead to it; it must outweigh the line as it is. English
above ASCII is weighed by :mod:`~loratelier.corpus.typeset`; Russian by trigrams and the dictionary.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from loratelier.corpus import marks, typeset
from loratelier.corpus.codecs import SINGLE, UTF8, Pair, high_characters
from loratelier.corpus.english import is_english
from loratelier.corpus.language import Model
from loratelier.corpus.words import is_known, known_share

Chain = tuple[Pair, ...]

PAIRS = tuple(
    Pair(wrong, right) for right, wrong in product((UTF8, *SINGLE), SINGLE) if wrong != right
)

# These two agree on small letters: a line that was taken for the other reads well but for capitals.
_ONE_OF_TWO = tuple(
    pair for pair in PAIRS if {pair.wrong, pair.right} == {"cp1251", "mac_cyrillic"}
)
_TWINS: tuple[Chain, ...] = (
    *((pair,) for pair in _ONE_OF_TWO),
    *((pair, pair) for pair in _ONE_OF_TWO),
)

# The odds that a line was damaged by one pair of 49, or by one chain of 2,401, which is rarer.
_ONCE, _TWICE = -float(np.log(len(PAIRS))), -float(np.log(len(PAIRS) ** 2)) - 0.5
_SEEN = 4.0  # how much likelier a chain is that mended other lines of the same source
_AT_ONCE = 20.0  # a gain by a chain seen before that needs no other to be tried

_PROVEN_RUSSIAN = 5.0
_GLUED = 10.0  # for a Cyrillic letter beside a Latin one
_FEWEST_LETTERS = 4
_CHANCE = 3  # letters
_CLOSEST = 8  # results whose words are looked up
_KNOWN_SHARE = 0.6
_RUSSIAN_SHARE = 0.75  # of what no other language in Cyrillic shares with Russian
_SURE, _STRANGE = 15.0, 40.0  # gains that need no words known besides
# A dictionary word is likelier than its trigrams say, the more so the longer it is.
_KNOWN, _KNOWN_LETTER, _SHORT, _MOST = 5.0, 1.5, 5, 20.0
_CAPITAL = 2.5  # a line begins with a capital more often than not
_STRANGEST = -5.5  # nats a letter: names that no dictionary has keep above it

_FAMILIAR = re.compile(r"[\x00-\x7f\xa0-\xffА-яЁё«»“”„‘’‚—–…№•−†€™→≈≤≥‹›]*")
_CYRILLIC = re.compile("[А-яЁё]")
_HIGH = re.compile(r"[^\x00-\x7f]+")
_LONG_RUN = re.compile(r"[^\x00-\x7f]{3}")
READS = 0.25  # of its letters in words that the dictionary knows: no garble, nor another language
_UPSET, _CALM = re.compile("[а-яё][А-ЯЁ]"), 40  # a capital after a small letter, and in how much
_SMALL = re.compile("[а-яё]{3,}")
_RUSSIAN = re.compile("[А-яЁё]{3,}")
_INSIDE = re.compile("[А-яЁё][№«»“”„…—–†•][А-яЁё]")  # a mark within a word
_STRANGE_LETTER = re.compile("[^А-яЁё]")
_SCRIPTS_MIXED = re.compile("(?<=[A-Za-z])[А-яЁё]|(?<=[А-яЁё])[A-Za-z]")


@dataclass(frozen=True)
class Undone:
    """What a line was before damage, and by how many nats that is likelier than the line as it is.

    ``chain`` is the likeliest of the ``chains`` of misreadings that lead there, in the order in
    which they are to be undone.
    """

    text: str
    chain: Chain
    gain: float
    chains: tuple[Chain, ...]


def undo(line: str, language: Model, seen: frozenset[Chain] = frozenset()) -> Undone | None:
    """Return what a line was before it was misread once or twice, or None where that is not proven.

    Args:
        line: any line; each of its characters above ASCII must come from the damage.
        language: what Russian text is weighed by.
        seen: chains that mended other lines of the same source.
    """
    runs = _Runs(line)
    if language.knows_russian and known_share(line) >= READS:
        undone = _best(runs, _through(runs.key, _TWINS), language, seen)
        return undone if undone and _is_better(line, undone) else None
    if not (runs.may_be_russian or typeset.is_odd(line)):
        return None
    known = _best(runs, _through(runs.key, seen), language, seen)
    if known is not None and known.gain >= _AT_ONCE:
        return known
    return _best(runs, _results(runs.key), language, seen)


def _is_better(line: str, undone: Undone) -> bool:
    """Say whether a line that read well reads better: known words, marks and capitals in place."""
    before, after = known_share(line), known_share(undone.text)
    if after >= _RUSSIAN_SHARE and undone.gain >= _STRANGE:
        return True
    upset = len(_UPSET.findall(undone.text)) > len(_UPSET.findall(line))
    torn = _INSIDE.search(undone.text) and not _INSIDE.search(line)
    # Letters of two alphabets in a word were typed so.
    if upset or torn or _mixed(undone.text) != _mixed(line):
        return False
    if after > before or undone.gain >= _SURE:
        return True
    exchanged = (was for was, now in zip(line, undone.text, strict=True) if was != now)
    strange = any(map(_STRANGE_LETTER.match, exchanged))
    gain = undone.gain + marks.gain(line, undone.text)
    return strange and after >= _RUSSIAN_SHARE and gain >= _PROVEN_RUSSIAN


def may_be_russian(line: str) -> bool:
    """Say whether there is anything in a line that a Russian word may have become."""
    return _LONG_RUN.search(line) is not None


class _Runs:
    """The distinct runs of characters above ASCII in a line: all that damage can change."""

    def __init__(self, line: str) -> None:
        self.line = line
        self._runs = tuple(dict.fromkeys(_HIGH.findall(line)))
        self.key = "\n".join(self._runs)
        self.may_be_russian = may_be_russian(line)

    def filled(self, key: str) -> str:
        """Return the line with what its runs have become in their places."""
        made = dict(zip(self._runs, key.split("\n"), strict=True))
        return _HIGH.sub(lambda match: made[match.group()], self.line)


def read(line: str, pair: Pair) -> str | None:
    """Read a whole line again; None unless the damage can have made every character of it."""
    table, members = _table(pair)
    if not members.issuperset(line):
        return None
    made = line.translate(table)
    if pair.right != UTF8:
        return made
    try:
        return made.encode("latin-1").decode(UTF8)
    except UnicodeDecodeError:
        return None


Results = dict[str, list[Chain]]


@lru_cache(maxsize=1024)
def _results(line: str) -> Results:
    """Return every text that a line may have been, with the chains that lead there."""
    found: Results = {}
    for first in PAIRS:
        once = read(line, first)
        if once is None or once == line:
            continue
        found.setdefault(once, []).append((first,))
        for second in PAIRS:
            twice = read(once, second)
            if twice is not None and twice not in (line, once):
                found.setdefault(twice, []).append((first, second))
    return found


def _through(line: str, chains: Iterable[Chain]) -> Results:
    found: Results = {}
    for chain in chains:
        text: str | None = line
        for pair in chain:
            text = read(text, pair) if text is not None else None
        if text is not None and text != line:
            found.setdefault(text, []).append(chain)
    return found


def _best(runs: _Runs, results: Results, language: Model, seen: frozenset[Chain]) -> Undone | None:
    """Return the likeliest of some results, each written as the runs of the line."""
    odds = {key: _odds(chains, seen) for key, chains in results.items()}
    gains: dict[str, tuple[float, str]] = {}
    needed = typeset.PROVEN if is_english(runs.line) else typeset.PROVEN_LATIN
    set_well = {runs.filled(key): key for key in results if typeset.may_stand(key)}
    for text, gain in typeset.gains(runs.line, set_well):
        gains[text] = (gain + odds[set_well[text]], set_well[text])
    if language.knows_russian and (not gains or max(gains.values())[0] < needed):
        needed = _PROVEN_RUSSIAN
        gains = {
            text: (gain + odds[key], key) for text, key, gain in _russian(runs, odds, language)
        }
    if not gains:
        return None
    text = max(gains, key=gains.__getitem__)
    gain, key = gains[text]
    if gain < needed:
        return None
    chains = sorted(results[key], key=lambda chain: (chain not in seen, len(chain)))
    return Undone(text, chains[0], gain, tuple(chains))


def _odds(chains: list[Chain], seen: frozenset[Chain]) -> float:
    each = [
        (_ONCE if len(chain) == 1 else _TWICE) + (_SEEN if chain in seen else 0.0)
        for chain in chains
    ]
    return float(np.logaddexp.reduce(each))


def _russian(
    runs: _Runs, odds: dict[str, float], language: Model
) -> Iterator[tuple[str, str, float]]:
    """Yield the likeliest results that are Russian: text, runs, how much likelier, in nats."""
    keys = [
        key
        for key in odds
        if _FAMILIAR.fullmatch(key)
        and len(_CYRILLIC.findall(key)) >= _FEWEST_LETTERS
        and len(_UPSET.findall(key)) <= 1 + len(key) // _CALM
    ]
    if not keys:
        return
    line, texts = runs.line, [runs.filled(key) for key in keys]
    totals = language.lines([line, *texts])
    order = sorted(
        range(len(texts)), key=lambda n: float(totals[n + 1]) + odds[keys[n]], reverse=True
    )
    before = float(totals[0]) + _words(line)
    share = known_share(line)
    written = any(map(str.isalpha, runs.key))  # and not drawn
    for n in order[:_CLOSEST]:
        glued = max(0, _mixed(texts[n]) - _mixed(line))
        gain = float(totals[n + 1]) + _words(texts[n]) - before - _GLUED * glued
        # New words and names are in no dictionary; nor is another language, which gains little.
        sure = written and gain >= (_SURE if share >= READS else _STRANGE) and _is_written(keys[n])
        sure = sure and _sounds(texts[n], language)
        if sure or (known_share(texts[n]) >= _KNOWN_SHARE and _says(texts[n])):
            yield texts[n], keys[n], gain


def _is_written(key: str) -> bool:
    """Say whether there is a word in small letters, and more than one letter over and over."""
    return len(set("".join(_SMALL.findall(key)))) >= _FEWEST_LETTERS


def _sounds(text: str, language: Model) -> bool:
    """Say whether letters follow each other as in Russian: accented ones in a row do not."""
    totals, high = language.telling([text])
    return float(totals[0]) >= _STRANGEST * float(high[0])


def _says(text: str) -> bool:
    """Say whether there is more Russian than chance makes: a known word, and not a short one."""
    return sum(len(word) for word in _RUSSIAN.findall(text) if is_known(word)) > _CHANCE


def _mixed(text: str) -> int:
    return len(_SCRIPTS_MIXED.findall(text))


def _words(text: str) -> float:
    known = sum(
        min(_KNOWN + _KNOWN_LETTER * max(0, len(word) - _SHORT), _MOST)
        for word in _RUSSIAN.findall(text)
        if is_known(word)
    )
    return known + _CAPITAL * text[:1].isupper()


@lru_cache
def _table(pair: Pair) -> tuple[dict[int, str], frozenset[str]]:
    """Return how a reading exchanges characters, and which ones the wrong codec has."""
    wrong = high_characters(pair.wrong)
    right = (
        tuple(map(chr, range(0x80, 0x100))) if pair.right == UTF8 else high_characters(pair.right)
    )
    table = dict(zip(map(ord, wrong), right, strict=True))
    return table, frozenset(wrong) | frozenset(map(chr, range(0x80)))
