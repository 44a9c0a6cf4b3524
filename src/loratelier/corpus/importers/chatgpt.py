"""ChatGPT exports: a tree of messages, of which the person saw one path at a time.

The conversation is the path from ``current_node`` up to the root. What hangs beside it is another
answer to the same turn, another wording of it, or a branch that was left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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

KIND = "ChatGPT export"
_LEFT_BRANCH = "on a branch that the conversation did not go on with"

_NOT_SAID = {
    "thoughts": "the model's reasoning",
    "reasoning_recap": "the model's reasoning",
    "user_editable_context": "instructions set by the person, no turn",
    "model_editable_context": "the model's memory, no turn",
    "execution_output": "a tool's message",
    "tether_browsing_display": "a tool's message",
    "tether_quote": "a tool's message",
    "system_error": "a tool's message",
}


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an item is a conversation of this export."""
    return isinstance(item.get("mapping"), dict) and bool(
        item.keys() & {"current_node", "conversation_id", "title", "create_time"}
    )


def read(item: dict[str, Any], place: str) -> Thread:
    """Return the conversation of one item; every message of the tree is in it once."""
    return _Tree(item, place).thread()


@dataclass(frozen=True)
class _Node:
    """A node with a message; ``cause`` says why it is no turn, or is empty."""

    key: str
    said: Said
    cause: str
    detail: str
    attachments: tuple[str, ...]

    @property
    def side(self) -> str:
        return USER if self.said.role == USER else ASSISTANT


class _Tree:
    def __init__(self, item: dict[str, Any], place: str) -> None:
        self._item = item
        nodes = {key: node for key, node in item["mapping"].items() if isinstance(node, dict)}
        self._parents = _parents(nodes)
        self._children: dict[str, list[str]] = {}
        for key, parent in self._parents.items():
            self._children.setdefault(parent, []).append(key)
        self._nodes: dict[str, _Node] = {}
        for key, node in nodes.items():
            message = node.get("message")
            if isinstance(message, dict):
                self._nodes[key] = _node(key, message, f"{place}/mapping/{_pointer(key)}")
        self._times = {key: _time(node.get("message")) for key, node in nodes.items()}
        self._placed: set[str] = set()

    def thread(self) -> Thread:
        path = self._path()
        main = [self._nodes[key] for key in path if key in self._nodes]
        self._placed.update(node.key for node in main)
        others = list(self._others(path))
        asides = [aside for node in main for aside in _asides(node)]
        for key, node in self._nodes.items():
            if key not in self._placed:
                cause = node.cause or node.said.fault or _LEFT_BRANCH
                asides.append(Aside(node.said, "message", cause, node.detail))
        return Thread(
            kind=KIND,
            id=word(self._item.get("conversation_id") or self._item.get("id")),
            title=word(self._item.get("title")),
            messages=tuple(node.said for node in main if not node.cause),
            asides=tuple(asides),
            others=tuple(others),
        )

    def _path(self) -> list[str]:
        """Return the keys from the root to where the person left the conversation."""
        leaf = word(self._item.get("current_node"))
        if leaf not in self._times:
            # Without a current node: the latest message; of several, the last in the file.
            leaf = max(reversed(self._times), key=lambda key: self._times[key], default="")
        path: list[str] = []
        seen: set[str] = set()
        while leaf in self._times and leaf not in seen:
            seen.add(leaf)
            path.append(leaf)
            leaf = self._parents.get(leaf, "")
        return path[::-1]

    def _others(self, path: list[str]) -> Iterator[Other]:
        on_path = set(path)
        shared: list[Said] = []  # what was said of this turn before the fork
        for above, key in zip(["", *path], path, strict=False):
            node = self._nodes.get(key)
            if node is None:
                continue
            before = self._nodes.get(above)
            if before is None or before.side != node.side:
                shared = []
            for sibling in self._children.get(above, []) if above else ():
                if sibling not in on_path:
                    yield from self._other(key, sibling, path, node.side, shared)
            if not node.cause:
                shared.append(node.said)

    def _other(
        self, key: str, sibling: str, path: list[str], side: str, shared: list[Said]
    ) -> Iterator[Other]:
        """Yield what a sibling says instead of the turn that ``key`` begins or goes on with."""
        instead = self._turn(sibling, side)
        said_there = [node.said for node in instead if not (node.cause or node.said.fault)]
        of = self._stands_for(path[path.index(key) :], side)
        if of is None or not said_there:
            return
        self._placed.update(node.key for node in instead if node.said in said_there)
        how = REGENERATED if side == ASSISTANT else REWORDED
        yield Other(of, (*shared, *said_there), how)

    def _turn(self, key: str, side: str) -> list[_Node]:
        """Return the nodes of a turn from ``key`` down, along the last of children."""
        turn: list[_Node] = []
        seen: set[str] = set()
        while key and key not in seen:
            seen.add(key)
            node = self._nodes.get(key)
            if node and node.side != side:
                break
            turn += [node] if node else []
            below = self._children.get(key, [])
            # A person's turn is one message; what follows it is another.
            key = below[-1] if below and side == ASSISTANT else ""
        return turn

    def _stands_for(self, keys: list[str], side: str) -> Said | None:
        """Return the first message of the main line's turn from a node on."""
        for key in keys:
            node = self._nodes.get(key)
            if node and node.side != side:
                return None
            if node and not node.cause:
                return node.said
        return None


