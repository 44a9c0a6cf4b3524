"""What is said about figures, in English and in Russian."""

import re

from loratelier.check.finding import Said
from loratelier.check.intervals import Accuracy, Interval

_NUMBER = re.compile(r"(?<=\d)\.(?=\d)")


def said(english: str, russian: str, **figures: str) -> Said:
    """Fill both sentences with the same figures; Russian ones have a decimal comma."""
    commas = {key: _NUMBER.sub(",", value) for key, value in figures.items()}
    return {"en": english.format(**figures), "ru": russian.format(**commas)}


def share(value: float) -> str:
    """Return a change as a percentage with its sign."""
    return f"{value:+.1%}" if value else "0%"


def span(interval: Interval, form: str = "{:+.1%}") -> str:
    """Return an interval."""
    return "[" + "; ".join(form.format(end) for end in interval) + "]"


def accuracy(one: Accuracy) -> str:
    """Return an accuracy with its standard error."""
    return f"{one.value:.1%} ± {one.error:.1%}"


NOISE = (" This is within noise.", " Это в пределах шума.")
UNJUDGED = (
    " The base hardly knows this language, so this is not judged.",
    " Основа почти не знает этого языка, поэтому это не судится.",
)

LESS = said(
    "Wear it at a lower strength (`loratelier calibrate` finds one), or train it anew with "
    "guards.replay or guards.kl.",
    "Носите его слабее (силу найдёт `loratelier calibrate`) или обучите заново с guards.replay "
    "или guards.kl.",
)
REPLAY = said(
    "Train it anew with guards.replay (general text beside the rows), fewer epochs or a lower "
    "learning_rate; guards.token_mask leaves out the tokens that cost most. Until then wear it at "
    "a lower strength.",
    "Обучите его заново с guards.replay (обычный текст рядом со строками), с меньшим числом эпох "
    "или меньшей learning_rate; guards.token_mask пропускает самые дорогие токены. До тех пор "
    "носите его слабее.",
)
SIGNAL = said(
    "Put it on by a signal only (an invocation, see docs/training-variants.md), add plain answers "
    "to unrelated requests to its corpus, or wear it at a lower strength.",
    "Надевайте его только по сигналу (invocation, см. docs/training-variants.md), добавьте в "
    "корпус обычные ответы на посторонние запросы или носите его слабее.",
)
MEND = said(
    "Look at the tests that failed: mend the adapter, or the test if it asks too much.",
    "Посмотрите на непройденные тесты: исправьте адаптер, а если тест требует лишнего, то тест.",
)
