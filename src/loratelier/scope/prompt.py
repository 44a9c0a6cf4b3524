"""From what a person wrote to the tokens that the model reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratelier.base import Base
from loratelier.kit.errors import InputError

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was given and as the model reads it.

    ``question`` is the last message's words, or the raw text; ``messages`` is None for raw text.
    """

    question: str
    messages: tuple[dict[str, str], ...] | None
    text: str
    ids: tuple[int, ...]


def encode_prompt(
    base: Base, given: str | Messages, *, raw: bool = False, system: str | None = None
) -> Prompt:
    """Put a prompt through the chat template, or leave it as it is with ``raw``.

    Raw text is tokenized as the tokenizer does by itself, with a first token where it has one.

    Raises:
        InputError: nothing to read, options that contradict each other, or no chat template.
    """
    if raw:
        return _raw(base, given, system)
    messages = _messages(given, system)
    text = render(base, messages)
    return Prompt(
        question=messages[-1]["content"],
        messages=messages,
        text=text,
        ids=tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"]),
    )


def _raw(base: Base, given: str | Messages, system: str | None) -> Prompt:
    if not isinstance(given, str):
        raise InputError("A list of messages is never raw", "Give one text, or leave raw out")
    if system is not None:
        raise InputError("Raw text has no system message", "Leave out system, or raw")
    if not given:
        raise InputError("The prompt is empty", "Give some text")
    return Prompt(given, None, given, tuple(base.tokenizer(given)["input_ids"]))


def _messages(given: str | Messages, system: str | None) -> tuple[dict[str, str], ...]:
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    for number, message in enumerate(messages, start=1):
        if not {"role", "content"} <= message.keys():
            raise InputError(f"Message {number} lacks a role or a content")
    if not messages or not messages[-1]["content"].strip():
        raise InputError("The prompt is empty", "Give some text")
    if messages[-1]["role"] == "assistant":
        raise InputError(
            "The last message is the assistant's", "Give its words as the continuation instead"
        )
    if system is not None:
        if any(message["role"] == "system" for message in messages):
            raise InputError("There are two system messages", "Give one of them")
        messages = [{"role": "system", "content": system}, *messages]
    return tuple(dict(message) for message in messages)


def render(base: Base, messages: Messages) -> str:
    """Return the text after which the assistant's answer begins.

    Raises:
        InputError: the base has no chat template, or it refuses the messages.
    """
    if not base.tokenizer.chat_template:
        raise InputError(
            f"The base {base.name} has no chat template",
            "Give raw text, or choose an instruction-tuned base",
        )
    try:
        text = base.tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # templates raise whatever their author chose
        raise InputError(f"The chat template of {base.name} refuses this ({error})") from error
    return str(text)


def end_ids(base: Base) -> frozenset[int]:
    """Return the tokens at which the base ends an answer."""
    configured: Any = base.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(n for n in [*ids, base.tokenizer.eos_token_id] if n is not None)


def words(base: Base, ids: Sequence[int]) -> str:
    """Return an answer's text without special tokens, every blank kept."""
    return str(
        base.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    )
