"""The words that name the speakers in a text, in the language of the conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loratelier.corpus.lineage import SCRIPTS

Messages = list[dict[str, str]]

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Labels:
    """Words of one language: for the speakers, and for the parts of a question and a task."""

    roles: Mapping[str, str]
    question: str
    answer: str
    instruction: str
    response: str

    def role(self, label: str) -> str:
        """Return the role that a label names."""
        return next(role for role, name in self.roles.items() if name == label)


ENGLISH = Labels(
    {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"},
    question="Question",
    answer="Answer",
    instruction="Instruction",
    response="Response",
)
RUSSIAN = Labels(
    {"system": "Система", "user": "Человек", "assistant": "Ассистент", "tool": "Инструмент"},
    question="Вопрос",
    answer="Ответ",
    instruction="Задание",
    response="Ответ",
)
LANGUAGES = (ENGLISH, RUSSIAN)


def labels_for(messages: Sequence[Mapping[str, str]]) -> Labels:
    """Return Russian labels where most letters are Cyrillic, else English ones."""
    text = "\n".join(message["content"] for message in messages)
    cyrillic, latin = (len(SCRIPTS[code].findall(text)) for code in ("Cyrl", "Latn"))
    return RUSSIAN if cyrillic > latin else ENGLISH
