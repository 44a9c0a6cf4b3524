"""The conversation of the page: one question, several answers side by side, kept on disk."""

import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.kit.home import room
from loratelier.kit.models import Strict

AUTO = "auto"


class Said(Strict):
    """One message, and of an answer what it was said with and why."""

    role: Literal["user", "assistant"]
    content: str
    worn: dict[str, float] = Field(default_factory=dict)
    reason: str | None = None
    reason_ru: str | None = None
    seconds: float | None = None
    tokens: int | None = None
    stopped: str | None = None


class Lane(Strict):
    """One of the answers: what is worn in it (None the base, ``auto`` what the router decides)."""

    id: int
    adapter: str | None = None
    strength: float = Field(default=1.0, ge=-2, le=4)
    turns: tuple[Said, ...] = ()


class Conversation(Strict):
    """What the page's dialogue is now."""

    base: str = "demo"
    lanes: tuple[Lane, ...] = (Lane(id=1),)


def _path() -> Any:
    return room("studio") / "dialogue.json"


def load() -> Conversation:
    """Return the conversation as it was left; a new one where there is none that can be read."""
    try:
        return Conversation.model_validate_json(_path().read_bytes())
    except (OSError, InputError, ValidationError):
        return Conversation()


def save(conversation: Conversation) -> None:
    """Keep the conversation."""
    text = json.dumps(conversation.model_dump(mode="json"), ensure_ascii=False)
    write_atomic(_path(), text)
