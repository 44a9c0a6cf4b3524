"""Conversations whose every request is dressed as a task or as a question.

Only what the person says is dressed; the answers stay as they are, word for word, since they are
what is learned. A conversation of many turns stays one row: a follow-up without what it follows
would teach nothing.
"""

from collections.abc import Callable

from loratelier.corpus.formats.labels import LANGUAGES, Labels, Messages, labels_for
from loratelier.kit.errors import InputError

_Dress = Callable[[Labels], tuple[str, str]]


def _instruction(labels: Labels) -> tuple[str, str]:
    return f"### {labels.instruction}\n\n", f"\n\n### {labels.response}"


def _question(labels: Labels) -> tuple[str, str]:
    return f"{labels.question}: ", f"\n\n{labels.answer}:"


def to_instruction(messages: Messages) -> Messages:
    """Put each request under ``### Instruction`` and end it with ``### Response``."""
    return _put_on(messages, _instruction)


def from_instruction(messages: Messages) -> Messages:
    """Read what :func:`to_instruction` wrote."""
    return _take_off(messages, _instruction)


def to_question(messages: Messages) -> Messages:
    """Begin each request with ``Question:`` and end it with ``Answer:``."""
    return _put_on(messages, _question)


def from_question(messages: Messages) -> Messages:
    """Read what :func:`to_question` wrote."""
    return _take_off(messages, _question)


def _put_on(messages: Messages, dress: _Dress) -> Messages:
    before, after = dress(labels_for(messages))
    return [
        message | {"content": f"{before}{message['content']}{after}"}
        if message["role"] == "user"
        else message
        for message in messages
    ]


def _take_off(messages: Messages, dress: _Dress) -> Messages:
    return [
        message | {"content": _bare(message["content"], dress)}
        if message["role"] == "user"
        else message
        for message in messages
    ]


def _bare(content: str, dress: _Dress) -> str:
    for labels in LANGUAGES:
        before, after = dress(labels)
        fits = len(content) >= len(before) + len(after)
        if fits and content.startswith(before) and content.endswith(after):
            return content[len(before) : len(content) - len(after)]
    raise InputError(f"A request does not begin with '{dress(LANGUAGES[0])[0].strip()}'")
