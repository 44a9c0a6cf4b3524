"""How nodes are called: words in common, and numbers that are written as words or as digits."""

import re
from collections.abc import Mapping
from functools import lru_cache

from loratelier.corpus.scenes import Node

_WORD = re.compile(r"[^\W_]+")
# So many letters of a word tell it from others in spite of its ending, in both languages.
_STEM = 5
# Words that nearly every name has say nothing of what it names.
_EMPTY = frozenset(
    {
        *("a", "an", "and", "at", "her", "his", "in", "is", "it", "its", "of", "on", "or", "the"),
        *("their", "to", "в", "и", "кто", "на", "по", "с", "та", "то", "тот", "у", "что", "это"),
    }
)

_NUMBERS: Mapping[str, int] = {
    word: number
    for number, words in {
        0: "zero nothing ноль нуль",
        1: "one once один одна одно одного одной раз однажды",
        2: "two twice два две двое двух двоих дважды оба обе",
        3: "three thrice три трое трёх троих трижды",
        4: "four четыре четверо четырёх четверых",
        5: "five пять пятеро пяти",
        6: "six шесть шестеро шести",
        7: "seven семь семеро семи",
        8: "eight восемь восьми",
        9: "nine девять девяти",
        10: "ten десять десяти",
        11: "eleven одиннадцать одиннадцати",
        12: "twelve dozen двенадцать двенадцати дюжина",
        13: "thirteen тринадцать",
        14: "fourteen четырнадцать",
        15: "fifteen пятнадцать",
        16: "sixteen шестнадцать",
        17: "seventeen семнадцать",
        18: "eighteen восемнадцать",
        19: "nineteen девятнадцать",
        20: "twenty двадцать двадцати",
        30: "thirty тридцать тридцати",
        40: "forty сорок сорока",
        50: "fifty пятьдесят пятидесяти",
        60: "sixty шестьдесят",
        70: "seventy семьдесят",
        80: "eighty восемьдесят",
        90: "ninety девяносто",
        100: "hundred сто ста сотня",
        1000: "thousand тысяча тысячи тысяч",
    }.items()
    for word in words.split()
}


def likeness(one: Node, other: Node) -> float:
    """Return how alike two nodes are called, 0 to 1.

    Of the ids and the names the pair that is most alike counts: stems in common over the stems of
    the shorter one, so that a name that says more is no other name.
    """
    return max(_shared(_stems(a), _stems(b)) for a in _called(one) for b in _called(other))


def same_words(one: str, other: str) -> bool:
    """Whether two texts of a few words share a stem."""
    return bool(_stems(one) & _stems(other))


def numbers(node: Node) -> frozenset[int]:
    """Return the numbers that a node is called by; none where none can be read."""
    return frozenset(number for words in _called(node) for number in _read(words))


@lru_cache(maxsize=50_000)
def _stems(text: str) -> frozenset[str]:
    words = [word.casefold().replace("ё", "е") for word in _WORD.findall(text)]
    return frozenset(word[:_STEM] for word in words if word not in _EMPTY) or frozenset(words)


@lru_cache(maxsize=50_000)
def _read(text: str) -> frozenset[int]:
    """Return the numbers in a text; tens and ones that stand together are one number."""
    found: list[int] = []
    tens = False
    for word in _WORD.findall(text.casefold()):
        number = int(word) if word.isdecimal() else _NUMBERS.get(word)
        if number is not None and tens and number < 10:
            found[-1] += number
        elif number is not None:
            found.append(number)
        tens = number is not None and 20 <= number < 100 and number % 10 == 0
    return frozenset(found)


def _called(node: Node) -> tuple[str, ...]:
    return (node.id,) if node.name is None else (node.id, node.name)


def _shared(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0
