"""Tasks with known answers, made by seeded generators: nobody can have learned them by heart.

Of the first kind are sentences with several endings, of which the likeliest is the model's choice;
of the second, requests whose written answer is compared with the right one. Words come from
``data/words.yaml``; what is put together of them (which words, which distractors, which numbers
and which made-up names) comes from the seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any, TypeVar

import yaml

LANGUAGES = ("en", "ru")
_NAMES = {
    "category": ("category membership", "вхождение в класс"),
    "opposite": ("opposites", "антонимы"),
    "synonym": ("synonyms", "синонимы"),
    "agreement": ("agreement in number", "согласование в числе"),
    "order": ("ordering", "порядок"),
    "size": ("comparison of sizes", "сравнение размеров"),
    "sum": ("addition", "сложение"),
    "steps": ("number series", "числовые ряды"),
    "binding": ("who is where, from the text", "кто где, по тексту"),
    "copy": ("copying", "переписывание"),
    "answer sum": ("addition, written", "сложение, ответ текстом"),
    "pick": ("finding a word in a list", "поиск слова в списке"),
}


@dataclass(frozen=True)
class Choice:
    """A beginning, and endings of which the first is right."""

    stem: str
    endings: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What is asked, and the answer."""

    prompt: str
    answer: str


Item = TypeVar("Item", Choice, Request)


def name_of(task: str) -> tuple[str, str]:
    """Return a task's name in English and in Russian; ``task`` is such as ``'category en'``."""
    kind, language = task.rsplit(" ", 1)
    english, russian = _NAMES[kind]
    return f"{english} ({language})", f"{russian} ({language})"


def choices(language: str, count: int, seed: int) -> dict[str, list[Choice]]:
    """Return ``count`` different items of each kind of choice, by the task's name."""
    return {
        f"{kind} {language}": _distinct(make, language, count, f"{seed}/{kind}/{language}")
        for kind, make in _CHOICES.items()
    }


def requests(language: str, count: int, seed: int) -> dict[str, list[Request]]:
    """Return ``count`` different items of each kind of request, by the task's name."""
    return {
        f"{kind} {language}": _distinct(make, language, count, f"{seed}/{kind}/{language}")
        for kind, make in _REQUESTS.items()
    }


def _distinct(
    make: Callable[[Random, str], Item], language: str, count: int, seed: str
) -> list[Item]:
    random = Random(seed)
    made: dict[Item, None] = {}
    # A kind that has fewer different items than wanted gives those that it has.
    for _ in range(20 * count):
        made[make(random, language)] = None
        if len(made) == count:
            break
    return list(made)


@cache
def _words(language: str) -> dict[str, Any]:
    source = files("loratelier.check") / "data" / "words.yaml"
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return loaded[language]


def _category(random: Random, language: str) -> Choice:
    groups = _words(language)["category"]
    right, *others = random.sample(sorted(groups), 4)
    member = random.choice(groups[right])
    stem = f"{member.capitalize()} — это" if language == "ru" else f"{_a(member)} is a kind of"
    return Choice(stem, (right, *others))


def _a(word: str) -> str:
    return f"An {word}" if word[0] in "aeiou" else f"A {word}"


def _opposite(random: Random, language: str) -> Choice:
    first, *others = random.sample(_words(language)["opposite"], 4)
    asked, right = first if random.random() < 0.5 else first[::-1]
    wrong = tuple(random.choice(pair) for pair in others)
    stem = (
        f"Антоним слова «{asked}» — слово «" if language == "ru" else f"The opposite of {asked} is"
    )
    return Choice(stem, (right, *wrong))


def _synonym(random: Random, language: str) -> Choice:
    first, *others = random.sample(_words(language)["synonym"], 4)
    asked, right = first if random.random() < 0.5 else first[::-1]
    wrong = tuple(random.choice(pair) for pair in others)
    stem = (
        f"Синоним слова «{asked}» — слово «" if language == "ru" else f"Another word for {asked} is"
    )
    return Choice(stem, (right, *wrong))


def _agreement(random: Random, language: str) -> Choice:
    words = _words(language)["agreement"]
    number = random.randrange(2)
    subject = random.choice(words["subjects"])[number]
    between, nouns = random.choice(words["places"])
    verbs = random.choice(words["verbs"])
    # The noun in between has the other number: who goes by the nearest noun is wrong.
    stem = f"{subject} {between} {nouns[1 - number]}"
    stem = stem.capitalize() if language == "ru" else f"The {stem}"
    return Choice(stem, (verbs[number], verbs[1 - number]))


