"""The kinds of nodes and the types of relations, each with its reading and what it may join.

A relation reads in the order it is written: ``rain -cause-> flood`` says that rain brings about the
flood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "person": "somebody, or several as one",
        "creature": "an animal or a plant that acts",
        "thing": "what can be touched",
        "place": "where something is",
        "event": "what happens or is done",
        "state": "how something is, and stays for a while",
        "idea": "what is thought, known, meant, promised",
        "moment": "when: an hour, a season, an age",
        "amount": "how many, how much, how long",
        "utterance": "words that are said; its name is the words themselves",
    }
)

_ACTORS = frozenset({"person", "creature", "thing", "idea", "place"})
_HAPPENINGS = frozenset({"event", "state", "utterance"})
_ANYTHING = frozenset(KINDS)


@dataclass(frozen=True)
class RelationType:
    """How a relation reads; ``sources`` and ``targets`` are the kinds of nodes that it joins.

    ``ordered``: it may not run in a circle.
    """

    reading: str
    sources: frozenset[str] = _ANYTHING
    targets: frozenset[str] = _ANYTHING
    ordered: bool = False


RELATIONS: Mapping[str, RelationType] = MappingProxyType(
    {
        "does": RelationType("{0} does {1}", _ACTORS, _HAPPENINGS),
        "undergoes": RelationType("{0} undergoes {1}", targets=_HAPPENINGS),
        "says": RelationType("{0} says {1}", _ACTORS, frozenset({"utterance", "idea"})),
        "about": RelationType("{0} is about {1}"),
        "answer": RelationType("{0} answers {1}"),
        "cause": RelationType("{0} brings about {1}"),
        "prevents": RelationType("{0} keeps {1} from being"),
        "condition": RelationType("{1} holds only if {0} does"),
        "goal": RelationType("{0} is for the sake of {1}"),
        "before": RelationType("{0} comes before {1}", ordered=True),
        "time": RelationType("{0} is at the time of {1}", targets=_HAPPENINGS | {"moment"}),
        "place": RelationType(
            "{0} is at {1}", targets=frozenset({"place", "thing", "person", "creature"})
        ),
        "part": RelationType("{0} is part of {1}", ordered=True),
        "possession": RelationType("{0} has {1}", _ACTORS),
        "quantity": RelationType("{0} counts {1}", targets=frozenset({"amount"})),
        "quality": RelationType("{0} is {1}", targets=frozenset({"state", "idea"})),
        "likeness": RelationType("{0} is like {1}"),
        "opposition": RelationType("{0} stands against {1}"),
        "negation": RelationType("{0} is the absence or the denial of {1}"),
    }
)
