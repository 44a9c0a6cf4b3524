"""Three ways in which a scene loses its meaning, each found and named.

Split linkage: one node came back as two that are not linked, or two that were linked came back with
no path between them. Impoverished association: what surrounds the scene is gone, its field, an
attribute of a node, a relation that is no logic. Logical loss: negation, quantity, cause, time or
opposition is gone, turned round, or has become another.

A relation that is lost is one fault and no more: a copy explains it first, then logic, then a
broken link, and association is what remains.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from loratelier.check.meaning.align import align
from loratelier.check.meaning.graphs import (
    ALIKE,
    Triple,
    Triples,
    canonical,
    carried,
    field_lost,
)
from loratelier.check.meaning.words import likeness, numbers

Kind = Literal["split", "impoverished", "logical"]
ERRORS: tuple[Kind, ...] = get_args(Kind)
# Negation, quantity, cause, time and opposition, each by the types that say it.
LOGIC = frozenset(
    {"negation", "quantity", "cause", "prevents", "condition", "before", "time", "opposition"}
)


@dataclass(frozen=True)
class Fault:
    """One fault: ``what`` of the wanted scene it befell, and ``how``.

    ``how`` is ``copied`` or ``parted`` (split), ``gone``, ``turned round``, ``became TYPE``,
    ``became KIND``, ``other number`` or ``came`` (a denial that the scene does not have).
    """

    kind: Kind
    what: str
    how: str


def faults(wanted: Triples, found: Triples, *, seed: int = 0) -> tuple[Fault, ...]:
    """Return what a scene lost on its way; see the module for what counts as which."""
    return tuple(_Finder(wanted, found, align(wanted, found, seed=seed)).all())


class _Finder:
    def __init__(self, wanted: Triples, found: Triples, mapped: Mapping[str, str]) -> None:
        self._wanted, self._found, self._mapped = wanted, found, mapped
        self._lost = [
            triple
            for triple in sorted(wanted.relations)
            if carried(triple, mapped) not in found.relations
        ]

    def all(self) -> Iterator[Fault]:
        explained: set[Triple] = set()
        for node, copy in self._copies():
            yield Fault("split", node, "copied")
            explained |= {triple for triple in self._lost if self._stands_on(triple, node, copy)}
        for triple in self._lost:
            if triple not in explained:
                yield self._loss(triple)
        yield from self._attributes()
        yield from self._denials()
        for what in field_lost(self._wanted.graph, self._found.graph):
            yield Fault("impoverished", what, "gone")

    def _copies(self) -> Iterator[tuple[str, str]]:
        """Yield nodes that came back as themselves and as another that is not linked to them."""
        images = set(self._mapped.values())
        extra = [node for node in self._found.nodes if node not in images]
        for node, image in self._mapped.items():
            for copy in extra:
                linked = frozenset((image, copy)) in self._found.by_pair
                if not linked and self._is_copy(node, copy):
                    yield node, copy

    def _is_copy(self, node: str, copy: str) -> bool:
        one, other = self._wanted.nodes[node], self._found.nodes[copy]
        if one.kind != other.kind:
            return False
        return likeness(one, other) >= ALIKE or any(
            self._stands_on(triple, node, copy) for triple in self._lost
        )

    def _stands_on(self, triple: Triple, node: str, copy: str) -> bool:
        """Whether a lost relation of a node is there on its copy."""
        if node not in (triple[0], triple[2]):
            return False
        return carried(triple, {**self._mapped, node: copy}) in self._found.relations

    def _loss(self, triple: Triple) -> Fault:
        source, type, target = triple
        name = f"{source} -{type}-> {target}"
        rest: Kind = "logical" if type in LOGIC else "impoverished"
        if source not in self._mapped or target not in self._mapped:
            return Fault(rest, name, "gone")
        a, b = self._mapped[source], self._mapped[target]
        between = self._found.by_pair.get(frozenset((a, b)), ())
        if canonical((b, type, a)) in between:
            return Fault(rest, name, "turned round")
        if between:
            return Fault(rest, name, f"became {between[0][1]}")
        if rest == "impoverished" and not self._found.joined(a, b):
            return Fault("split", name, "parted")
        return Fault(rest, name, "gone")

    def _attributes(self) -> Iterator[Fault]:
        for node, image in self._mapped.items():
            one, other = self._wanted.nodes[node], self._found.nodes[image]
            if one.kind != other.kind:
                yield Fault("impoverished", node, f"became {other.kind}")
            if one.kind == "amount":
                said, read = numbers(one), numbers(other)
                if said and read and not said & read:
                    yield Fault("logical", node, "other number")
            elif one.name is not None and not likeness(one, other):
                yield Fault("impoverished", f'{node} "{one.name}"', "gone")

    def _denials(self) -> Iterator[Fault]:
        """Yield denials of nodes that the scene denies nowhere."""
        back = {image: node for node, image in self._mapped.items()}
        denied = {node for a, type, b in self._wanted.relations if type == "negation"
                  for node in (a, b)}  # fmt: skip
        for source, type, target in sorted(self._found.relations):
            node = back.get(target)
            if type != "negation" or node is None or node in denied:
                continue
            # Where a relation became a denial, that is said of the relation already.
            was = frozenset((back.get(source, ""), node))
            if was not in self._wanted.by_pair:
                yield Fault("logical", node, "came")
