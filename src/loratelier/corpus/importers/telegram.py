"""Telegram's ``result.json``: one chat or a whole account, read a message at a time.

A chat never ends, so it is cut into conversations where nobody wrote for :data:`SILENCE` seconds,
unless the next message replies to one before. Messages of one side that follow one another are one
turn, a line each. In groups the others' messages begin with their names.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, BinaryIO

from loratelier.corpus.importers.jsonstream import Scanner, Value, elements, parse
from loratelier.corpus.importers.parts import (
    ASSISTANT,
    USER,
    Aside,
    Broken,
    Said,
    Thread,
    mapping,
    said,
    sequence,
    word,
)

KIND = "Telegram export"
SILENCE = 6 * 3600  # seconds without a message after which a new conversation begins

_CHATS = (
    "personal_chat|bot_chat|saved_messages|private_group|private_supergroup|public_supergroup|"
    "private_channel|public_channel"
)
_SIGN = re.compile(rb'"type"\s*:\s*"(?:' + _CHATS.encode() + rb')"|"personal_information"\s*:\s*\{')
_PAIRS = frozenset({"personal_chat", "bot_chat", "saved_messages"})
_NO_SPEAKER = "nobody was named whose turns are learned (--speaker)"


def is_export(head: bytes) -> bool:
    """Say whether a file that begins so is an export of Telegram."""
    return _SIGN.search(head) is not None


@dataclass
class Names:
    """Who wrote how many messages over all chats, and the senders' ids: to ask for one of them."""

    counts: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)

    def knows(self, speaker: str) -> bool:
        """Say whether somebody bears this name or id; case does not count."""
        wanted = speaker.strip().casefold()
        known = {*self.counts, *self.ids}
        return any(wanted == name.strip().casefold() for name in known)


@dataclass(frozen=True)
class _Chat:
    """What is known of a chat before its messages; ``owner`` is the account's own sender id."""

    place: str
    id: str = ""
    name: str = ""
    type: str = ""
    owner: str = ""

    def is_owner(self, sender: str) -> bool | None:
        """Say whether the account's owner wrote; None when it cannot be known.

        Of two people in a chat it is enough to know the partner, whose id the chat bears.
        """
        if self.owner:
            return sender == self.owner
        if self.type in {"personal_chat", "bot_chat"} and self.id:
            return sender != f"user{self.id}"
        return None


def read(
    stream: BinaryIO, *, speaker: str | None, owner_speaks: bool, names: Names
) -> Iterator[Thread | Broken]:
    """Yield the conversations of an export.

    Args:
        stream: UTF-8 bytes of the file.
        speaker: the name or id whose turns are learned.
        owner_speaks: without a speaker, learn the turns of the account's owner.
        names: counts who wrote.
    """
    reader = _Reader(Scanner(stream), speaker, owner_speaks, names)
    try:
        yield from reader.export()
    except (ValueError, RecursionError) as error:
        # Malformed is a ValueError too: the frame around the chats is broken here.
        reason = str(error).split("\n")[0]
        yield Broken(reader.place or "/", f"{reason}; what follows is not read")


class _Reader:
    def __init__(
        self, scanner: Scanner, speaker: str | None, owner_speaks: bool, names: Names
    ) -> None:
        self._scanner = scanner
        self._speaker = speaker.strip().casefold() if speaker else ""
        self._owner_speaks = owner_speaks
        self._names = names
        self.place = ""

    def export(self) -> Iterator[Thread | Broken]:
        chat = _Chat("")
        for key in self._scanner.entries():
            if key in {"chats", "left_chats"} and self._scanner.peek() == b"{":
                yield from self._chats(key, chat.owner)
            elif key == "personal_information":
                known = mapping(parse(self._scanner.value())[0])
                chat = replace(chat, owner=f"user{word(known.get('user_id'))}")
            elif key == "messages" and self._scanner.peek() == b"[":
                yield from self._messages(chat)
            else:
                chat = self._told(chat, key)

    def _chats(self, key: str, owner: str) -> Iterator[Thread | Broken]:
        for inner in self._scanner.entries():
            if inner != "list" or self._scanner.peek() != b"[":
                self._scanner.value()
                continue
            self._scanner.expect(b"[")
            number = 0
            while not self._scanner.passes(b"]"):
                self.place = f"/{key}/list/{number}"
                yield from self._chat(_Chat(self.place, owner=owner))
                self._scanner.passes(b",")
                number += 1

    def _chat(self, chat: _Chat) -> Iterator[Thread | Broken]:
        for key in self._scanner.entries():
            if key == "messages" and self._scanner.peek() == b"[":
                yield from self._messages(chat)
            else:
                chat = self._told(chat, key)

    def _told(self, chat: _Chat, key: str) -> _Chat:
        raw = self._scanner.value()
        if key not in {"id", "name", "type"}:
            return chat
        return replace(chat, **{key: word(parse(raw)[0])})

    def _messages(self, chat: _Chat) -> Iterator[Thread | Broken]:
        self._scanner.expect(b"[")
        talk = _Talk(chat)
        for found in elements(self._scanner, _is_message, closes=b"]"):
            if isinstance(found, Broken):
                yield replace(found, item=f"{chat.place}/messages{found.item}")
                continue
            place = f"{chat.place}/messages/{found.number}"
            if not isinstance(found.data, dict):
                yield Broken(place, "no message but a bare value")
                continue
            if talk.ends_before(found.data):
                yield talk.thread()
                talk = _Talk(chat)
            self._take(talk, chat, found, place)
        if talk.holds_something:
            yield talk.thread()

    def _take(self, talk: "_Talk", chat: _Chat, found: Value, place: str) -> None:
        message = found.data
        name = word(message.get("from"))
        sender = word(message.get("from_id"))
        if message.get("type") == "message":
            self._names.counts.update([name] if name else [])
            self._names.ids.update([sender] if sender else [])
        talk.add(message, place, mine=self._is_mine(chat, name, sender), damaged=found.damaged)

    def _is_mine(self, chat: _Chat, name: str, sender: str) -> bool | None:
        """Say whether a message is the speaker's; None when nobody knows who the speaker is."""
        if self._speaker:
            return self._speaker in {name.strip().casefold(), sender.casefold()}
        return chat.is_owner(sender) if self._owner_speaks else None


