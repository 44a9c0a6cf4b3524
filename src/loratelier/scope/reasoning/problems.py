"""Problems for chains of thought: drawn from a seed, so that none can be known by heart.

Four kinds, in English and in Russian: ``arithmetic`` (several steps with things that are gained and
lost), ``order`` (who stands where), ``transitive`` (a comparison through others) and ``if-then``
(rules between lamps, followed forwards, or backwards by denial). Each has one right answer.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from loratelier.kit.errors import InputError, did_you_mean

Language = Literal["en", "ru"]
Kind = Literal["arithmetic", "order", "transitive", "if-then"]
Form = Literal["number", "option", "free"]


@dataclass(frozen=True)
class Problem:
    """What is asked.

    ``form`` says what counts as an answer: a number, one of ``options``, or any words; ``gold`` is
    the right one, None where nobody knows it.
    """

    id: str
    language: Language
    text: str
    form: Form = "free"
    gold: str | None = None
    options: tuple[str, ...] = ()


def problems(kind: Kind, n: int, seed: int = 0, language: Language = "en") -> tuple[Problem, ...]:
    """Return ``n`` different problems of a kind; the same seed gives the same ones.

    Raises:
        InputError: an unknown kind or language, fewer than one, or more than the kind has.
    """
    if kind not in _MAKERS:
        raise InputError(f"There are no problems '{kind}'", did_you_mean(kind, _MAKERS))
    if language not in get_args(Language):
        raise InputError(f"Language '{language}' is unknown", "Known: en, ru")
    if n < 1:
        raise InputError(f"{n} problems are asked for", "Ask for one or more")
    rng = random.Random(f"{kind}/{language}/{seed}")
    made: dict[str, Problem] = {}
    for _ in range(100 * n):
        if len(made) == n:
            break
        drawn = _MAKERS[kind](rng, language)
        number = len(made)
        named = Problem(
            f"{kind}-{language}-{seed}-{number}",
            language,
            drawn.text,
            drawn.form,
            drawn.gold,
            drawn.options,
        )
        made.setdefault(drawn.text, named)
    if len(made) < n:
        raise InputError(f"There are not {n} different problems '{kind}'", f"Ask for {len(made)}")
    return tuple(made.values())


def prompts(texts: Sequence[str], language: Language | None = None) -> tuple[Problem, ...]:
    """Return a person's own prompts as problems of which nobody knows the answer.

    Args:
        texts: what is asked.
        language: theirs; without it Russian where most letters are Cyrillic.

    Raises:
        InputError: an empty prompt.
    """
    if not all(text.strip() for text in texts):
        raise InputError("A prompt is empty", "Give some text")
    return tuple(
        Problem(f"prompt-{number}", language or _written_in(text), text)
        for number, text in enumerate(texts)
    )


def _written_in(text: str) -> Language:
    cyrillic = sum("\u0400" <= letter <= "\u04ff" for letter in text)
    return "ru" if 2 * cyrillic > sum(letter.isalpha() for letter in text) else "en"


# Russian names: who, of whom, before whom.
_WHO = {
    "Анна": ("Анны", "Анной"), "Борис": ("Бориса", "Борисом"), "Вера": ("Веры", "Верой"),
    "Глеб": ("Глеба", "Глебом"), "Дарья": ("Дарьи", "Дарьей"), "Егор": ("Егора", "Егором"),
    "Зоя": ("Зои", "Зоей"), "Иван": ("Ивана", "Иваном"), "Лидия": ("Лидии", "Лидией"),
    "Павел": ("Павла", "Павлом"),
}  # fmt: skip
_NAMES = {
    "en": ("Ada", "Bruno", "Clara", "David", "Edith", "Felix", "Greta", "Hugo", "Ines", "Jonas"),
    "ru": tuple(_WHO),
}
_YES = {"en": ("yes", "no"), "ru": ("да", "нет")}
_THINGS = {
    "en": (("apple", "apples"), ("coin", "coins"), ("button", "buttons"), ("pencil", "pencils")),
    "ru": (
        ("яблоко", "яблока", "яблок"), ("монета", "монеты", "монет"),
        ("пуговица", "пуговицы", "пуговиц"), ("карандаш", "карандаша", "карандашей"),
    ),
}  # fmt: skip


def _arithmetic(rng: random.Random, language: Language) -> Problem:
    things = rng.choice(_THINGS[language])
    name = rng.choice(_NAMES[language])
    have = rng.randint(5, 30)
    told = [_begins(language, name, have, things)]
    for _ in range(rng.randint(3, 4)):
        step = rng.choice(("more", "less", "twice") if have <= 40 else ("more", "less"))
        by = rng.randint(2, have - 1) if step == "less" else rng.randint(2, 20)
        have = {"more": have + by, "less": have - by, "twice": 2 * have}[step]
        told.append(_steps(language, step, by, things))
        if have < 4:
            break
    told.append(
        f"How many {things[1]} does {name} have now?"
        if language == "en"
        else f"Сколько {things[2]} стало у {_WHO[name][0]}?"
    )
    return Problem("", language, " ".join(told), "number", str(have))


def _begins(language: Language, name: str, have: int, things: Sequence[str]) -> str:
    if language == "en":
        return f"{name} has {have} {things[1]}."
    return f"У {_WHO[name][0]} {have} {_counted(have, things)}."


def _steps(language: Language, step: str, by: int, things: Sequence[str]) -> str:
    if language == "en":
        said = things[0] if by == 1 else things[1]
        return {
            "more": f"Then {by} more {said} are found.",
            "less": f"Then {by} {said} are given away.",
            "twice": "Then the number doubles.",
        }[step]
    return {
        "more": f"Потом прибавилось ещё {by} {_counted(by, things)}.",
        "less": f"Потом пришлось отдать {by} {_counted(by, things)}.",
        "twice": "Потом их стало вдвое больше.",
    }[step]


def _counted(number: int, forms: Sequence[str]) -> str:
    """Return the Russian form of a noun after a number: 1 яблоко, 2 яблока, 5 яблок."""
    if number % 10 == 1 and number % 100 != 11:
        return forms[0] if not forms[0].endswith("а") else forms[0][:-1] + "у"
    if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14):
        return forms[1]
    return forms[2]


def _order(rng: random.Random, language: Language) -> Problem:
    names = rng.sample(_NAMES[language], 4)
    told = []
    for one, other in pairwise(names):
        behind = rng.random() < 0.5
        if language == "en":
            told.append(
                f"{other} stands right behind {one}."
                if behind
                else f"{one} stands right in front of {other}."
            )
        else:
            told.append(
                f"{other} стоит сразу за {_WHO[one][1]}."
                if behind
                else f"{one} стоит прямо перед {_WHO[other][1]}."
            )
    rng.shuffle(told)
    place = rng.randrange(4)
    if language == "en":
        where = ("first", "second", "third", "last")[place]
        asked = f"Four people stand in a queue. {' '.join(told)} Who is {where} in the queue?"
    else:
        where = ("первый", "второй", "третий", "последний")[place]
        asked = f"В очереди стоят четверо. {' '.join(told)} Кто в очереди {where}?"
    options = tuple(sorted(names))
    return Problem("", language, asked, "option", names[place], options)


_MORE = {
    "en": (
        ("taller", "shorter"), ("older", "younger"), ("faster", "slower"), ("heavier", "lighter"),
    ),
    "ru": (("выше", "ниже"), ("старше", "младше"), ("быстрее", "медленнее"), ("тяжелее", "легче")),
}  # fmt: skip


def _transitive(rng: random.Random, language: Language) -> Problem:
    names = rng.sample(_NAMES[language], 4)
    more, less = rng.choice(_MORE[language])
    told = []
    for one, other in pairwise(names):
        turned = rng.random() < 0.5
        told.append(
            _compared(language, other, less, one)
            if turned
            else _compared(language, one, more, other)
        )
    rng.shuffle(told)
    high, low = sorted(rng.sample(range(4), 2))
    right = rng.random() < 0.5
    first, second = (names[high], names[low]) if right else (names[low], names[high])
    if language == "en":
        asked = f"{' '.join(told)} Is {first} {more} than {second}?"
    else:
        asked = f"{' '.join(told)} Верно ли, что {first} {more} {_WHO[second][0]}?"
    yes, no = _YES[language]
    return Problem("", language, asked, "option", yes if right else no, (yes, no))


def _compared(language: Language, one: str, more: str, other: str) -> str:
    if language == "en":
        return f"{one} is {more} than {other}."
    return f"{one} {more} {_WHO[other][0]}."


_LAMPS = {
    "en": ("red", "blue", "green", "yellow", "white", "purple", "orange", "pink"),
    "ru": ("красная", "синяя", "зелёная", "жёлтая", "белая", "лиловая", "серая", "розовая"),
}


def _if_then(rng: random.Random, language: Language) -> Problem:
    lamps = rng.sample(_LAMPS[language], 4)
    rules = [
        f"If the {one} lamp is on, then the {other} lamp is on."
        if language == "en"
        else f"Если горит {one} лампа, то горит и {other}."
        for one, other in pairwise(lamps)
    ]
    rng.shuffle(rules)
    forwards = rng.random() < 0.5
    known, asked = (lamps[0], lamps[3]) if forwards else (lamps[3], lamps[0])
    if language == "en":
        fact = f"The {known} lamp is {'on' if forwards else 'off'}."
        question = f"Is the {asked} lamp on?"
    else:
        said = known.capitalize() + " лампа"
        fact = f"{said} горит." if forwards else f"{said} не горит."
        question = f"Горит ли {asked} лампа?"
    yes, no = _YES[language]
    text = f"{' '.join(rules)} {fact} {question}"
    return Problem("", language, text, "option", yes if forwards else no, (yes, no))


_MAKERS: dict[str, Callable[[random.Random, Language], Problem]] = {
    "arithmetic": _arithmetic,
    "order": _order,
    "transitive": _transitive,
    "if-then": _if_then,
}
