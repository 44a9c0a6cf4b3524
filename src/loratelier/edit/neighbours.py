"""Neighbours of a prompt: the same words about something else, which an edit should leave alone."""

import re
from collections.abc import Sequence

from loratelier.base import Base
from loratelier.scope.prompt import Messages, encode_prompt

# Of many kinds in turn, because what a prompt's own word is (a country, a person) is not guessed.
_NAMES = (
    "Japan", "Brazil", "Peter", "Maria", "Berlin", "Chicago", "Microsoft", "Toyota", "Mars",
    "Venus", "Egypt", "Canada", "Mozart", "Newton", "Monday", "October", "Amazon", "Everest",
    "Poland", "India",
)  # fmt: skip
_THINGS = (
    "house", "river", "teacher", "doctor", "water", "bread", "music", "winter", "engine",
    "garden", "letter", "market", "horse", "child", "paper", "city", "morning", "story",
    "bridge", "window",
)  # fmt: skip
_IMENA = (
    "Японии", "Бразилии", "Пётр", "Мария", "Берлин", "Казань", "Марс", "Венера", "Египта",
    "Канады", "Моцарт", "Ньютон", "Волги", "Эверест", "Польши", "Индии",
)  # fmt: skip
_VESHCHI = (
    "дом", "река", "учитель", "врач", "вода", "хлеб", "музыка", "зима", "город", "письмо",
    "рынок", "лошадь", "ребёнок", "бумага", "утро", "мост",
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def neighbours(text: str) -> list[str]:
    """Return texts that differ from one in the word that it is most likely about.

    That is its last word with a capital that does not begin the text, or else its longest word;
    others take its place, in the text's own alphabet. A text without words has no neighbours.
    """
    found = list(_WORD.finditer(text))
    if not found:
        return []
    capital = [word for word in found[1:] if word[0][0].isupper()]
    word = capital[-1] if capital else max(found, key=lambda one: len(one[0]))
    cyrillic = "а" <= word[0][0].lower() <= "ё"
    lists = (_IMENA if capital else _VESHCHI) if cyrillic else (_NAMES if capital else _THINGS)
    return [
        text[: word.start()] + other + text[word.end() :]
        for other in lists
        if other.lower() != word[0].lower()
    ]


def neighbour_ids(base: Base, prompt: str | Messages, *, chat: bool) -> list[tuple[int, ...]]:
    """Return the tokens of a prompt's neighbours; in a dialogue its last message is varied."""
    if isinstance(prompt, str):
        return [encode_prompt(base, text, raw=not chat).ids for text in neighbours(prompt)]
    *before, last = prompt
    varied: Sequence[Messages] = [
        [*before, {**last, "content": text}] for text in neighbours(last["content"])
    ]
    return [encode_prompt(base, messages).ids for messages in varied]
