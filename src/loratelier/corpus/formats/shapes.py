"""One table of formats: how a conversation is written in each, and how it is read back."""

from collections.abc import Callable
from dataclasses import dataclass

from loratelier.corpus.formats import asked, talk, transcript, tree
from loratelier.corpus.formats.labels import ROLES, Messages
from loratelier.kit.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Rendered:
    """A row as it is trained on: ``messages`` for a chat template, or ``text``; the other is None.

    Of messages the trainer learns the assistant's, of a text everything.
    """

    messages: Messages | None = None
    text: str | None = None


@dataclass(frozen=True)
class _AsMessages:
    write: Callable[[Messages], Messages]
    read: Callable[[Messages], Messages]


@dataclass(frozen=True)
class _AsText:
    write: Callable[[Messages], str]
    read: Callable[[str], Messages]


_SHAPES: dict[str, _AsMessages | _AsText] = {
    "chat": _AsMessages(list, list),
    "instruction": _AsMessages(asked.to_instruction, asked.from_instruction),
    "qa": _AsMessages(asked.to_question, asked.from_question),
    "raw": _AsText(transcript.to_raw, transcript.from_raw),
    "markdown": _AsText(transcript.to_markdown, transcript.from_markdown),
    "json": _AsText(tree.to_json, tree.from_json),
    "yaml": _AsText(tree.to_yaml, tree.from_yaml),
    "scene": _AsText(talk.to_scene, talk.from_scene),
}

FORMATS = tuple(_SHAPES)


def render(messages: Messages, format: str) -> Rendered:
    """Write a conversation in a format.

    Args:
        messages: ``role`` (one of :data:`ROLES`) and ``content`` of each, at least one.
        format: one of :data:`FORMATS`.

    Raises:
        InputError: an unknown format or role, or no messages.
    """
    shape = _shape(format)
    if not messages:
        raise InputError("A row without messages cannot be written")
    for number, message in enumerate(messages, start=1):
        if message["role"] not in ROLES:
            raise InputError(
                f"Message {number} has the unknown role '{message['role']}'",
                did_you_mean(message["role"], ROLES),
            )
    if isinstance(shape, _AsMessages):
        return Rendered(messages=shape.write(messages))
    return Rendered(text=shape.write(messages))


def parse(rendered: Rendered, format: str) -> Messages:
    """Read back what :func:`render` wrote: ``parse(render(m, f), f) == m`` for every f.

    Raises:
        InputError: an unknown format, or something that is not in it; the line is named.
    """
    shape = _shape(format)
    if isinstance(shape, _AsMessages):
        if rendered.messages is None:
            raise InputError(f"A row of the format '{format}' has messages, this one has none")
        return shape.read(rendered.messages)
    if rendered.text is None:
        raise InputError(f"A row of the format '{format}' has a text, this one has none")
    return shape.read(rendered.text)


def _shape(format: str) -> _AsMessages | _AsText:
    if format not in _SHAPES:
        raise InputError(f"The format '{format}' is unknown", did_you_mean(format, FORMATS))
    return _SHAPES[format]
