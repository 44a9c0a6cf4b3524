"""From messages to tokens, so that nothing a person writes becomes a control token.

``<|im_end|>`` in a message is nine or so ordinary characters; read by the tokenizer as it stands it
would end the turn, and what follows could pretend to be the system's (transformers#29279). So the
template's own control tokens are told from those in the messages: the latter carry a mark through
the template, and are then encoded as the text that they are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from loratelier.base import Base
from loratelier.kit.errors import InputError

# Added tokens that only look like markup (`<think>`) may stand in what the assistant said before.
_MARKUP = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")
# Private characters, of which one that is in no message marks what is text.
_MARKS = tuple(chr(number) for number in range(0xE000, 0xE100))


class Reader:
    """Reads for one base, or for a base that was taught an adapter's tokens.

    Args:
        base: the base whose tokenizer and template are used.
        taught: words that an adapter brought; they are words, and no control tokens.
    """

    def __init__(self, base: Base, taught: Mapping[str, int] | None = None) -> None:
        self._base = base
        self._taught = frozenset(taught or ())

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template shows tools to the model."""
        return "tools" in str(self._base.tokenizer.chat_template or "")

    def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[int, ...]:
        """Return the tokens after which the assistant's answer begins.

        Raises:
            InputError: no chat template, one that refuses the messages or knows no tools.
        """
        tokenizer = self._base.tokenizer
        if not tokenizer.chat_template:
            raise InputError(
                f"The base {self._base.name} has no chat template", "Ask /v1/completions"
            )
        if tools and not self.takes_tools:
            raise InputError(f"The chat template of {self._base.name} knows no tools")
        said = json.dumps([list(messages), list(tools or ())], ensure_ascii=False)
        mark = next((each for each in _MARKS if each not in said), None)
        if mark is None:
            raise InputError("The messages hold too many private characters")
        marked = [self._marked_message(message, mark) for message in messages]
        shown = [_marked(tool, self._control, mark) for tool in tools] if tools else None
        try:
            text = str(
                tokenizer.apply_chat_template(
                    marked, tools=shown, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:  # templates raise whatever their author chose
            name = self._base.name
            raise InputError(f"The chat template of {name} refuses this ({error})") from error
        if mark not in text:
            return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        return tuple(self._told_apart(text, mark))

    def text(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text without a template, the tokenizer's first token before it.

        Raises:
            InputError: there is nothing to read.
        """
        if self._control.search(text) is None:
            ids = tuple(self._base.tokenizer(text)["input_ids"])
        else:
            empty = self._base.tokenizer("")["input_ids"]
            opening = [n for n in empty if n == self._base.tokenizer.bos_token_id]
            ids = (*opening, *self._as_text(text))
        if not ids:
            raise InputError("The prompt is empty", "Give some text")
        return ids

    def _marked_message(self, message: Mapping[str, Any], mark: str) -> dict[str, Any]:
        strict = self._special if message["role"] == "assistant" else self._control
        return {
            key: value if key == "role" else _marked(value, strict, mark)
            for key, value in message.items()
        }

    @cached_property
    def _added(self) -> dict[str, bool]:
        """Every added token but the adapter's own, and whether it is special."""
        decoder = self._base.tokenizer.added_tokens_decoder
        return {
            token.content: token.special
            for token in decoder.values()
            if token.content not in self._taught and token.content.strip()
        }

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return _any_of(word for word, special in self._added.items() if special)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return _any_of(w for w, special in self._added.items() if special or _MARKUP.fullmatch(w))

    @cached_property
    def _blind(self) -> Tokenizer:
        """The tokenizer without its added tokens: whatever it reads is text."""
        if not self._base.tokenizer.is_fast:
            raise InputError(
                "The text holds a control token, which this tokenizer cannot read as text",
                "Leave it out",
            )
        form = json.loads(self._base.tokenizer.backend_tokenizer.to_str())
        form["added_tokens"] = []
        form["post_processor"] = None
        return Tokenizer.from_str(json.dumps(form))

    def _told_apart(self, text: str, mark: str) -> list[int]:
        """Encode a rendered text: control tokens without a mark are the template's."""
        ids: list[int] = []
        place = 0
        numbers = self._base.tokenizer.get_vocab()
        for found in _any_of(self._added).finditer(text):
            ids += self._as_text(text[place : found.start()].replace(mark, ""))
            ids.append(numbers[found[0]])
            place = found.end()
        return ids + self._as_text(text[place:].replace(mark, ""))

    def _as_text(self, text: str) -> list[int]:
        ids = list(self._blind.encode(text, add_special_tokens=False).ids)
        if self._forbidden.isdisjoint(ids):
            return ids
        # Some vocabularies hold their control tokens as words too; one character at a time is
        # shorter than any of them.
        ids = [n for char in text for n in self._blind.encode(char, add_special_tokens=False).ids]
        if self._forbidden.isdisjoint(ids):
            return ids
        raise InputError("The text holds a control token that cannot be read as text")

    @cached_property
    def _forbidden(self) -> frozenset[int]:
        numbers = self._base.tokenizer.get_vocab()
        return frozenset(numbers[word] for word, special in self._added.items() if special)


def _any_of(words: Any) -> re.Pattern[str]:
    ordered = sorted(words, key=len, reverse=True)
    # Without words it is a pattern that matches nowhere.
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


def _marked(value: Any, control: re.Pattern[str], mark: str) -> Any:
    """Return a value with a mark inside of every control token of its texts."""
    if isinstance(value, str):
        return control.sub(lambda found: found[0][:1] + mark + found[0][1:], value)
    if isinstance(value, Mapping):
        return {_marked(k, control, mark): _marked(v, control, mark) for k, v in value.items()}
    if isinstance(value, list):
        return [_marked(each, control, mark) for each in value]
    return value
