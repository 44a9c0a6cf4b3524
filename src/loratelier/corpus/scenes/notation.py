"""The notation of a scene: compact, one reading only, for the rows that a model learns from.

A line a node, a line a relation, a line for the field::

    oven: thing
    warmth: state "the warmth of the kitchen"
    oven -cause-> warmth
    ~ emotion calm 0.8; rhythm slow; tension 0.1; tone "plain"

Words of more than a line stand below, each line after ``| ``. A whole scene begins with a line
``= scene id language`` and has its words in parts that begin with ``=``.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from loratelier.corpus.scenes.model import Graph, Mood, Scene
from loratelier.kit.errors import InputError
from loratelier.kit.models import problem

_Model = TypeVar("_Model", bound=Graph)

_SHORT = 120  # characters of a name that stands on its node's line

_ID = r"[^\W\d_]\w*(?:-\w+)*"
_NODE = re.compile(rf"({_ID}): (\w+)(?: (\".*\"))?")
_RELATION = re.compile(rf"({_ID}) -(\w+)-> ({_ID})")
_FIELD = re.compile(
    r"emotion (?P<emotion>[^;]+); rhythm (?P<rhythm>\w+); tension (?P<tension>[^; ]+); "
    r'tone (?P<tone>".*")'
)
_HEAD = re.compile(rf"= scene ({_ID}) (\w+)")
_PART = re.compile(rf"= (text|human|as {_ID}|over .+)")


def write_graph(graph: Graph) -> str:
    """Write the nodes, the relations and the field of a scene, without its words."""
    lines = [line for node in graph.nodes for line in _node(node.id, node.kind, node.name)]
    lines += [str(relation) for relation in graph.relations]
    if graph.field:
        lines.append(f"~ {_field(graph.field)}")
    return "\n".join(lines)


def read_graph(text: str) -> Graph:
    """Read what :func:`write_graph` wrote.

    Raises:
        InputError: a line that is none of these, or a scene that does not hang together.
    """
    values, rest = _graph(text.split("\n"), 0)
    if rest < text.count("\n") + 1:
        raise _unread(text.split("\n"), rest)
    return _valid(Graph, values)


def write_scene(scene: Scene) -> str:
    """Write a scene with all its words."""
    parts = [f"= scene {scene.id} {scene.language}", write_graph(scene)]
    parts += _part("text", scene.text)
    parts += _part("human", scene.human) if scene.human is not None else []
    for role, text in scene.roles.items():
        parts += _part(f"as {role}", text)
    for overlay in scene.overlays:
        parts += _part(f"over {_field(overlay.field)}", overlay.text)
    return "\n".join(parts)


def read_scene(text: str) -> Scene:
    """Read what :func:`write_scene` wrote.

    Raises:
        InputError: as :func:`read_graph`, or a part that is missing or stands twice.
    """
    lines = text.split("\n")
    head = _HEAD.fullmatch(lines[0])
    if not head:
        raise InputError("Line 1 of a scene must be '= scene id language'")
    values, at = _graph(lines, 1)
    values |= {"id": head[1], "language": head[2], "roles": {}, "overlays": []}
    while at < len(lines):
        part = _PART.fullmatch(lines[at])
        if not part:
            raise _unread(lines, at)
        words, end = _words(lines, at + 1)
        _put(values, part[1], words, at)
        at = end
    return _valid(Scene, values)


def _node(id: str, kind: str, name: str | None) -> list[str]:
    if name is None:
        return [f"{id}: {kind}"]
    if "\n" in name or len(name) > _SHORT:
        return [f"{id}: {kind}", *_lines(name)]
    return [f"{id}: {kind} {_quoted(name)}"]


def _field(field: Mood) -> str:
    emotion = ", ".join(f"{word} {strength!r}" for word, strength in field.emotion.items())
    return (
        f"emotion {emotion}; rhythm {field.rhythm}; tension {field.tension!r}; "
        f"tone {_quoted(field.tone)}"
    )


def _part(head: str, text: str) -> list[str]:
    return [f"= {head}", *_lines(text)]


def _lines(text: str) -> list[str]:
    return [f"| {line}" for line in text.split("\n")]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(text: str, line: int) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError as error:
        raise InputError(f"Line {line + 1}: {text} is not quoted as JSON quotes") from error


def _graph(lines: list[str], at: int) -> tuple[dict[str, Any], int]:
    """Read nodes, relations and field from line ``at``; return them and the line after."""
    nodes: list[dict[str, Any]] = []
    relations: list[tuple[str, str, str]] = []
    values: dict[str, Any] = {"nodes": nodes, "relations": relations}
    while at < len(lines):
        if node := _NODE.fullmatch(lines[at]):
            name = _unquoted(node[3], at) if node[3] else None
            end = at + 1
            if name is None and _is_words(lines, end):
                name, end = _words(lines, end)
            nodes.append({"id": node[1], "kind": node[2], "name": name})
            at = end
        elif relation := _RELATION.fullmatch(lines[at]):
            relations.append((relation[1], relation[2], relation[3]))
            at += 1
        elif lines[at].startswith("~ "):
            if "field" in values:
                raise InputError(f"Line {at + 1}: a scene has one field, this is the second")
            values["field"] = _read_field(lines[at][2:], at)
            at += 1
        else:
            break
    return values, at


def _read_field(text: str, line: int) -> dict[str, Any]:
    found = _FIELD.fullmatch(text)
    if not found:
        raise InputError(
            f"Line {line + 1} is no field",
            'Write: ~ emotion calm 0.8; rhythm slow; tension 0.1; tone "plain"',
        )
    return {
        "emotion": dict(_strengths(found["emotion"], line)),
        "rhythm": found["rhythm"],
        "tension": _number(found["tension"], line),
        "tone": _unquoted(found["tone"], line),
    }


def _strengths(text: str, line: int) -> Iterator[tuple[str, float]]:
    for part in text.split(", "):
        word, _, strength = part.rpartition(" ")
        yield word, _number(strength, line)


def _number(text: str, line: int) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"Line {line + 1}: '{text}' is no number from 0 to 1") from error


def _is_words(lines: list[str], at: int) -> bool:
    return at < len(lines) and lines[at].startswith("| ")


def _words(lines: list[str], at: int) -> tuple[str, int]:
    end = at
    while _is_words(lines, end):
        end += 1
    return "\n".join(line[2:] for line in lines[at:end]), end


def _put(values: dict[str, Any], head: str, words: str, line: int) -> None:
    kind, _, rest = head.partition(" ")
    if kind == "over":
        values["overlays"].append({"field": _read_field(rest, line), "text": words})
        return
    place = values["roles"] if kind == "as" else values
    key = rest if kind == "as" else kind
    if key in place:
        raise InputError(f"Line {line + 1}: the part '{head}' stands twice")
    place[key] = words


def _unread(lines: list[str], at: int) -> InputError:
    return InputError(
        f"Line {at + 1} of a scene is neither a node, a relation nor a field: '{lines[at][:60]}'",
        "Write 'oven: thing' or 'oven -cause-> warmth'",
    )


def _valid(model: type[_Model], values: dict[str, Any]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"A scene: {problem(error)}") from error
