"""Claude exports: a flat list of messages, whose content is made of blocks."""

from collections.abc import Iterator
from typing import Any

from loratelier.corpus.importers.parts import (
    ASSISTANT,
    REGENERATED,
    REWORDED,
    USER,
    Aside,
    Other,
    Said,
    Thread,
    mapping,
    said,
    sequence,
    word,
)

KIND = "Claude export"
_ROLES = {"human": USER, "assistant": ASSISTANT}
_ASIDE = {"thinking": "thinking", "tool_use": "tool", "tool_result": "tool"}


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an item is a conversation of this export."""
    return isinstance(item.get("chat_messages"), list)


def read(item: dict[str, Any], place: str) -> Thread:
    """Return the conversation of one item; every message of the list is in it once.

    Where messages name their parents, the line is the path up from the last one, and what stands
    beside it are other versions; where they do not, neighbours of one sender are versions.
    """
    found: list[tuple[Said, str]] = []
    asides: list[Aside] = []
    for number, message in enumerate(item["chat_messages"]):
        where = f"{place}/chat_messages/{number}"
        spoken, beside = _message(mapping(message), where)
        asides += beside
        if spoken.role:
            found.append((spoken, word(mapping(message).get("parent_message_uuid"))))
        else:
            sender = word(mapping(message).get("sender"))
            asides.append(Aside(spoken, "message", "an unknown role", sender))
    main, others, left = _line(found, word(item.get("current_leaf_message_uuid")))
    asides += [
        Aside(one, "message", "on a branch that the conversation did not go on with")
        for one in left
    ]
    return Thread(
        kind=KIND,
        id=word(item.get("uuid")),
        title=word(item.get("name")),
        messages=tuple(main),
        asides=tuple(asides),
        others=tuple(others),
        versions=True,
    )


def _message(message: dict[str, Any], where: str) -> tuple[Said, list[Aside]]:
    asides = list(_attachments(message, where))
    blocks = [mapping(block) for block in sequence(message.get("content"))]
    texts: list[str] = []
    for number, block in enumerate(blocks):
        kind = word(block.get("type"))
        if kind == "text":
            texts.append(word(block.get("text")))
        elif kind in _ASIDE:
            beside = said(_words(block), "", item=f"{where}/content/{number}")
            asides.append(Aside(beside, _ASIDE[kind], _ASIDE[kind], word(block.get("name"))))
    # ``text`` repeats the blocks, with a line of its own in place of each that is no text.
    text = "\n\n".join(each for each in texts if each.strip()) if blocks else ""
    text = text or ("" if asides and blocks else word(message.get("text")))
    role = _ROLES.get(word(message.get("sender")), "")
    return said(text, role, uid=message.get("uuid"), item=where), asides


def _words(block: dict[str, Any]) -> str:
    for key in ("thinking", "text", "input", "content"):
        value = block.get(key)
        if value:
            return value if isinstance(value, str) else repr(value)
    return ""


def _attachments(message: dict[str, Any], where: str) -> Iterator[Aside]:
    for number, each in enumerate(map(mapping, sequence(message.get("attachments")))):
        text = word(each.get("extracted_content")) or word(each.get("file_name"))
        attached = said(text, "", item=f"{where}/attachments/{number}")
        yield Aside(attached, "attachment", "attachment", word(each.get("file_name")))


def _line(found: list[tuple[Said, str]], leaf: str) -> tuple[list[Said], list[Other], list[Said]]:
    """Return the line that was gone on with, other versions of its turns, and the rest."""
    by_uid = {one.uid: (one, parent) for one, parent in found if one.uid}
    known = sum(parent in by_uid for _, parent in found)
    if not known:
        return [one for one, _ in found], [], []
    at = leaf if leaf in by_uid else found[-1][0].uid
    path: list[Said] = []
    on_path: set[Said] = set()
    while at in by_uid and by_uid[at][0] not in on_path:
        one, parent = by_uid[at]
        path.append(one)
        on_path.add(one)
        at = parent
    path.reverse()
    instead = {_fork(one, parent): one for one, parent in found if one in on_path}
    others: list[Other] = []
    left: list[Said] = []
    for one, parent in found:
        if one in on_path:
            continue
        of = instead.get(_fork(one, parent))
        if of is None or not one.text.strip():
            left.append(one)
        else:
            others.append(Other(of, (one,), REGENERATED if one.role == ASSISTANT else REWORDED))
    return path, others, left


def _fork(one: Said, parent: str) -> tuple[str, str]:
    return parent, one.role