def _parents(nodes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return each node's parent; a missing one is taken from the lists of children."""
    parents = {key: word(node.get("parent")) for key, node in nodes.items()}
    for key, node in nodes.items():
        for child in map(word, sequence(node.get("children"))):
            if child in parents and not parents[child] and child != key:
                parents[child] = key
    return parents


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _time(message: Any) -> float:
    moment = mapping(message).get("create_time")
    if not isinstance(moment, int | float):
        return 0.0
    return float(moment) if 0 < moment < 1e15 else 0.0


def _node(key: str, message: dict[str, Any], place: str) -> _Node:
    content = mapping(message.get("content"))
    author = word(mapping(message.get("author")).get("role"))
    text, attachments = _text(content)
    cause, detail = _cause(message, author, word(content.get("content_type")), text)
    uid = message.get("id") or key
    if author == USER:
        # An answer to what is hidden is no answer to the turn before it: the gap must stay.
        fault = f"{cause}: {detail}" if detail else cause
        return _Node(key, said(text, USER, uid=uid, item=place, fault=fault), "", "", attachments)
    return _Node(key, said(text, author, uid=uid, item=place), cause, detail, attachments)


def _text(content: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the words of a message and the kinds of what is not words in it."""
    own = content.get("text")
    if isinstance(own, str):
        return own, ()
    words: list[str] = []
    attachments: list[str] = []
    for part in sequence(content.get("parts")):
        if isinstance(part, str):
            words.append(part)
        elif isinstance(part, dict) and part.get("content_type") == "audio_transcription":
            words.append(word(part.get("text")))
        elif isinstance(part, dict):
            attachments.append(word(part.get("content_type")) or "an attachment")
    if not content.get("parts"):
        words += [word(content.get(key)) for key in ("result", "content") if content.get(key)]
    return "\n".join(each for each in words if each), tuple(attachments)


def _cause(message: dict[str, Any], author: str, content_type: str, text: str) -> tuple[str, str]:
    """Return why a message is no turn of the dialogue, or two empty strings."""
    recipient = word(message.get("recipient")) or "all"
    metadata = mapping(message.get("metadata"))
    checks = (
        (author == "system", "a system message of the export", ""),
        (author == "tool", "a tool's message", word(mapping(message.get("author")).get("name"))),
        (author not in {USER, ASSISTANT}, "an unknown role", author),
        (
            metadata.get("is_visually_hidden_from_conversation") is True,
            "hidden in the dialogue",
            "",
        ),
        (content_type in _NOT_SAID, _NOT_SAID.get(content_type, ""), ""),
        (recipient != "all", "a call of a tool", recipient),
        (not text.strip() and author == ASSISTANT, "no content", ""),
    )
    return next(((cause, detail) for holds, cause, detail in checks if holds), ("", ""))


def _asides(node: _Node) -> Iterator[Aside]:
    if node.cause:
        yield Aside(node.said, "message", node.cause, node.detail)
        return
    for number, kind in enumerate(node.attachments):
        yield Aside(
            said(f"[{kind}]", "", item=f"{node.said.item}/message/content/parts/{number}"),
            "attachment",
            "attachment",
        )
