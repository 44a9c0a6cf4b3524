"""Roles in plain words: 'now as a poet', 'теперь как поэт'; and the kinds of questions.

A role is put on by an instruction, not by a mention: a sentence must begin with a turn of phrase
that asks for it, and the role's word must follow at once. 'How does a poet work?' asks for nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from loratelier.route.policy import Role
from loratelier.route.words import Keys, Phrase, keys_of, occurs, phrase, starts_with, words_of

Kind = Literal["field", "linear"]

_SENTENCES = re.compile(r"[.!?…;:\n]+")
# What may stand before the instruction, and between it and the role.
_BEFORE = "and so ok okay well please then but а и ну но пожалуйста давай тогда хорошо ладно"
_BETWEEN = "a an the role of in роль в роли некий настоящий real true"
_OPENERS = (
    "now as", "now like", "now be", "now become", "now answer as", "now speak as", "from now on as",
    "answer as", "answer like", "answer now as", "reply as", "reply like", "speak as", "speak like",
    "talk as", "talk like", "write as", "write like", "think as", "think like", "continue as",
    "act as", "act like", "go on as", "be", "become", "switch to", "you are now", "play", "put on",
    "take the role", "let the",
    "теперь как", "теперь будь", "теперь стань", "теперь ты", "ты теперь", "теперь в роли",
    "теперь ответь как", "теперь говори как", "дальше как", "дальше в роли", "сейчас как",
    "сейчас будь", "ответь как", "ответь теперь как", "отвечай как", "ответь в роли", "скажи как",
    "говори как", "пиши как", "напиши как", "рассуждай как", "думай как", "подумай как",
    "продолжай как", "продолжи как", "побудь", "будь", "стань", "переключись на",
    "переключись в", "сыграй", "надень", "отвечай в роли", "говори в роли",
    "теперь пусть ответит", "пусть ответит", "пусть скажет",
)  # fmt: skip
_OFF = (
    "yourself", "your usual self", "usual", "before", "no one", "обычно", "собой", "раньше",
    "самим собой", "всегда",
)  # fmt: skip
_TAKE_OFF = (
    "take off the role", "take it off", "drop the role", "no role", "without a role",
    "leave the role", "сними роль", "без роли", "выйди из роли", "сними её", "сними адаптер",
)  # fmt: skip

_FIELD = (
    "why", "what if", "what does it mean", "what is the meaning", "meaning of", "how do you see",
    "how does it feel", "what do you think", "imagine", "on the other hand", "paradox",
    "what would it be like", "reflect", "почему", "зачем", "а что если", "что если", "в чём смысл",
    "какой смысл", "смысл", "что значит", "что такое", "как ты видишь", "что ты думаешь",
    "представь", "с другой стороны", "парадокс", "поразмышляй", "чувствуешь",
)  # fmt: skip
_LINEAR = (
    "how many", "how much", "when", "where", "who", "list", "define", "convert", "calculate",
    "compute", "solve", "translate", "step by step", "steps", "how do i", "how to", "fix", "which",
    "sort", "count", "install", "сколько", "когда", "где", "кто", "перечисли", "определи",
    "переведи", "вычисли", "посчитай", "реши", "по шагам", "пошагово", "как сделать", "исправь",
    "какой", "отсортируй", "установи", "инструкция",
)  # fmt: skip
_FIGURES = re.compile(r"\d|```|[=+*/<>]")


@lru_cache(maxsize=1)
def _openers() -> tuple[Phrase, ...]:
    """The openers, the longest first, so that none hides what goes on after it."""
    return tuple(sorted(map(phrase, _OPENERS), key=len, reverse=True))


@lru_cache(maxsize=8)
def _skippable(words: str) -> Keys:
    return frozenset(words.split())


def asked_role(text: str, roles: Mapping[str, Role]) -> str | None:
    """Return the role that a text asks for; an empty string for none at all; None: not asked.

    The last instruction of the text counts.
    """
    asked: str | None = None
    for sentence in _SENTENCES.split(text):
        found = _in_sentence(sentence, roles)
        asked = asked if found is None else found
    return asked


def _in_sentence(sentence: str, roles: Mapping[str, Role]) -> str | None:
    words = _after(words_of(sentence), _BEFORE)
    said = [keys_of(word) for word in words]
    if any(starts_with(said, phrase(each)) for each in _TAKE_OFF):
        return ""
    for opener in _openers():
        if starts_with(said, opener):
            rest = [keys_of(word) for word in _after(words[len(opener) :], _BETWEEN)]
            found = _role_at(rest, roles)
            if found is not None:
                return found
    return None


def _after(words: Sequence[str], skipped: str) -> list[str]:
    known = _skippable(skipped)
    place = next((n for n, word in enumerate(words) if word.casefold() not in known), len(words))
    return list(words[place:])


def _role_at(said: Sequence[Keys], roles: Mapping[str, Role]) -> str | None:
    called = [(phrase(w), name) for name, role in roles.items() for w in (name, *role.words)]
    for wanted, name in sorted(called, key=lambda each: len(each[0]), reverse=True):
        if starts_with(said, wanted):
            return name
    return "" if any(starts_with(said, phrase(each)) for each in _OFF) else None


def kind_of(text: str) -> Kind | None:
    """Return whether a question is open and many-sided, or asks for one thing; None: undecided.

    A rule of thumb: marks of either kind are counted, figures and code are one of the linear, and
    the kind with more has it.
    """
    said = phrase(text)
    field = _count(said, _FIELD)
    linear = _count(said, _LINEAR) + (_FIGURES.search(text) is not None)
    if field == linear:
        return None
    return "field" if field > linear else "linear"


def _count(said: Phrase, marks: Iterable[str]) -> int:
    return sum(occurs(said, phrase(mark)) for mark in marks)
