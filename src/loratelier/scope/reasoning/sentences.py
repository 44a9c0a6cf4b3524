"""A chain in sentences, and what is done to them: cut, reworded, made wrong, filled."""

import random
import re
from collections.abc import Sequence
from functools import partial

from loratelier.scope.reasoning.problems import Language

# A sentence ends at its mark before a blank, or at the line's end.
_END = re.compile(r"(?<=[.!?…])(?=\s)|(?<=\n)(?=.)")
_NUMBERED = re.compile(r"\s*\(?\d{1,2}[.)]\Z")


def sentences(text: str) -> tuple[str, ...]:
    """Cut a chain into sentences, which together are the text; ``1.`` belongs to what follows."""
    found: list[str] = []
    for piece in _END.split(text):
        if found and (not piece.strip() or not found[-1].strip() or _NUMBERED.match(found[-1])):
            found[-1] += piece
        elif piece:
            found.append(piece)
    return tuple(found)


def part(pieces: Sequence[str], share: float) -> int:
    """Return how many of the sentences a share of them is."""
    return round(share * len(pieces))


# What is true becomes false when one of these takes the other's place.
_OPPOSITES: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("is not", "is"), ("are not", "are"), ("isn't", "is"), ("cannot", "can"), ("more", "less"),
        ("greater", "smaller"), ("taller", "shorter"), ("older", "younger"), ("faster", "slower"),
        ("heavier", "lighter"), ("in front of", "behind"), ("before", "after"), ("first", "last"),
        ("on", "off"), ("true", "false"), ("always", "never"), ("all", "none"), ("yes", "no"),
        ("add", "subtract"), ("adding", "subtracting"), ("will", "will not"), ("can", "cannot"),
        ("does", "does not"), ("do", "do not"), ("was", "was not"), ("has", "has not"),
        ("have", "have not"),
    ),
    "ru": (
        ("не горит", "горит"), ("больше", "меньше"), ("выше", "ниже"), ("старше", "младше"),
        ("быстрее", "медленнее"), ("тяжелее", "легче"), ("перед", "за"), ("первый", "последний"),
        ("первая", "последняя"), ("верно", "неверно"), ("всегда", "никогда"), ("все", "никто"),
        ("да", "нет"), ("прибавить", "отнять"), ("прибавим", "отнимем"), ("есть", "нет"),
        ("может", "не может"), ("можно", "нельзя"), ("будет", "не будет"), ("это", "это не"),
        ("нужно", "не нужно"), ("стоит", "не стоит"),
    ),
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,])\d+(?![\w]|[.,]\d)")


def mistaken(sentence: str, language: Language, seed: str) -> str | None:
    """Return a sentence with one number changed, or its sense denied; None where neither goes.

    A number at random becomes another one near it. Without numbers the first pair of opposites that
    is found is exchanged, or a denial taken away or put in.
    """
    rng = random.Random(seed)
    numbers = [
        n for n in _NUMBER.finditer(sentence) if not _NUMBERED.match(sentence[: n.end() + 1])
    ]
    if numbers:
        one = rng.choice(numbers)
        value = int(one[0])
        others = [value + step for step in (-3, -2, -1, 1, 2, 3) if value + step >= 0]
        return f"{sentence[: one.start()]}{rng.choice(others)}{sentence[one.end() :]}"
    for pair in _OPPOSITES[language]:
        for old, new in (pair, pair[::-1]):
            found = re.search(_word(old), sentence)
            if found:
                turned = _cased(found[0], new)
                return sentence[: found.start()] + turned + sentence[found.end() :]
    return None


def make_mistake(
    pieces: Sequence[str], share: float, language: Language, seed: str
) -> tuple[int, str] | None:
    """Return the sentence nearest to a share of the chain that can be made wrong, and how it reads.

    None where no sentence can.
    """
    wanted = min(part(pieces, share), len(pieces) - 1)
    for at in sorted(range(len(pieces)), key=lambda n: (abs(n - wanted), n)):
        wrong = mistaken(pieces[at], language, f"{seed}/{at}")
        if wrong is not None:
            return at, wrong
    return None


# Words and shapes that may stand for one another; applied from top to bottom.
_REWORDED: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        (r"\bif ([^,.\n]+), then ", r"whenever \1, "), (r"\bif ([^,.\n]+), ", r"whenever \1, "),
        (r"(\d) ?\+ ?(\d)", r"\1 plus \2"), (r"(\d) ?[-−] ?(\d)", r"\1 minus \2"),
        (r"(\d) ?[*×x] ?(\d)", r"\1 times \2"), (r" ?= ?(\d)", r" equals \1"),
        (r"\btherefore\b", "hence"), (r"\bso\b", "thus"), (r"\bbecause\b", "since"),
        (r"\bfirst of all\b", "to begin with"), (r"\bfirst,", "to begin with,"),
        (r"\bfinally\b", "in the end"), (r"\bthen\b", "after that"), (r"\bnext\b", "now"),
        (r"\bbut\b", "yet"), (r"\bhowever\b", "still"), (r"\bwe know\b", "it is known"),
        (r"\bwe need to\b", "we must"), (r"\bfind\b", "work out"), (r"\bdon't\b", "do not"),
        (r"\bisn't\b", "is not"), (r"\bit's\b", "it is"), (r"\bcan't\b", "cannot"),
        (r"\bI'm\b", "I am"), (r"\balso\b", "as well"), (r"\bbig\b", "large"),
        (r"\bstart\b", "begin"), (r"\bstarts\b", "begins"), (r"\bmeans that\b", "tells us that"),
    ),
    "ru": (
        (r"\bесли ([^,.\n]+), то ", r"когда \1, "), (r"\bпотому что\b", "так как"),
        (r"(\d) ?\+ ?(\d)", r"\1 плюс \2"), (r"(\d) ?[-−] ?(\d)", r"\1 минус \2"),
        (r"(\d) ?[*×·] ?(\d)", r"\1 умножить на \2"), (r" ?= ?(\d)", r" равно \1"),
        (r"\bпоэтому\b", "оттого"), (r"\bзначит\b", "следовательно"), (r"\bсначала\b", "вначале"),
        (r"\bзатем\b", "после этого"), (r"\bпотом\b", "после этого"), (r"\bно\b", "однако"),
        (r"\bнаконец\b", "в конце концов"), (r"\bнужно\b", "надо"), (r"\bвыходит\b", "получается"),
        (r"\bто есть\b", "иначе говоря"), (r"\bтакже\b", "тоже"), (r"\bесть\b", "имеется"),
        (r"\bначнём\b", "приступим"), (r"\bнайти\b", "отыскать"), (r"\bбольшой\b", "крупный"),
    ),
}  # fmt: skip


def reworded(sentence: str, language: Language) -> str:
    """Return a sentence said a little otherwise, by fixed rules that keep its sense.

    A rough stand-in for a paraphrase by a writer: connectives, contractions, signs of arithmetic
    and the form of conditions change, and nothing else; a sentence that no rule fits stays.
    """
    for old, new in _REWORDED[language]:
        sentence = re.sub(old, partial(_replaced, new), sentence, flags=re.IGNORECASE)
    return sentence


def _replaced(new: str, found: re.Match[str]) -> str:
    return _cased(found[0], found.expand(new))


def _word(words: str) -> str:
    return rf"(?i)(?<!\w){re.escape(words)}(?!\w)"


def _cased(old: str, new: str) -> str:
    """Return the new words with a capital where the old ones had one."""
    bare = old.lstrip()
    return new[:1].upper() + new[1:] if bare[:1].isupper() else new