class _Talk:
    """One conversation while its messages come."""

    def __init__(self, chat: _Chat) -> None:
        self._chat = chat
        self._messages: list[Said] = []
        self._asides: list[Aside] = []
        self._ids: set[str] = set()
        self._last = 0.0
        self._unnamed = False
        self._mine = 0

    @property
    def holds_something(self) -> bool:
        return bool(self._ids)

    def ends_before(self, message: dict[str, Any]) -> bool:
        """Say whether a message begins another conversation."""
        if not self._ids or word(message.get("reply_to_message_id")) in self._ids:
            return False
        now = _moment(message)
        return bool(now and self._last) and now - self._last > SILENCE

    def add(self, message: dict[str, Any], place: str, *, mine: bool | None, damaged: bool) -> None:
        number = word(message.get("id"))
        self._ids.add(number or place)
        self._last = _moment(message) or self._last
        text = _text(message.get("text"))
        uid = f"{self._chat.id}/{number}" if number else ""
        spoken = said(text, USER if mine else ASSISTANT, uid=uid, item=place)
        if damaged:
            spoken = damaged_text(spoken)
        cause, detail = _cause(message, text, mine=bool(mine))
        if cause:
            self._asides.append(Aside(spoken, "message", cause, detail))
            return
        self._unnamed |= mine is None
        self._mine += mine is True
        if not mine and self._chat.type not in _PAIRS and word(message.get("from")):
            name = word(message.get("from"))
            steps = (*spoken.steps, "the speaker's name put before the words")
            spoken = replace(spoken, text=f"{name}: {spoken.text}", steps=steps)
        self._messages.append(spoken)

    def thread(self) -> Thread:
        first = min(self._messages + [one.said for one in self._asides], key=_order)
        refused = _NO_SPEAKER if self._unnamed else ""
        if not self._mine and not refused:
            refused = "the speaker says nothing in this conversation"
        return Thread(
            kind=KIND,
            # The first message's id is the same in every later export of the chat.
            id=f"telegram {first.uid or first.item}",
            title=self._chat.name,
            messages=tuple(self._messages),
            asides=tuple(self._asides),
            joint="\n",
            learn=USER,
            refused=refused,
        )


def damaged_text(one: Said) -> Said:
    """Count the characters of a message that were no UTF-8 as lost."""
    lost = one.text.count("\ufffd")
    if not lost:
        return one
    return replace(one, lost=lost, steps=(*one.steps, f"{lost} undecodable bytes became U+FFFD"))


def _order(one: Said) -> tuple[int, str]:
    return int(one.item.rpartition("/")[2]), one.item


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and {"id", "type"} <= value.keys()


def _cause(message: dict[str, Any], text: str, *, mine: bool) -> tuple[str, str]:
    """Return why a message is no turn, or two empty strings."""
    if message.get("type") != "message":
        return "a service message", word(message.get("action"))
    if mine and message.get("forwarded_from"):
        return "forwarded: somebody else's words", word(message.get("forwarded_from"))
    if not text.strip():
        what = word(message.get("media_type")) or next(
            (key for key in ("photo", "file", "poll", "contact_information") if message.get(key)),
            "",
        )
        return "no words", what
    return "", ""


def _text(value: Any) -> str:
    """Return a text that is a string, or a list of strings and of entities that hold strings."""
    if isinstance(value, str):
        return value
    pieces = (word(each) or word(mapping(each).get("text")) for each in sequence(value))
    return "".join(pieces)


def _moment(message: dict[str, Any]) -> float:
    """Return when a message was sent, in seconds; 0 when it does not say so."""
    seconds = word(message.get("date_unixtime"))
    if seconds.isdecimal() and len(seconds) < 12:
        return float(seconds)
    try:
        # Local time without an offset: good enough to measure a silence.
        return (datetime.fromisoformat(word(message.get("date"))) - _EPOCH).total_seconds()
    except (ValueError, TypeError):
        return 0.0


_EPOCH = datetime(1970, 1, 1)
