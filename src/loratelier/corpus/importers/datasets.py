"""Rows of training sets: ShareGPT, Alpaca, OpenAI messages and the forms that TRL reads.

A message of a set has no id: two sets count from 0 alike. It is known by its place in the file, and
conversations are told apart by their words.
"""

from collections.abc import Iterable
from typing import Any

from loratelier.corpus.importers.parts import (
    ASSISTANT,
    LABELLED,
    SYSTEM,
    USER,
    Aside,
    Document,
    Other,
    Said,
    Thread,
    mapping,
    plain,
    said,
    sequence,
    word,
)

ROLES = {
    "user": USER,
    "human": USER,
    "prompter": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "bing": ASSISTANT,
    "bard": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
}
_TOOLS = frozenset(
    {"tool", "function", "function_call", "function_response", "tool_call", "observation"}
)
# Columns that some form uses; a Parquet file may hold others, large ones too.
COLUMNS = frozenset(
    {"conversations", "conversation", "messages", "system", "instruction", "input", "output"}
    | {"history", "prompt", "completion", "chosen", "rejected", "label", "text"}
)


def is_sharegpt(item: dict[str, Any]) -> bool:
    """``conversations``: a list of ``from`` and ``value``."""
    turns = sequence(item.get("conversations")) or sequence(item.get("conversation"))
    return bool(turns) and all(isinstance(turn, dict) for turn in turns) and _is_turn(turns[0])


def is_messages(item: dict[str, Any]) -> bool:
    """``messages``: a list of ``role`` and ``content``."""
    return _is_turns(item.get("messages"))


def is_preference(item: dict[str, Any]) -> bool:
    """``chosen`` and ``rejected``, with their ``prompt`` or with it inside both."""
    sides = item.get("chosen"), item.get("rejected")
    known = all(isinstance(side, str) or _is_turns(side) for side in sides)
    return known and (_is_prompt(item.get("prompt")) or all(map(_is_turns, sides)))


def is_completion(item: dict[str, Any]) -> bool:
    """``prompt`` and ``completion``, with or without a ``label``."""
    return _is_prompt(item.get("prompt")) and _is_prompt(item.get("completion"))


def is_alpaca(item: dict[str, Any]) -> bool:
    """``instruction``, ``input`` and ``output``."""
    return isinstance(item.get("instruction"), str) and isinstance(item.get("output"), str)


def is_text(item: dict[str, Any]) -> bool:
    """``text`` alone."""
    return isinstance(item.get("text"), str)


def read_sharegpt(item: dict[str, Any], place: str) -> Thread:
    """Read a row of ShareGPT; ``system`` may stand beside the turns, and a labelled pair too."""
    key = "conversations" if item.get("conversations") else "conversation"
    line = _Line(f"{place}")
    line.system(item, place)
    line.turns(item[key], f"{place}/{key}")
    if _is_turn(item.get("chosen")) and _is_turn(item.get("rejected")):
        good, bad = [item["chosen"]], [item["rejected"]]
        line.pair(good, bad, f"{place}/chosen", f"{place}/rejected", listed=False)
    return line.thread("ShareGPT")


def read_messages(item: dict[str, Any], place: str) -> Thread:
    """Read a row of OpenAI's form."""
    line = _Line(place)
    line.turns(item["messages"], f"{place}/messages")
    return line.thread("OpenAI messages")


def read_alpaca(item: dict[str, Any], place: str) -> Thread:
    """Read a row of Alpaca; ``history`` holds earlier pairs."""
    line = _Line(place)
    line.system(item, place)
    for number, pair in enumerate(map(sequence, sequence(item.get("history")))):
        for side, role in enumerate((USER, ASSISTANT)):
            if side < len(pair):
                line.say(word(pair[side]), role, f"{place}/history/{number}/{side}")
    given = word(item.get("input"))
    asked = f"{item['instruction']}\n\n{given}" if given.strip() else item["instruction"]
    line.say(asked, USER, f"{place}/instruction")
    line.say(item["output"], ASSISTANT, f"{place}/output")
    return line.thread("Alpaca")


def read_completion(item: dict[str, Any], place: str) -> Thread:
    """Read a row of prompt and completion; one with a false ``label`` is not learned."""
    line = _Line(place)
    line.prompt(item["prompt"], USER, f"{place}/prompt")
    line.prompt(item["completion"], ASSISTANT, f"{place}/completion")
    bad = item.get("label") is False
    return line.thread("prompt and completion", refused="labelled as a bad answer" if bad else "")


def read_preference(item: dict[str, Any], place: str) -> Thread:
    """Read a labelled pair: what was chosen is the answer, what was rejected is beside it."""
    line = _Line(place)
    good, bad = _turns(item["chosen"]), _turns(item["rejected"])
    # Some sets give the prompt for itself and once more inside both sides.
    if item.get("prompt") and _role(good[0]) == ASSISTANT:
        line.prompt(item["prompt"], USER, f"{place}/prompt")
    where = f"{place}/chosen", f"{place}/rejected"
    line.pair(good, bad, *where, listed=not isinstance(item["chosen"], str))
    return line.thread("preferences")


