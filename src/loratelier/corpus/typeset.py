"""How well the characters above ASCII stand in a line of English.

English above ASCII is quotes, dashes and a few accented letters: too little for trigrams, and one
such mark alone is often all the evidence there is. So each is weighed by itself and in its place:
what it costs in nats, the less the likelier.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from loratelier.corpus.english import is_english, may_be_english
from loratelier.corpus.places import is_letter, misfit
from loratelier.corpus.words import is_known

# What a character costs the first time that it stands in a line, where it fits: minus the logarithm
# of how often it is the one above ASCII in typeset English.
_COSTS = {
    **{"’": 1.0, "“": 1.5, "”": 1.5, "—": 1.5, "–": 2.5, "…": 2.5, "‘": 3.5, "\xa0": 4.0},
    **{"é": 4.0, "•": 5.0, "·": 6.0, "×": 5.5, "−": 5.5, "→": 6.0, "№": 7.0, "„": 6.5},
    **dict.fromkeys("©®™°", 5.0),
    **dict.fromkeys("€£§", 5.5),
    **dict.fromkeys("áàâäãåæçèêëíìîïñóòôöøœúùûüß", 5.5),
    **dict.fromkeys("½¼¾²³µ«»±´", 6.0),
    **dict.fromkeys("†‡‹›≤≥≈≠√∑∞", 7.0),
    **dict.fromkeys("¢¥¡¿ðþýÿ", 8.0),
}
_CAPITAL, _OTHER_LATIN, _GREEK, _SYMBOL, _FOREIGN = 6.5, 7.5, 7.5, 8.5, 10.5
_NEVER = 14.0  # controls
_AGAIN = 0.3  # of its cost, where a character stands in the line already
_KNOWN_WORD, _STRANGE_WORD = (6.0, 0.5), (8.0, 1.0)  # a Cyrillic word by itself; each letter of it


_HIGH = re.compile(r"[^\x00-\x7f]+")
_DRAWING = re.compile("[\u2500-\u259f]+")
_DRAWN = 4.0
_CYRILLIC_WORDS = re.compile("[а-яё]{4}")
_CYRILLIC_WORD = re.compile(r"[А-ЯЁа-яё][а-яё]+|[А-ЯЁ]{2,}")

# By how many nats a result must be likelier than the line as it is, all odds counted.
PROVEN = 0.5
PROVEN_LATIN = 8.0  # in what may be English or not: a title, names, a list
_LEAST_ODDS = 2.0
_RAREST = 8.0  # what costs more is no cure
_DOUBTFUL = 4.0


def is_odd(line: str) -> bool:
    """Say whether English marks could stand in a line better than what stands there."""
    if len(_CYRILLIC_WORDS.findall(line)) > 1:
        return False
    if is_english(line):
        least = PROVEN
    elif may_be_english(line):
        least = PROVEN_LATIN
    else:
        return False
    distinct = len({char for char in line if char > "\x7f"})
    return cost(line) - distinct >= least + _LEAST_ODDS


def cost(line: str) -> float:
    """Return what the characters above ASCII cost in English, in nats: 0 where there are none."""
    return sum(_run(line, match.start(), match.end()) for match in _HIGH.finditer(line)) - sum(
        _saved(line)
    )


def _saved(line: str) -> Iterator[float]:
    seen = set()
    for char in line:
        if char > "\x7f":
            if char in seen:
                yield (1 - _AGAIN) * _base(char)
            seen.add(char)


def _run(line: str, start: int, end: int) -> float:
    run = line[start:end]
    beside = line[max(0, start - 1) : start] + line[end : end + 1]
    if _CYRILLIC_WORD.fullmatch(run) and not any(map(str.isalnum, beside)):
        whole, letter = _KNOWN_WORD if is_known(run) else _STRANGE_WORD
        return max(whole + letter * len(run), 0.0)
    if _DRAWING.fullmatch(run) and (len(beside) < 2 or (len(run) > 1 and " " in beside)):
        return _DRAWN + sum(map(_base, run)) - sum(map(_base, set(run)))
    return sum(
        _base(line[n]) + misfit(line, n, foreign=_base(line[n]) >= _FOREIGN)
        for n in range(start, end)
    )


@lru_cache(maxsize=4096)
def _base(char: str) -> float:
    if char in _COSTS:
        return _COSTS[char]
    point = ord(char)
    if point < 0xA0:
        return _NEVER
    if point < 0x180 and char.isalpha():
        return _CAPITAL if char.isupper() else _OTHER_LATIN
    if 0x370 <= point < 0x400:
        return _GREEK
    if 0x2190 <= point < 0x2200 or point >= 0x2E80:
        return _SYMBOL
    return _FOREIGN


def _is_set_well(line: str) -> bool:
    """Say whether nothing stands out of place: a cure leaves no riddle."""
    for match in _HIGH.finditer(line):
        for place in range(match.start(), match.end()):
            if misfit(line, place, foreign=False) >= _DOUBTFUL:
                return False
        if "´" in match.group():
            return False
        if any(map(str.isalpha, match.group())) and not _is_accent(line, match):
            return False
    return True


def _is_accent(line: str, match: re.Match[str]) -> bool:
    """Say whether a run is one accented letter where English has one: rôle, café, Ångström."""
    before, after = line[match.start() - 1 : match.start()], line[match.end() : match.end() + 1]
    char = match.group()
    if len(char) > 1:
        return False
    if char.isupper():
        return not is_letter(before) and after.islower()
    return is_letter(before) and (is_letter(after) or char in "éà")


def gains(line: str, results: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Yield the results that are well set English, and how much less they cost than the line."""
    now = cost(line)
    if now < PROVEN or not (is_english(line) or may_be_english(line)):
        return
    for text in results:
        if _is_set_well(text):
            yield text, now - cost(text)


def may_stand(text: str) -> bool:
    """Say whether English may hold all the characters of a text."""
    return all(_base(char) <= _RAREST for char in set(text) if char > "\x7f")
