"""The schema of a scene: scene ↔ text ↔ human.

A :class:`Graph` is the scene itself: what there is, how it hangs together, and the field around it.
A :class:`Scene` adds the words: the text that tells it, what a human says to it, other voices and
other fields.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from loratelier.corpus.scenes.relations import KINDS, RELATIONS
from loratelier.kit.errors import did_you_mean
from loratelier.kit.models import Strict

_NAME = re.compile(r"[^\W\d_]\w*(?:-\w+)*")
_EMOTION = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")

# Roles that the scenes' prompts know in both languages; others are named as they are written.
ROLES = ("logician", "poet", "philosopher")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"'{value}' is no name: a letter first, then letters, digits, hyphens, no spaces"
        )
    return value


def _words(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value.strip("\n")


def _emotions(value: dict[str, float]) -> dict[str, float]:
    for word in value:
        if not _EMOTION.fullmatch(word):
            raise ValueError(f"'{word}' is no word for an emotion: letters, spaces, hyphens")
    return value


Name = Annotated[str, AfterValidator(_name)]
Words = Annotated[str, AfterValidator(_words)]
Share = Annotated[float, Field(ge=0, le=1)]
Emotions = Annotated[dict[str, Share], AfterValidator(_emotions), Field(min_length=1)]
Language = Literal["en", "ru"]


class Node(Strict):
    """One thing in a scene; ``name`` is how it is called where the id is not enough."""

    id: Name
    kind: str
    name: str | None = None

    @model_validator(mode="after")
    def _known_kind(self) -> "Node":
        if self.kind not in KINDS:
            raise ValueError(
                f"node '{self.id}' has the unknown kind '{self.kind}'. "
                + did_you_mean(self.kind, KINDS)
            )
        return self


class Relation(Strict):
    """How one node stands to another; read from ``source`` to ``target``.

    In YAML three words are enough: ``[rain, cause, flood]``.
    """

    source: Name
    type: str
    target: Name

    @model_validator(mode="before")
    @classmethod
    def _three_words(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        if len(value) != 3:
            raise ValueError("a relation is three words: [from, type, to]")
        return dict(zip(("source", "type", "target"), value, strict=True))

    def __str__(self) -> str:
        return f"{self.source} -{self.type}-> {self.target}"


class Mood(Strict):
    """The field around a scene.

    ``emotion``: words with their strength, 0 to 1. ``tension``: 0 (at rest) to 1 (about to break).
    ``tone``: how it is told, in a few words.
    """

    emotion: Emotions
    rhythm: Literal["still", "slow", "even", "broken", "quick"]
    tension: Share
    tone: Words


class Graph(Strict):
    """Nodes, the relations between them, and the field; checked for sense, not only for shape.

    In YAML the nodes may be written short: ``rain: event`` or ``rain: [event, the long rain]``.
    """

    nodes: tuple[Node, ...] = Field(min_length=1)
    relations: tuple[Relation, ...] = ()
    field: Mood | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_nodes(cls, value: Any) -> Any:
        nodes = value.get("nodes") if isinstance(value, dict) else None
        if not isinstance(nodes, dict):
            return value
        return {**value, "nodes": [_short(name, node) for name, node in nodes.items()]}

    @model_validator(mode="after")
    def _hangs_together(self) -> "Graph":
        kinds = {node.id: node.kind for node in self.nodes}
        check_once("node", [node.id for node in self.nodes])
        for number, relation in enumerate(self.relations, start=1):
            _check_relation(f"relation {number} ({relation})", relation, kinds)
        check_once("relation", [str(relation) for relation in self.relations])
        joined = {name for each in self.relations for name in (each.source, each.target)}
        for node in self.nodes:
            if node.id not in joined and len(self.nodes) > 1:
                raise ValueError(f"node '{node.id}' stands in no relation")
        for type in (name for name, each in RELATIONS.items() if each.ordered):
            _check_no_circle(type, [each for each in self.relations if each.type == type])
        return self


class Overlay(Strict):
    """The same scene with another field laid over it, and how it is told then."""

    field: Mood
    text: Words


class Scene(Graph):
    """A scene with its words.

    ``text`` tells it; ``human`` is what a human says to it; ``roles`` tell it as somebody else;
    ``overlays`` tell it in another field.
    """

    id: Name
    language: Language
    text: Words
    human: Words | None = None
    roles: dict[Name, Words] = Field(default_factory=dict)
    overlays: tuple[Overlay, ...] = ()

    @property
    def graph(self) -> Graph:
        """The scene without its words."""
        return Graph(nodes=self.nodes, relations=self.relations, field=self.field)


class Hyperlexeme(Strict):
    """A new token that stands for a scene, or for a pattern of thought, with human replies to it.

    ``replies`` are what a human says where the token could stand.
    """

    name: Name
    language: Language
    scene: Name | None = None
    pattern: Words | None = None
    replies: tuple[Words, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stands_for_one(self) -> "Hyperlexeme":
        if (self.scene is None) == (self.pattern is None):
            raise ValueError(
                f"hyperlexeme '{self.name}' must stand for a scene or for a pattern, one of the two"
            )
        return self

    @property
    def token(self) -> str:
        """The token as it stands in texts; a tokenizer takes it as one when it is added to it."""
        return f"<|hx_{self.name}|>"


def check_names(scenes: Sequence[Scene], hyperlexemes: Sequence[Hyperlexeme]) -> None:
    """Hold that names stand once and that each hyperlexeme's scene is there.

    Raises:
        ValueError: the scene or the hyperlexeme is named.
    """
    known = [scene.id for scene in scenes]
    check_once("scene", known)
    check_once("hyperlexeme", [each.name for each in hyperlexemes])
    for each in hyperlexemes:
        if each.scene is not None and each.scene not in known:
            raise ValueError(
                f"hyperlexeme '{each.name}' stands for '{each.scene}', and this file has no such "
                f"scene. {did_you_mean(each.scene, known)}"
            )


def _short(name: str, node: Any) -> dict[str, Any]:
    if isinstance(node, str):
        return {"id": name, "kind": node}
    if isinstance(node, list) and len(node) == 2:
        return {"id": name, "kind": node[0], "name": node[1]}
    raise ValueError(f"node '{name}' must be a kind, or [kind, name]")


def check_once(what: str, names: Iterable[str]) -> None:
    """Refuse a name that stands more than once.

    Raises:
        ValueError: it is named.
    """
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{what} '{name}' stands {times} times")


def _check_relation(where: str, relation: Relation, kinds: Mapping[str, str]) -> None:
    if relation.type not in RELATIONS:
        raise ValueError(
            f"{where}: the type '{relation.type}' is unknown. "
            + did_you_mean(relation.type, RELATIONS)
        )
    for name in (relation.source, relation.target):
        if name not in kinds:
            raise ValueError(f"{where}: there is no node '{name}'. {did_you_mean(name, kinds)}")
    if relation.source == relation.target:
        raise ValueError(f"{where} joins a node to itself")
    type = RELATIONS[relation.type]
    for end, name, allowed in (
        ("from", relation.source, type.sources),
        ("to", relation.target, type.targets),
    ):
        if kinds[name] not in allowed:
            raise ValueError(
                f"{where}: '{relation.type}' runs {end} {' or '.join(sorted(allowed))}, and "
                f"'{name}' is {_article(kinds[name])}"
            )


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _check_no_circle(type: str, relations: Iterable[Relation]) -> None:
    """Refuse a chain of one type that comes back to where it began; name it."""
    after: dict[str, list[str]] = {}
    for relation in relations:
        after.setdefault(relation.source, []).append(relation.target)
    done: set[str] = set()
    for start in after:
        path: list[str] = []
        stack = [(start, 0)]
        while stack:
            name, depth = stack.pop()
            del path[depth:]
            if name in path:
                circle = " → ".join([*path[path.index(name) :], name])
                raise ValueError(f"the relations '{type}' run in a circle: {circle}")
            path.append(name)
            if name not in done:
                done.add(name)
                stack += [(target, depth + 1) for target in after.get(name, ())]