def read_text(item: dict[str, Any], place: str) -> Document:
    """Read a row of plain text."""
    return Document(kind="text", text=plain(item["text"]))


class _Line:
    """A conversation while its turns are read."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._messages: list[Said] = []
        self._asides: list[Aside] = []
        self._others: list[Other] = []

    def thread(self, kind: str, *, refused: str = "") -> Thread:
        return Thread(
            kind=kind,
            messages=tuple(self._messages),
            asides=tuple(self._asides),
            others=tuple(self._others),
            refused=refused,
        )

    def say(self, text: str, role: str, place: str) -> None:
        self._messages.append(said(text, role, item=place))

    def system(self, item: dict[str, Any], place: str) -> None:
        if word(item.get("system")).strip():
            self.say(word(item["system"]), SYSTEM, f"{place}/system")

    def prompt(self, given: Any, role: str, place: str) -> None:
        """Take a prompt or a completion: words of ``role``, or a list of messages."""
        if isinstance(given, str):
            self.say(given, role, place)
        else:
            self.turns(given, place)

    def turns(self, turns: Iterable[Any], place: str) -> None:
        for number, turn in enumerate(turns):
            message, aside = _turn(turn, f"{place}/{number}")
            self._messages += [message] if message else []
            self._asides += aside

    def pair(
        self, good: list[Any], bad: list[Any], chosen: str, rejected: str, *, listed: bool
    ) -> None:
        """Take a chosen and a rejected ending; what both begin with is part of the prompt."""
        same = 0
        while same < min(len(good), len(bad)) - 1 and good[same] == bad[same]:
            same += 1
        self.turns(good[:same], chosen)
        before = len(self._messages)
        self._ending(good, same, chosen, listed=listed)
        # Of the rejected side the prompt's copy is the same words once more, no message.
        ending = _Line(self._place)
        ending._ending(bad, same, rejected, listed=listed)
        answers = [one for one in self._messages[before:] if one.role == ASSISTANT]
        self._asides += ending._asides
        worse = tuple(ending._messages)
        if answers and worse:
            self._others.append(Other(answers[0], worse, LABELLED))
        else:
            self._asides += [Aside(one, "message", "labelled as a bad answer") for one in worse]

    def _ending(self, turns: list[Any], start: int, place: str, *, listed: bool) -> None:
        for number, turn in enumerate(turns[start:], start):
            message, aside = _turn(turn, f"{place}/{number}" if listed else place)
            self._messages += [message] if message else []
            self._asides += aside


def _turn(turn: Any, place: str) -> tuple[Said | None, list[Aside]]:
    """Return a message, or why it is none; and what it holds beside words."""
    one = mapping(turn)
    name = _name(one)
    content = one.get("content") if "content" in one else one.get("value")
    text, asides = _content(content, place)
    role = ROLES.get(name, "")
    if one.get("tool_calls") or one.get("function_call"):
        name, role = "tool_call", "" if not text.strip() else role
    if role:
        return said(text, role, item=place), asides
    cause = "a tool's message" if name in _TOOLS else "an unknown role"
    detail = "" if name in _TOOLS else name
    return None, [Aside(said(text, name, item=place), "message", cause, detail), *asides]


def _name(turn: dict[str, Any]) -> str:
    return word(turn.get("role") if "role" in turn else turn.get("from")).lower()


def _role(turn: Any) -> str:
    return ROLES.get(_name(mapping(turn)), "")


def _content(content: Any, place: str) -> tuple[str, list[Aside]]:
    if not isinstance(content, list):
        return word(content), []
    texts: list[str] = []
    asides: list[Aside] = []
    for number, block in enumerate(content):
        if isinstance(block, str):
            texts.append(block)
            continue
        one = mapping(block)
        if isinstance(one.get("text"), str):
            texts.append(one["text"])
        else:
            kind = word(one.get("type")) or "attachment"
            beside = said(f"[{kind}]", "", item=f"{place}/content/{number}")
            asides.append(Aside(beside, "attachment", "attachment", kind))
    return "\n\n".join(texts), asides


def _turns(side: Any) -> list[Any]:
    return [{"role": ASSISTANT, "content": side}] if isinstance(side, str) else side


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or _is_turns(value)


def _is_turns(value: Any) -> bool:
    turns = sequence(value)
    return bool(turns) and all(isinstance(turn, dict) for turn in turns) and _is_turn(turns[0])


def _is_turn(turn: Any) -> bool:
    one = mapping(turn)
    return isinstance(one.get("role", one.get("from")), str) and bool(
        one.keys() & {"content", "value", "tool_calls"}
    )
