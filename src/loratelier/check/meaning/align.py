"""Which node of one scene is which of the other: hill climbing with restarts, as Smatch does it.

Smatch (Cai and Knight 2013) is the F1 of the triples under the mapping that matches most of them.
Finding it is hard in general, and scenes are small: from a greedy start and a few seeded random
ones, single nodes are moved and pairs exchanged as long as that helps.
"""

import random
from collections import Counter
from itertools import combinations

from loratelier.check.meaning.graphs import (
    ALIKE,
    Counts,
    Triple,
    Triples,
    alike,
    canonical,
    counts,
)
from loratelier.check.meaning.words import likeness

# Less than one triple for a whole scene of nodes that are called alike: it settles ties.
_TIES = 0.01
# For finding what became of a node its words say more than where it stands.
_WORDS = 2.5
_RESTARTS = 4
_EPSILON = 1e-9


def smatch(wanted: Triples, found: Triples, *, seed: int = 0) -> Counts:
    """Return the triples in common under the best mapping that hill climbing finds."""
    return counts(wanted, found, _Climb(wanted, found, _TIES).best(seed))


def align(wanted: Triples, found: Triples, *, seed: int = 0) -> dict[str, str]:
    """Return what became of each node, by its words first and by where it stands then.

    A node that has neither a kind, a word nor a relation in common with any other is not in it.
    """
    return _Climb(wanted, found, _WORDS).best(seed)


def by_words(wanted: Triples, found: Triples) -> dict[str, str]:
    """Return the nodes that are called alike, the most alike first; no structure is asked."""
    pairs = sorted(
        (-likeness(a, b), -alike(a, b), a.id, b.id)
        for a in wanted.graph.nodes
        for b in found.graph.nodes
    )
    mapped: dict[str, str] = {}
    for unlike, _, one, other in pairs:
        if -unlike >= ALIKE and one not in mapped and other not in mapped.values():
            mapped[one] = other
    return mapped


class _Climb:
    """Climbs from mapping to mapping; ``words`` is what a node that is called alike is worth."""

    def __init__(self, wanted: Triples, found: Triples, words: float) -> None:
        self._wanted, self._found = wanted, found
        self._ones, self._others = list(wanted.nodes), list(found.nodes)
        self._alone = {
            (a, b): alike(one, other) + words * likeness(one, other)
            for a, one in wanted.nodes.items()
            for b, other in found.nodes.items()
        }

    def best(self, seed: int) -> dict[str, str]:
        """Return the best mapping found."""
        rng = random.Random(seed)
        most = self._most()
        best: dict[str, str] = {}
        score = -1.0
        for start in range(1 + _RESTARTS):
            mapped = self._climb(self._greedy() if start == 0 else self._drawn(rng))
            reached = self._score(mapped)
            if reached > score + _EPSILON:
                best, score = mapped, reached
            if score >= most - _EPSILON:
                break
        return {a: b for a, b in best.items() if self._gain(best, a) > _EPSILON}

    def _most(self) -> float:
        """Return what no mapping can be better than."""
        alone = sum(max(self._alone[a, b] for b in self._others) for a in self._ones)
        wanted, found = (
            Counter(type for _, type, _ in each.relations) for each in (self._wanted, self._found)
        )
        return alone + (wanted & found).total()

    def _greedy(self) -> dict[str, str]:
        """Return a start: nodes that are alike and stand in relations of the same types."""
        standing = {
            (a, b): self._alone[a, b] + 0.5 * (one & other).total()
            for a, one in _standing(self._wanted).items()
            for b, other in _standing(self._found).items()
        }
        mapped: dict[str, str] = {}
        for a, b in sorted(standing, key=lambda pair: (-standing[pair], pair)):
            if a not in mapped and b not in mapped.values():
                mapped[a] = b
        return mapped

    def _drawn(self, rng: random.Random) -> dict[str, str]:
        ones = rng.sample(self._ones, len(self._ones))
        others = rng.sample(self._others, len(self._others))
        return dict(zip(ones, others, strict=False))

    def _climb(self, mapped: dict[str, str]) -> dict[str, str]:
        """Take every step that helps, until none does."""
        while self._step_once(mapped):
            pass
        return mapped

    def _step_once(self, mapped: dict[str, str]) -> bool:
        for one in self._ones:
            free = [b for b in self._others if b not in mapped.values()]
            if self._try(mapped, [{one: b} for b in free]):
                return True
        for one, other in combinations(self._ones, 2):
            a, b = mapped.get(one), mapped.get(other)
            swapped = {one: b, other: a}
            if a != b and self._try(mapped, [swapped]):
                return True
        return False

    def _try(self, mapped: dict[str, str], steps: list[dict[str, str | None]]) -> bool:
        """Take the first of some steps that helps, if any does."""
        for step in steps:
            old = {node: mapped.get(node) for node in step}
            before = self._around(mapped, step)
            _put(mapped, step)
            if self._around(mapped, step) > before + _EPSILON:
                return True
            _put(mapped, old)
        return False

    def _score(self, mapped: dict[str, str]) -> float:
        alone = sum(self._alone[pair] for pair in mapped.items())
        return alone + sum(self._holds(mapped, triple) for triple in self._wanted.relations)

    def _around(self, mapped: dict[str, str], nodes: dict[str, str | None]) -> float:
        """Return what of the score depends on some nodes."""
        triples = {triple for node in nodes for triple in self._wanted.of_node[node]}
        alone = sum(self._alone[node, mapped[node]] for node in nodes if node in mapped)
        return alone + sum(self._holds(mapped, triple) for triple in triples)

    def _gain(self, mapped: dict[str, str], node: str) -> float:
        return self._around(mapped, {node: None})

    def _holds(self, mapped: dict[str, str], triple: Triple) -> bool:
        source, type, target = triple
        a, b = mapped.get(source), mapped.get(target)
        return a is not None and b is not None and canonical((a, type, b)) in self._found.relations


def _put(mapped: dict[str, str], step: dict[str, str | None]) -> None:
    for node in step:
        mapped.pop(node, None)
    mapped |= {node: to for node, to in step.items() if to is not None}


def _standing(triples: Triples) -> dict[str, Counter[tuple[str, bool]]]:
    """Return the types of relations that each node stands in, and at which end."""
    found: dict[str, Counter[tuple[str, bool]]] = {}
    for node, relations in triples.of_node.items():
        found[node] = Counter((type, source == node) for source, type, _ in relations)
    return found
