"""A scene as triples, and how many of them two scenes have in common under a mapping of nodes.

The triples are what a node is (``rain is event``), what it is called where it has a name, how nodes
stand to one another, and the field. ``opposition`` and ``likeness`` read alike from both ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from loratelier.check.meaning.words import likeness, same_words
from loratelier.corpus.scenes import Graph, Node

SYMMETRIC = frozenset({"opposition", "likeness"})
# From here on two nodes are called alike.
ALIKE = 0.5
# Tensions nearer than this are one tension.
_TENSION = 0.25

Triple = tuple[str, str, str]  # from, type, to
Mapped = Mapping[str, str]  # a node of one scene to a node of the other


@dataclass(frozen=True)
class Counts:
    """Triples of a scene, of the answer, and how many are in both."""

    wanted: int
    found: int
    matched: int

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.wanted + self.found
        return 2 * self.matched / total if total else 0.0


class Triples:
    """The triples of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: Mapping[str, Node] = {node.id: node for node in graph.nodes}
        self.relations = frozenset(
            canonical((each.source, each.type, each.target)) for each in graph.relations
        )

    @cached_property
    def by_pair(self) -> Mapping[frozenset[str], tuple[Triple, ...]]:
        """Relations by the two nodes that they join."""
        found: dict[frozenset[str], tuple[Triple, ...]] = {}
        for triple in sorted(self.relations):
            pair = frozenset((triple[0], triple[2]))
            found[pair] = (*found.get(pair, ()), triple)
        return found

    @cached_property
    def of_node(self) -> Mapping[str, tuple[Triple, ...]]:
        """Relations by node, each at both of its ends."""
        found: dict[str, tuple[Triple, ...]] = dict.fromkeys(self.nodes, ())
        for triple in sorted(self.relations):
            for end in (triple[0], triple[2]):
                found[end] = (*found[end], triple)
        return found

    @cached_property
    def field(self) -> int:
        """How many triples the field is: its emotions, rhythm, tension and tone."""
        return len(self.graph.field.emotion) + 3 if self.graph.field else 0

    @cached_property
    def count(self) -> int:
        """How many triples there are."""
        named = sum(node.name is not None for node in self.graph.nodes)
        return len(self.nodes) + named + len(self.relations) + self.field

    def joined(self, one: str, other: str) -> bool:
        """Whether a path of relations joins two nodes."""
        seen, open_ = {one}, [one]
        while open_:
            for a, _, b in self.of_node[open_.pop()]:
                new = {a, b} - seen
                seen |= new
                open_ += new
        return other in seen


def canonical(triple: Triple) -> Triple:
    """Return a relation that reads alike from both ends in one order."""
    source, type, target = triple
    if type in SYMMETRIC and source > target:
        return target, type, source
    return triple


def carried(triple: Triple, mapped: Mapped) -> Triple | None:
    """Return a relation in the other scene's nodes; None where one of them has no counterpart."""
    source, type, target = triple
    if source not in mapped or target not in mapped:
        return None
    return canonical((mapped[source], type, mapped[target]))


def alike(one: Node, other: Node) -> int:
    """Return how many triples two single nodes have in common: kind, and name where both have."""
    named = one.name is not None and other.name is not None
    return (one.kind == other.kind) + (named and likeness(one, other) >= ALIKE)


def counts(wanted: Triples, found: Triples, mapped: Mapped) -> Counts:
    """Count the triples that two scenes have in common under a mapping."""
    nodes = sum(alike(wanted.nodes[a], found.nodes[b]) for a, b in mapped.items())
    relations = sum(carried(triple, mapped) in found.relations for triple in wanted.relations)
    lost = len(field_lost(wanted.graph, found.graph))
    return Counts(wanted.count, found.count, nodes + relations + wanted.field - lost)


def field_lost(wanted: Graph, found: Graph) -> tuple[str, ...]:
    """Name what of a scene's field is not in the other's."""
    field, other = wanted.field, found.field
    if field is None:
        return ()
    said = (*(f"emotion {word}" for word in field.emotion), "rhythm", "tension", "tone")
    if other is None:
        return said
    kept = {
        "rhythm": field.rhythm == other.rhythm,
        "tension": abs(field.tension - other.tension) <= _TENSION,
        "tone": same_words(field.tone, other.tone),
    } | {
        f"emotion {word}": any(same_words(word, one) for one in other.emotion)
        for word in field.emotion
    }
    return tuple(what for what in said if not kept[what])
