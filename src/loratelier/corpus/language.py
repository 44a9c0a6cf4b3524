"""How much a text looks like Russian and English as people write them.

A trigram model over character classes, counted from prose that we wrote for it. A class is one
letter (upper and lower together), one mark, or a family such as accented letters or box drawing;
within a family every character is equally likely. Log-probabilities are in nats.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from loratelier.corpus.codecs import SINGLE, high_characters
from loratelier.kit.errors import InputError, did_you_mean

LANGUAGES = {"ru": ("prose_ru.txt", "prose_marks.txt"), "en": ("prose_en.txt", "prose_marks.txt")}

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
_SINGLES = "\n \t.,-'\"():;!?*#`|/_=>[]—–«»“”‘’„…·№•−"
_ACCENTED = "àáâãäåæçèéêëìíîïñòóôõöøùúûüßœ"

# Marks that stand in clean prose of any language beside any letter.
AT_HOME = frozenset("«»“”„‘’‚—–…№·•−†\xa0")

_SCRIPT_BREAK = 6.0  # a Latin letter beside a Cyrillic one, inside a word
_CASE_BREAK = 4.0  # a capital after a small letter, inside a word
_LONE_CAPITAL = 5.0  # besides: such a capital with no other beside it, as in «моЯ»
_GLUED = 4.0  # a sign that stands apart in clean text, right before or after a Cyrillic letter
_UNSPACED = 3.0  # a dash, a closing quote or a no-break space that begins a line or a small word

_SIGNS = frozenset("√≈¬ƒ∆◊÷≤≥∞≠∂∑∏π∫Ω¿¡€™£¥§¶ß®©¢¤¦¨ª¯´¸¹º¼¾†‡‰ˆ˜‹›")
_OPENERS = re.compile(r"^[»”’…\xa0](?=[ а-яё])|(?:^|(?<=\s))[—–](?=[а-яё])", re.MULTILINE)


def _families() -> list[tuple[Iterable[int], float, float]]:
    """Return the families of characters: code points, their effective number, a prior count.

    A later family takes only what earlier ones left.
    """
    return [
        (map(ord, "0123456789"), 10, 20),
        (range(0x20, 0x7F), 12, 20),
        (map(ord, _ACCENTED), 30, 12),
        (map(ord, _ACCENTED.upper()), 30, 2),
        ([0xA0, 0x2009, 0x202F], 3, 2),
        (map(ord, "§©®™°€£²³µ½"), 11, 4),
        (map(ord, "¡¢¤¥¦¨ª¬¯´¶¸¹º¼¾¿†‡‰ˆ˜ƒ‹›‚◊˙˚˝˛ˇ⁄ﬁﬂ˘¢"), 40, 1),
        ([*range(0x2190, 0x2300), 0xB1, 0xD7, 0xF7, 0x1D62], 20, 10),
        (range(0x370, 0x400), 30, 8),
        (range(0x2500, 0x25A0), 60, 1),
        ([*range(0x25A0, 0x2C00), 0xFE0F, 0x200D], 60, 10),
        ([*range(0x00, 0x20), *range(0x7F, 0xA0)], 60, 0.5),
        ([0xAD, 0x200B, 0x2011, 0xFEFF], 4, 0.5),
        (range(0xC0, 0x250), 80, 1),
        (range(0x400, 0x530), 60, 2),
        ([0xFFFD], 30, 1),
        (range(0xE000, 0xF900), 200, 0.5),
        (range(0x10000), 400, 3),
    ]


class Model:
    """Scores text; made once per language by :func:`model`."""

    def __init__(self, training: str, *, knows_russian: bool) -> None:
        self.knows_russian = knows_russian
        self._class, spread, prior = _classes()
        self._emoji = int(self._class[0x2728])
        counts = np.asarray(prior, dtype=np.float64)
        table = _trigrams(self.classes(training), counts)
        self._table = (table - np.log(spread)).astype(np.float32)
        self._script, self._case = _scripts_and_cases()

    def classes(self, text: str) -> NDArray[np.uint8]:
        """Return the class of every character, [len(text)]."""
        points = _points(text)
        found: NDArray[np.uint8] = self._class[np.minimum(points, 0xFFFF)]
        found[points > 0xFFFF] = self._emoji
        return found

    def per_character(self, text: str) -> NDArray[np.float32]:
        """Return the log-probability of every character given the two before it, in nats."""
        if not text:
            return np.zeros(0, dtype=np.float32)
        now = self.classes("\n\n" + text)
        scores: NDArray[np.float32] = self._table[now[:-2], now[1:-1], now[2:]]
        points = np.minimum(_points("\n" + text), 0xFFFF)
        script, case = self._script[points], self._case[points]
        before, after = script[:-1], script[1:]
        scores -= np.float32(_SCRIPT_BREAK) * ((before > 0) & (after > 0) & (before != after))
        # Camel case is at home in Latin identifiers, not in Cyrillic or accented words.
        breaks = (case[:-1] == 1) & (case[1:] == 2)
        scores -= np.float32(_CASE_BREAK) * breaks
        lone = breaks & (np.append(case[2:], 0) != 2)
        scores -= np.float32(_LONE_CAPITAL) * lone
        sign = _signs()[points]
        glued = (sign[:-1] & (script[1:] == 2)) | (sign[1:] & (script[:-1] == 2))
        scores -= np.float32(_GLUED) * glued
        for match in _OPENERS.finditer(text):
            scores[match.start()] -= np.float32(_UNSPACED)
        return scores

    def lines(self, lines: Sequence[str]) -> NDArray[np.float64]:
        """Return each line's total log-probability, in nats."""
        if not lines:
            return np.zeros(0)
        scores = self.per_character("\n".join(lines) + "\n").astype(np.float64)
        totals: NDArray[np.float64] = np.add.reduceat(scores, _starts(lines))
        return totals

    def telling(self, lines: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return, for each line, the total over its telling characters, and how many they are.

        Telling are the characters above ASCII that damage can make, less the marks of clean prose:
        an emoji or a dash says nothing about an encoding.
        """
        if not lines:
            return np.zeros(0), np.zeros(0, dtype=np.int64)
        text = "\n".join(lines) + "\n"
        mask = _telling()[np.minimum(_points(text), 0xFFFF)]
        scores = np.where(mask, self.per_character(text), 0.0).astype(np.float64)
        starts = _starts(lines)
        return np.add.reduceat(scores, starts), np.add.reduceat(mask.astype(np.int64), starts)


def _starts(lines: Sequence[str]) -> NDArray[np.int64]:
    """Return where each line begins in the joined text."""
    return np.cumsum([0] + [len(line) + 1 for line in lines[:-1]])


@lru_cache
def _signs() -> NDArray[np.bool_]:
    table = np.zeros(0x10000, dtype=np.bool_)
    table[[ord(char) for char in _SIGNS]] = True
    return table


@lru_cache
def _telling() -> NDArray[np.bool_]:
    table = np.zeros(0x10000, dtype=np.bool_)
    made = {char for codec in SINGLE for char in high_characters(codec)}
    table[[ord(char) for char in made - AT_HOME]] = True
    return table


@lru_cache
def model(language: str | None) -> Model:
    """Return the model of ``ru``, ``en``, or of both (None).

    Raises:
        InputError: a language that we have no model of.
    """
    if language is not None and language not in LANGUAGES:
        raise InputError(f"No language model of '{language}'", did_you_mean(language, LANGUAGES))
    chosen = [language] if language else list(LANGUAGES)
    names = dict.fromkeys(name for one in chosen for name in LANGUAGES[one])
    folder = files("loratelier.corpus") / "data"
    prose = "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
    training = f"{prose}\n{printed(prose)}" if "prose_en.txt" in names else prose
    return Model(training, knows_russian="ru" in chosen)


def printed(text: str) -> str:
    """Set straight quotes, apostrophes and hyphens between spaces as a printer does."""
    text = re.sub(r"(?<=\w)'(?=\w)", "’", text)
    text = re.sub(r'"([^"\n]+)"', "“\\1”", text)
    return re.sub(r" --? ", " — ", text).replace("...", "…")


def _points(text: str) -> NDArray[np.uint32]:
    # Lone surrogates can stand in a Python string, and are no character of any language.
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)


@lru_cache
def _classes() -> tuple[NDArray[np.uint8], NDArray[np.float64], tuple[float, ...]]:
    """Return the class of every code point below 0x10000, each class' size and prior count."""
    unset = 255
    table = np.full(0x10000, unset, dtype=np.uint8)
    spread: list[float] = []
    prior: list[float] = []
    for char in _LATIN + _RUSSIAN + _SINGLES:
        table[ord(char)] = table[ord(char.upper())] = len(spread)
        spread.append(1.0)
        prior.append(0.5)
    for points, size, count in _families():
        members = np.fromiter(points, dtype=np.int64)
        free = members[table[members] == unset]
        table[free] = len(spread)
        spread.append(float(size))
        prior.append(count)
    return table, np.asarray(spread), tuple(prior)


def _trigrams(text: NDArray[np.uint8], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log p(c | a, b) as [a, b, c], each order smoothed by the one below (Witten-Bell)."""
    size = len(prior)
    count = np.zeros((size, size, size))
    np.add.at(count, (text[:-2], text[1:-1], text[2:]), 1.0)
    pairs = count.sum(axis=0)
    single = pairs.sum(axis=0) + prior
    unigram = single / single.sum()
    bigram = _smooth(pairs, unigram)
    return np.log(_smooth(count, bigram[None, :, :]))


def _smooth(count: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    seen = count.sum(axis=-1, keepdims=True)
    kinds = np.maximum((count > 0).sum(axis=-1, keepdims=True), 1)
    smoothed: NDArray[np.float64] = (count + kinds * lower) / (seen + kinds)
    return smoothed


@lru_cache
def _scripts_and_cases() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return each code point's script (0 none, 1 Latin, 2 Cyrillic) and case (1 small, 2 capital).

    Case is given for Cyrillic and accented letters alone.
    """
    script = np.zeros(0x10000, dtype=np.uint8)
    case = np.zeros(0x10000, dtype=np.uint8)
    for point in [
        *range(0x41, 0x5B),
        *range(0x61, 0x7B),
        *range(0xC0, 0x250),
        *range(0x400, 0x530),
    ]:
        char = chr(point)
        if not char.isalpha():
            continue
        script[point] = 2 if point >= 0x400 else 1
        if point > 0x7F:
            case[point] = 1 if char.islower() else 2
    return script, case


def nats_per_character(total: float, characters: int) -> float:
    """Return a mean log-probability, rounded for a report; 0 for no characters."""
    return round(total / characters, 2) if characters else 0.0
