"""Where found notes stand in a conversation, and which of them an answer names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from loratelier.kit.errors import InputError
from loratelier.serve.library.library import Found

_NUMBER = re.compile(r"\[(\d{1,3})\]")


def with_notes(
    messages: Sequence[Mapping[str, str]], found: Sequence[Found]
) -> list[dict[str, str]]:
    """Return a conversation whose last question has the notes before it.

    They stand inside the last user message, before its words: after the conversation, whose keys
    stay as they are, and before the point from which an activated adapter (aLoRA) acts, so that
    what is read of them does not depend on who answers. To be called when signals were parsed:
    what stands in a note is never one.

    Raises:
        InputError: no user message.
    """
    made = [dict(message) for message in messages]
    if not found:
        return made
    last = next((n for n in range(len(made) - 1, -1, -1) if made[n]["role"] == "user"), None)
    if last is None:
        raise InputError("Nothing is asked", "Notes are laid before a user's message")
    notes = "\n\n".join(f"[{n}] {each.piece.text}" for n, each in enumerate(found, start=1))
    question = made[last]["content"]
    made[last]["content"] = f"{_head(question)}\n\n{notes}\n\n{question}"
    return made


def citations(answer: str, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the notes that stood before an answer, each with whether the answer names it."""
    named = {int(number) for number in _NUMBER.findall(answer)}
    return [
        {"number": number, "named": number in named, **each.to_json()}
        for number, each in enumerate(found, start=1)
    ]


def _head(question: str) -> str:
    if re.search(r"[\u0400-\u04ff]", question):
        return "Заметки, на которые можно опереться; ссылайся на них по номерам:"
    return "Notes to rest on; name them by their numbers:"
