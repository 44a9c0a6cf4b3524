"""From rows to token ids with a mask that says which tokens are learned.

Of a chat row the mask is found from the template itself: the text before an assistant turn is what
generation starts from, the turn ends with the model's end token, and that token is learned too,
since a model that never sees it never stops. Of a text all is learned, and the end token after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loratelier.base import Base
from loratelier.kit.errors import InputError

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Example:
    """One row, tokenized.

    ``ids`` and ``learned`` have the same length; ``learned[t]`` says that token t is a target.
    """

    row: str
    conversation: str
    ids: tuple[int, ...]
    learned: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """How many tokens of the row are learned."""
        return sum(self.learned)


def to_example(
    base: Base, row: str, conversation: str, messages: Messages, *, last_only: bool = False
) -> Example:
    """Tokenize a chat row and mark the assistant's words and end tokens as learned.

    With ``last_only`` only those of the last message, which is the assistant's.

    Raises:
        InputError: the base has no chat template; the template does not close the assistant's
            turn with an end token; or a turn's first token would differ from what generation
            starts with. Each names the row.
    """
    text = _render(base, row, messages, prompt=False)
    spans = [
        _learned_span(base, row, text, messages, index)
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and (not last_only or index == len(messages) - 1)
    ]
    encoded = base.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    learned = [_inside(start, end, spans) for start, end in offsets]
    # The first token of a row has nothing before it to be predicted from.
    if learned:
        learned[0] = False
    example = Example(row, conversation, tuple(ids), tuple(learned))
    _check(base, example, offsets, spans)
    return example


def to_text_example(base: Base, row: str, conversation: str, text: str) -> Example:
    """Tokenize a text row: all of it is learned, and the end token after it.

    The text begins as the base's tokenizer begins one (with its own start token, if it has one) and
    goes through no chat template. The very first token has nothing before it to be predicted from,
    so without a start token the text's first one is not learned.

    Raises:
        InputError: the text is empty, or the base has no end token. Each names the row.
    """
    end = base.tokenizer.eos_token_id
    if end is None or base.tokenizer.convert_ids_to_tokens(end) not in end_tokens(base):
        raise InputError(
            f"Row {row}: the base {base.name} has no end token at which it stops, so the adapter "
            "would never stop",
            "Choose a base with one",
        )
    ids = base.tokenizer(text)["input_ids"]
    if not text or not ids:
        raise InputError(f"Row {row} is an empty text", "Build the corpus anew")
    # Some tokenizers write the end token themselves.
    ids = ids if ids[-1] == end else [*ids, end]
    return Example(row, conversation, tuple(ids), (False, *[True] * (len(ids) - 1)))


def _render(base: Base, row: str, messages: Messages, *, prompt: bool) -> str:
    if not base.tokenizer.chat_template:
        raise InputError(
            f"The base {base.name} has no chat template", "Choose an instruction-tuned base"
        )
    try:
        text = base.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # templates raise whatever their author chose
        raise InputError(
            f"Row {row}: the chat template of {base.name} refuses it ({error})"
        ) from error
    return str(text)


def _learned_span(
    base: Base, row: str, text: str, messages: Messages, index: int
) -> tuple[int, int]:
    """Return where the turn's words begin and its end token ends, in characters of ``text``."""
    before = _render(base, row, messages[:index], prompt=True) if index else _opening(base, row)
    through = _render(base, row, messages[: index + 1], prompt=False)
    if not (through.startswith(before) and text.startswith(through)):
        raise InputError(
            f"Row {row}: the chat template of {base.name} rewrites earlier turns, so what is "
            "learned would not be what is generated",
            "Use one exchange a row for this base",
        )
    end_token = _end_token(base, row, through, len(before))
    return len(before), end_token


def _opening(base: Base, row: str) -> str:
    """Return the text that generation starts from when the assistant speaks first."""
    probe = [{"role": "assistant", "content": "\x00"}]
    text = _render(base, row, probe, prompt=False)
    return text[: text.index("\x00")]


def _end_token(base: Base, row: str, through: str, begin: int) -> int:
    ends = [
        through.rfind(token, begin) + len(token)
        for token in end_tokens(base)
        if through.rfind(token, begin) >= 0
    ]
    if not ends:
        raise InputError(
            f"Row {row}: the chat template of {base.name} closes the assistant's turn with none of "
            f"its end tokens ({', '.join(end_tokens(base))}), so the adapter would never stop",
            "Use a base whose template ends the turn",
        )
    return max(ends)


def end_tokens(base: Base) -> list[str]:
    """Return the tokens at which the base stops generating, as text."""
    configured: Any = base.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = [number for number in [*ids, base.tokenizer.eos_token_id] if number is not None]
    return list(dict.fromkeys(base.tokenizer.convert_ids_to_tokens(ids)))


def _inside(start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    return start < end and any(begin <= start and end <= stop for begin, stop in spans)


def _check(
    base: Base, example: Example, offsets: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> None:
    """Refuse a row whose mask is not exactly the assistant's words and the end token."""
    ends = set(base.tokenizer.convert_tokens_to_ids(end_tokens(base)))
    for begin, stop in spans:
        straddles = any(start < edge < end for start, end in offsets for edge in (begin, stop))
        last = [n for n, (_, end) in enumerate(offsets) if end == stop]
        if straddles or not last:
            raise InputError(
                f"Row {example.row}: a token spans the border of the assistant's turn, so training "
                "and generation would see different tokens",
                "Remove the white space at the start of the answer",
            )
        if example.ids[last[-1]] not in ends or not example.learned[last[-1]]:
            raise InputError(f"Row {example.row}: the end token would not be learned")
