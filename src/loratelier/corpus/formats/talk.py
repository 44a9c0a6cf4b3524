"""A conversation as a scene: speakers and utterances, who says what, and what answers what."""

from itertools import pairwise

from loratelier.corpus.formats.labels import Messages
from loratelier.corpus.scenes.model import Graph, Node, Relation
from loratelier.corpus.scenes.notation import read_graph, write_graph
from loratelier.kit.errors import InputError


def to_scene(messages: Messages) -> str:
    """Write a conversation in the notation of scenes."""
    speakers = dict.fromkeys(message["role"] for message in messages)
    nodes = [Node(id=role, kind="person") for role in speakers]
    relations = []
    for number, message in enumerate(messages, start=1):
        nodes.append(Node(id=f"m{number}", kind="utterance", name=message["content"]))
        relations.append(Relation(source=message["role"], type="says", target=f"m{number}"))
    for number, (before, after) in enumerate(pairwise(messages), start=1):
        type, source, target = (
            ("answer", number + 1, number)
            if before["role"] != after["role"]
            else ("before", number, number + 1)
        )
        relations.append(Relation(source=f"m{source}", type=type, target=f"m{target}"))
    return write_graph(Graph(nodes=tuple(nodes), relations=tuple(relations)))


def from_scene(text: str) -> Messages:
    """Read what :func:`to_scene` wrote.

    Raises:
        InputError: no scene, or a scene that is no conversation.
    """
    graph = read_graph(text)
    speaker = {each.target: each.source for each in graph.relations if each.type == "says"}
    said = [node for node in graph.nodes if node.kind == "utterance"]
    if not said or any(node.id not in speaker for node in said):
        raise InputError("A scene without utterances is no conversation")
    return [{"role": speaker[node.id], "content": node.name or ""} for node in said]