def _order(random: Random, language: str) -> Choice:
    series = random.choice(_words(language)["series"])
    at = random.randrange(len(series) - 2)
    shown, right = series[at : at + 2], series[at + 2]
    wrong = random.sample([word for word in series if word not in (*shown, right)], 3)
    return Choice(f"{', '.join(shown)},", (right, *wrong))


def _size(random: Random, language: str) -> Choice:
    ranked = _words(language)["sizes"]
    small, large = sorted(random.sample(range(len(ranked)), 2))
    pair = [ranked[small], ranked[large]]
    random.shuffle(pair)
    bigger = random.random() < 0.5
    right, wrong = (ranked[large], ranked[small]) if bigger else (ranked[small], ranked[large])
    if language == "ru":
        which = "больше" if bigger else "меньше"
        return Choice(f"Кто {which}: {pair[0]} или {pair[1]}? Ответ:", (right, wrong))
    which = "bigger" if bigger else "smaller"
    asked = f"Which animal is {which}, the {pair[0]} or the {pair[1]}?"
    return Choice(f"{asked} The {which} one is the", (right, wrong))


def _sum(random: Random, language: str) -> Choice:
    a, b = random.randint(2, 30), random.randint(2, 19)
    wrong = random.sample([a + b + step for step in (-10, -2, -1, 1, 2, 10) if a + b + step > 0], 3)
    return Choice(f"{a} + {b} =", (str(a + b), *map(str, wrong)))


def _steps(random: Random, language: str) -> Choice:
    start, step = random.randint(1, 40), random.choice([2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    shown = [start + step * n for n in range(4)]
    right = start + step * 4
    wrong = random.sample([right + off for off in (-3, -2, -1, 1, 2, 3)], 3)
    return Choice(f"{', '.join(map(str, shown))},", (str(right), *map(str, wrong)))


def _binding(random: Random, language: str) -> Choice:
    made = [_made_up(random, language) for _ in range(6)]
    people, places = made[:3], made[3:]
    lives = "живёт в городе" if language == "ru" else "lives in"
    facts = " ".join(f"{who} {lives} {where}." for who, where in zip(people, places, strict=True))
    asked = random.randrange(3)
    wrong = tuple(place for n, place in enumerate(places) if n != asked)
    return Choice(f"{facts} {people[asked]} {lives}", (places[asked], *wrong))


def _made_up(random: Random, language: str) -> str:
    """Return a name that nobody has."""
    first, vowels, middle, last = (
        ("БВГДЗКЛМНПРСТ", "аеиоу", "бвгдзклмнпрст", ("", "н", "р", "к", "л"))
        if language == "ru"
        else ("BDFGKLMNPRSTVZ", "aeiou", "bdfgklmnprstvz", ("", "n", "r", "k", "l"))
    )
    parts = (random.choice(each) for each in (first, vowels, middle, vowels, last))
    return "".join(parts)


def _listed(random: Random, language: str, count: int) -> list[str]:
    groups = _words(language)["category"]
    return random.sample([word for group in groups.values() for word in group], count)


def _copy(random: Random, language: str) -> Request:
    line = ", ".join(_listed(random, language, 3))
    ask = "Повтори слово в слово" if language == "ru" else "Repeat these words exactly"
    return Request(f"{ask}: {line}", line)


def _answer_sum(random: Random, language: str) -> Request:
    a, b = random.randint(2, 20), random.randint(2, 9)
    ask = f"Сколько будет {a} + {b}?" if language == "ru" else f"What is {a} + {b}?"
    return Request(ask, str(a + b))


def _pick(random: Random, language: str) -> Request:
    groups = _words(language)["category"]
    right, other = random.sample(sorted(groups), 2)
    wanted = random.choice(groups[right])
    shown = [wanted, *random.sample(groups[other], 2)]
    random.shuffle(shown)
    line = ", ".join(shown)
    if language == "ru":
        return Request(f"Что из этого {right}: {line}? Ответь одним словом.", wanted)
    return Request(f"Which of these is a {right}: {line}? Answer with one word.", wanted)


_CHOICES: dict[str, Callable[[Random, str], Choice]] = {
    "category": _category,
    "opposite": _opposite,
    "synonym": _synonym,
    "agreement": _agreement,
    "order": _order,
    "size": _size,
    "sum": _sum,
    "steps": _steps,
    "binding": _binding,
}
_REQUESTS: dict[str, Callable[[Random, str], Request]] = {
    "copy": _copy,
    "answer sum": _answer_sum,
    "pick": _pick,
}
