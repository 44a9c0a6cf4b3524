"""Messages: whose words may be followed, and the same messages without signals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loratelier.kit.errors import InputError

Message = dict[str, Any]
Messages = str | Sequence[Mapping[str, Any]]


def as_messages(given: Messages) -> list[Message]:
    """Return messages as a list of plain ones; a text is one turn of the user.

    Raises:
        InputError: something is no message with a role, or its content is no text.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [_checked(number, message) for number, message in enumerate(given)]


def _checked(number: int, message: Any) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InputError(f"Message {number} has no role", 'Write {"role": ..., "content": ...}')
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, Mapping) for part in content):
            raise InputError(f"Message {number}: a part of its content is no object")
    elif not isinstance(content, str | None):
        raise InputError(f"Message {number}: its content is no text")
    return dict(message)


def latest_user_turn(messages: Sequence[Message]) -> int | None:
    """Return the place of the latest turn of the user, if it is what is to be answered.

    None when there is no turn of the user. Results of tools and half a reply may stand after it.
    """
    places = [number for number, message in enumerate(messages) if message["role"] == "user"]
    return places[-1] if places else None


def text_of(message: Message) -> str:
    """Return the words of a message; parts that are no text (pictures) are left out."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if _is_text(part))
    return content or ""


def with_text(message: Message, change: Callable[[str], str]) -> Message:
    """Return the message with its words changed, part by part; all else is as it was."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [{**p, "text": change(p["text"])} if _is_text(p) else p for p in content]
        return {**message, "content": parts}
    return {**message, "content": change(content)} if content else message


def _is_text(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "text" and isinstance(part.get("text"), str)
