"""Whether Russian words exist: what tells one wrong letter from none, where letters cannot."""

import re
from collections.abc import Iterator
from functools import lru_cache

from pymorphy3 import MorphAnalyzer

_RUN = re.compile(r"[\u0400-\u04ff]+")
_TELLING = re.compile(r"[^\x00-\x7f\xa0«»“”„‘’—–…№]+")
_SHORT = re.compile(r"(?<![\u0400-\u04ff])[\u0400-\u04ff]{1,2}(?![\u0400-\u04ff])")
_BROKEN = re.compile(r"[а-яё][А-ЯЁ]")
_LONG = 3

_KNOWN = 1.0  # nats a letter that a word in the dictionary is worth, and at most four of them
_UNKNOWN = -2.0
_LETTERS = frozenset("авикосуя")  # words by themselves
_LETTER = 2.0
_STILL_UNKNOWN = -4.0
_STRANGE = re.compile(r"\W*[\u0400-\u04ff]{2,}\W*")


@lru_cache
def _dictionary() -> MorphAnalyzer:
    return MorphAnalyzer(lang="ru")


@lru_cache(maxsize=50_000)
def is_known(word: str) -> bool:
    """Say whether a Russian word form stands in the dictionary, capitals where they may be."""
    if _BROKEN.search(word):
        return False
    known: bool = _dictionary().word_is_known(word.lower())
    return known


@lru_cache(maxsize=50_000)
def lemmas(word: str) -> frozenset[str]:
    """Return every dictionary form that a Russian word may be a form of; guessed if unknown."""
    return frozenset(each.normal_form for each in _dictionary().parse(word.lower()))


def known_share(text: str) -> float:
    """Return how much of a text above ASCII is Russian words that the dictionary knows, 0 to 1.

    Words of three letters and more count, and so does whatever else is no mark of clean prose.
    """
    known = sum(len(run) for run in _RUN.findall(text) if len(run) >= _LONG and is_known(run))
    others = sum(map(len, _TELLING.findall(_SHORT.sub("", text))))
    return known / others if others else 0.0


def worth(token: str) -> float:
    """Return what the Russian words in a token are worth as evidence, in nats.

    Two letters tell little: nearly all of them are some abbreviation.
    """
    total = 0.0
    for run in _RUN.findall(token):
        if len(run) == 1:
            total += _LETTER if run.lower() in _LETTERS else -_LETTER
        elif len(run) >= _LONG:
            total += min(_KNOWN * len(run), 4.0) if is_known(run) else _UNKNOWN
    return total


def gain(old: str, new: str) -> float:
    """Return how much more the words are worth after a reading, in nats.

    Only what stands between white space and was changed is looked at, or the whole of both texts
    when their lengths differ.
    """
    if len(old) != len(new):
        return worth(new) - worth(old)
    tokens = ((old[start:end], new[start:end]) for start, end in _tokens(old, new))
    return sum(_exchange(was, now) for was, now in tokens if was != now)


def _exchange(old: str, new: str) -> float:
    """Return what one token gains; one strange word that became another is worse than before.

    That is what happens to other languages in Cyrillic, which our dictionary does not know.
    """
    gained = worth(new) - worth(old)
    differing = sum(was != now for was, now in zip(old, new, strict=True))
    strange = _STRANGE.fullmatch(old) and not all(map(is_known, _RUN.findall(new)))
    return gained + (_STILL_UNKNOWN if strange and 2 * differing <= len(old) else 0.0)


def _tokens(old: str, new: str) -> Iterator[tuple[int, int]]:
    """Yield the spans between places that are white space in both texts."""
    start = 0
    for place, (was, now) in enumerate(zip(old, new, strict=True)):
        if was.isspace() and now.isspace():
            yield start, place
            start = place + 1
    yield start, len(new)
