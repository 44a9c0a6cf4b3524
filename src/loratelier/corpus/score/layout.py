"""From a row to the token sequences that are scored: which tokens, after what.

The answers' tokens are found by the offsets of one tokenisation of the rendered conversation, and
the run without the prompt is given those very ids, so that both runs score the same tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratelier.base import Base
from loratelier.corpus.score.metrics import Unscored

# Stands for a message's words while the template is asked where it would put them.
_MARK = "\x00"


@dataclass(frozen=True)
class Passage:
    """Token ids, of which those at ``places`` (ascending, none 0) are scored given all before."""

    ids: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def cost(self) -> int:
        """How many tokens the base must read: nothing after the last scored one, nor that one."""
        return self.places[-1]


@dataclass(frozen=True)
class Answer:
    """The scored tokens of one message: its number in the row, their ids, its UTF-8 bytes."""

    message: int
    ids: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Layout:
    """A row as the base reads it.

    Attributes:
        answers: in the row's order.
        given: passages whose scored tokens, laid end to end, are the answers' tokens.
        alone: one passage an answer, without what came before it; None marks an answer that has
            no token left to compare. Empty for plain text.
        skipped: how many tokens at the start of each answer the run without prompt cannot score.
    """

    answers: tuple[Answer, ...]
    given: tuple[Passage, ...]
    alone: tuple[Passage | None, ...]
    skipped: int


@dataclass(frozen=True)
class _Turn:
    """An answer in the text of a conversation up to its end: ``text[begin:stop]`` is its words.

    ``opens`` is where generation would begin: the end of the rendered prompt.
    """

    message: int
    text: str
    opens: int
    begin: int
    stop: int


def start_token(base: Base) -> int | None:
    """Return the token that this tokenizer puts before every text, if it does.

    A tokenizer that merely knows a ``bos_token`` and does not use it has none: SmolLM2's is the
    opening of a chat turn, and a text that began with it would be like nothing the base has read.
    """
    ids = base.tokenizer("a")["input_ids"]
    begins = bool(ids) and ids[0] == base.tokenizer.bos_token_id
    return int(ids[0]) if begins else None


def lay_out(base: Base, row: Mapping[str, Any]) -> Layout | Unscored:
    """Return what of a row is to be scored, or why it cannot be.

    Args:
        base: its tokenizer and chat template are used.
        row: a corpus row with ``messages`` (role, content) or ``text``.
    """
    if row.get("messages"):
        return _checked(base, _conversation(base, row["messages"]))
    if row.get("text"):
        return _checked(base, _plain(base, row["text"]))
    return Unscored("the row is empty")


def _checked(base: Base, layout: Layout | Unscored) -> Layout | Unscored:
    if isinstance(layout, Unscored) or base.context is None:
        return layout
    longest = max(len(passage.ids) for passage in layout.given)
    if longest > base.context:
        return Unscored(f"{longest} tokens, and the base was made for {base.context}")
    return layout


def _plain(base: Base, text: str) -> Layout | Unscored:
    """Lay out plain text: every token is scored but a first one that nothing stands before."""
    start = start_token(base)
    encoded = base.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = ([] if start is None else [start]) + encoded["input_ids"]
    if len(ids) < 2:
        return Unscored("a text of one token, and nothing stands before it")
    begin = encoded["offset_mapping"][1][0] if start is None else 0
    answer = Answer(0, tuple(ids[1:]), len(text[begin:].encode("utf-8", "surrogatepass")))
    return Layout((answer,), (Passage(tuple(ids), tuple(range(1, len(ids)))),), (), 0)


def _conversation(base: Base, messages: Sequence[Mapping[str, str]]) -> Layout | Unscored:
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            turn = _turn(base, messages, index)
            if isinstance(turn, Unscored):
                return turn
            turns.append(turn)
    if not turns:
        return Unscored("no message of the assistant")
    found = _tokens(base, turns)
    if isinstance(found, Unscored):
        return found
    answers, given = found
    start = start_token(base)
    skipped = 1 if start is None else 0
    alone = tuple(_alone(answer.ids, start) for answer in answers)
    return Layout(answers, given, alone, skipped)


def _turn(base: Base, messages: Sequence[Mapping[str, str]], index: int) -> _Turn | Unscored:
    content = messages[index]["content"]
    if not content.strip():
        return Unscored(f"message {index + 1} is empty")
    before, message = list(messages[:index]), dict(messages[index])
    try:
        opening = _render(base, [*before, {**message, "content": _MARK}], prompt=False)
        prompt = _render(base, before, prompt=True) if before else ""
        text = _render(base, [*before, message], prompt=False)
    except Exception as error:  # templates raise whatever their author chose
        reason = str(error) or type(error).__name__
        return Unscored(f"the chat template refuses message {index + 1} ({reason})")
    if not text.startswith(prompt):
        return Unscored(
            f"the chat template renders message {index + 1} otherwise than generation would begin"
        )
    # Where the words stand is seen with a mark in their place: searching for them could find the
    # same words elsewhere. Templates may trim white space at the ends.
    begin = opening.find(_MARK)
    words = content if text.startswith(content, begin) else content.strip()
    if begin < 0 or not text.startswith(opening[:begin] + words):
        return Unscored(f"the chat template rewrites message {index + 1}")
    return _Turn(index, text, len(prompt) if before else begin, begin, begin + len(words))


def _render(base: Base, messages: Sequence[Mapping[str, str]], *, prompt: bool) -> str:
    return str(
        base.tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompt
        )
    )


def _tokens(
    base: Base, turns: Sequence[_Turn]
) -> tuple[tuple[Answer, ...], tuple[Passage, ...]] | Unscored:
    """Tokenise: all answers in one pass where the template keeps earlier turns as they were."""
    whole = turns[-1].text
    grows = all(whole.startswith(turn.text) for turn in turns)
    groups = [list(turns)] if grows else [[turn] for turn in turns]
    answers: list[Answer] = []
    passages: list[Passage] = []
    for group in groups:
        text = group[-1].text
        encoded = base.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        places: list[int] = []
        for turn in group:
            inside = _inside(turn, offsets)
            if not inside:
                return Unscored(
                    f"a token spans the border of message {turn.message + 1}, so what is scored "
                    "would not be what is generated"
                )
            size = len(text[turn.begin : turn.stop].encode("utf-8", "surrogatepass"))
            answers.append(Answer(turn.message, tuple(ids[place] for place in inside), size))
            places += inside
        passages.append(Passage(tuple(ids[: places[-1] + 1]), tuple(places)))
    return tuple(answers), tuple(passages)


def _inside(turn: _Turn, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the tokens that spell the answer; none when one of them spells something else too."""
    touching = [
        (place, start, end)
        for place, (start, end) in enumerate(offsets)
        if start < turn.stop and end > turn.begin and start < end
    ]
    spans = any(
        start < turn.opens or end > turn.stop or not place for place, start, end in touching
    )
    return [] if spans else [place for place, *_ in touching]


def _alone(ids: tuple[int, ...], start: int | None) -> Passage | None:
    sequence = ids if start is None else (start, *ids)
    if len(sequence) < 2:
        return None
    return Passage(sequence, tuple(range(1, len(sequence))))
