"""Errors put into scenes by hand, and scenes said otherwise without one: the detectors' test.

A detector of an error is worth what it finds of the errors that are known to be there, and what it
leaves alone of scenes in which there are none.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from loratelier.check.intervals import Accuracy
from loratelier.check.meaning.faults import ERRORS, LOGIC, Kind, faults
from loratelier.check.meaning.graphs import SYMMETRIC, Triples
from loratelier.check.meaning.words import numbers
from loratelier.corpus.scenes import RELATIONS, Graph, Node, Relation

_ID = re.compile(r"[^\W\d_]\w*(?:-\w+)*")
Item = TypeVar("Item")
_OPPOSITE = {"cause": "prevents", "prevents": "cause", "condition": "prevents"}


@dataclass(frozen=True)
class Validation:
    """What the detectors found; ``injected`` is None where nothing was.

    ``found``: of the scenes with that error, those in which it was found. ``beside``: those in
    which an error was found that is not there.
    """

    injected: Kind | None
    paraphrased: bool
    found: Accuracy
    beside: Accuracy


def validate_detectors(scenes: Sequence[Graph], *, seed: int = 0) -> tuple[Validation, ...]:
    """Put each error into every scene that can have it, and look for it.

    Each is done twice, on the scene as it is and on the scene said otherwise. Scenes without an
    error come last: of those ``found`` counts the ones in which nothing was found.
    """
    done = []
    for said_otherwise in (False, True):
        for kind in ERRORS:
            done.append(_one(scenes, kind, said_otherwise, seed))
    done += [_untouched(scenes, said_otherwise, seed) for said_otherwise in (False, True)]
    return tuple(done)


def _one(scenes: Sequence[Graph], kind: Kind, said_otherwise: bool, seed: int) -> Validation:
    found = beside = count = 0
    for number, scene in enumerate(scenes):
        rng = random.Random(f"{seed}/{kind}/{said_otherwise}/{number}")
        broken = inject(scene, kind, rng)
        if broken is None:
            continue
        count += 1
        kinds = _kinds(scene, paraphrase(broken, rng) if said_otherwise else broken)
        found += kind in kinds
        beside += bool(kinds - {kind})
    return Validation(kind, said_otherwise, Accuracy(found, count), Accuracy(beside, count))


def _untouched(scenes: Sequence[Graph], said_otherwise: bool, seed: int) -> Validation:
    alarms = 0
    for number, scene in enumerate(scenes):
        rng = random.Random(f"{seed}/{said_otherwise}/{number}")
        alarms += bool(_kinds(scene, paraphrase(scene, rng) if said_otherwise else scene))
    count = len(scenes)
    return Validation(
        None, said_otherwise, Accuracy(count - alarms, count), Accuracy(alarms, count)
    )


def _kinds(wanted: Graph, found: Graph) -> set[Kind]:
    return {one.kind for one in faults(Triples(wanted), Triples(found))}


def paraphrase(scene: Graph, rng: random.Random) -> Graph:
    """Say the same scene otherwise.

    Ids are others (a name becomes the id now and then), nodes and relations stand in another order,
    and what reads alike from both ends is turned round.
    """
    new = {node.id: f"x{n}" for n, node in enumerate(rng.sample(scene.nodes, len(scene.nodes)))}
    named: dict[str, str | None] = {node.id: node.name for node in scene.nodes}
    for node in scene.nodes:
        slug = "-".join(re.findall(r"\w+", node.name or "")).replace("_", "-")
        if _ID.fullmatch(slug) and slug not in new.values() and rng.random() < 0.5:
            new[node.id], named[node.id] = slug, None
    relations = [
        Relation(source=new[b], type=type, target=new[a])
        if type in SYMMETRIC and rng.random() < 0.5
        else Relation(source=new[a], type=type, target=new[b])
        for a, type, b in ((each.source, each.type, each.target) for each in scene.relations)
    ]
    nodes = [Node(id=new[each.id], kind=each.kind, name=named[each.id]) for each in scene.nodes]
    said = _graph(rng.sample(nodes, len(nodes)), rng.sample(relations, len(relations)), scene)
    # A relation that reads alike from both ends may stand in a scene both ways round.
    return said or scene


def inject(scene: Graph, kind: Kind, rng: random.Random) -> Graph | None:
    """Put one error into a scene; None where the scene has no place for it."""
    ways: dict[Kind, tuple[Callable[[Graph, random.Random], Iterator[Graph | None]], ...]] = {
        "split": (_copied, _parted),
        "impoverished": (_no_field, _no_emotion, _no_relation),
        "logical": (_turned, _opposed, _unsaid, _miscounted),
    }
    for way in rng.sample(ways[kind], len(ways[kind])):
        broken = next((graph for graph in way(scene, rng) if graph is not None), None)
        if broken is not None:
            return broken
    return None


def _copied(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    """One node becomes two, each with a part of its relations."""
    for node in _mixed(scene.nodes, rng):
        own = [each for each in scene.relations if node.id in (each.source, each.target)]
        if len(own) < 2:
            continue
        moved = rng.sample(own, rng.randint(1, len(own) - 1))
        copy = node.model_copy(update={"id": rng.choice([f"{node.id}-2", "another"])})
        relations = [_renamed(each, node.id, copy.id) if each in moved else each
                     for each in scene.relations]  # fmt: skip
        yield _graph([*scene.nodes, copy], relations, scene)


def _parted(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    """The one link between two parts of a scene is gone."""
    for each in _mixed(scene.relations, rng):
        graph = _without(scene, each)
        if each.type in LOGIC or graph is None:
            continue
        if not Triples(graph).joined(each.source, each.target):
            yield graph


def _no_field(scene: Graph, _: random.Random) -> Iterator[Graph | None]:
    if scene.field:
        yield _graph(scene.nodes, scene.relations, scene.model_copy(update={"field": None}))


def _no_emotion(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    if scene.field and len(scene.field.emotion) > 1:
        gone = rng.choice(sorted(scene.field.emotion))
        left = {word: share for word, share in scene.field.emotion.items() if word != gone}
        field = scene.field.model_copy(update={"emotion": left})
        yield _graph(scene.nodes, scene.relations, scene.model_copy(update={"field": field}))


def _no_relation(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    """A relation that is no logic is gone, with the node that had no other; nothing falls apart."""
    for each in _mixed(scene.relations, rng):
        if each.type in LOGIC:
            continue
        graph = _without(scene, each) or _without_leaf(scene, each)
        if graph is None:
            continue
        left = {node.id for node in graph.nodes}
        ends = {each.source, each.target}
        if not ends <= left or Triples(graph).joined(each.source, each.target):
            yield graph


def _turned(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    for each in _mixed(_logical(scene), rng):
        if each.type not in SYMMETRIC:
            turned = Relation(source=each.target, type=each.type, target=each.source)
            yield _changed(scene, each, turned)


def _opposed(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    for each in _mixed(_logical(scene), rng):
        other = _OPPOSITE.get(each.type, "about")
        yield _changed(scene, each, each.model_copy(update={"type": other}))


def _unsaid(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    for each in _mixed(_logical(scene), rng):
        yield _without(scene, each) or _without_leaf(scene, each)


def _miscounted(scene: Graph, rng: random.Random) -> Iterator[Graph | None]:
    for node in _mixed(scene.nodes, rng):
        said = numbers(node)
        if node.kind == "amount" and said and node.name is not None:
            wrong = node.model_copy(update={"name": f"{max(said) + rng.randint(1, 9)}"})
            # The id may say the old number too.
            new = wrong.model_copy(update={"id": "so-many"})
            relations = [_renamed(each, node.id, new.id) for each in scene.relations]
            nodes = [new if each == node else each for each in scene.nodes]
            yield _graph(nodes, relations, scene)


def _logical(scene: Graph) -> list[Relation]:
    return [each for each in scene.relations if each.type in LOGIC]


def _mixed(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _renamed(each: Relation, old: str, new: str) -> Relation:
    ends = {"source": each.source, "target": each.target}
    return each.model_copy(update={end: new for end, node in ends.items() if node == old})


def _without(scene: Graph, gone: Relation) -> Graph | None:
    return _graph(scene.nodes, [each for each in scene.relations if each != gone], scene)


def _without_leaf(scene: Graph, gone: Relation) -> Graph | None:
    rest = [each for each in scene.relations if each != gone]
    joined = {end for each in rest for end in (each.source, each.target)}
    return _graph([node for node in scene.nodes if node.id in joined], rest, scene)


def _changed(scene: Graph, old: Relation, new: Relation) -> Graph | None:
    relations = [new if each == old else each for each in scene.relations]
    return _graph(scene.nodes, relations, scene)


def _graph(nodes: Iterable[Node], relations: Iterable[Relation], scene: Graph) -> Graph | None:
    """Return a scene with the field of another, or None where it does not hang together."""
    try:
        return Graph(nodes=tuple(nodes), relations=tuple(relations), field=scene.field)
    except ValidationError:
        return None


def drawn_scene(rng: random.Random, words: Sequence[str]) -> Graph:
    """Return a scene of 6 to 10 nodes that is drawn by chance and hangs together.

    Args:
        rng: draws it.
        words: at least ten, of which the nodes' ids are drawn.
    """
    while True:
        kinds = [rng.choice(_DRAWN) for _ in range(rng.randint(6, 10))]
        ids = rng.sample(words, len(kinds))
        nodes = [Node(id=id, kind=kind) for id, kind in zip(ids, kinds, strict=True)]
        relations: dict[frozenset[str], Relation] = {}
        for at in range(1, len(nodes)):
            _draw(rng, relations, nodes[rng.randrange(at)], nodes[at])
        for _ in range(3):
            _draw(rng, relations, *rng.sample(nodes, 2))
        field = {
            "emotion": dict.fromkeys(rng.sample(words, 2), 0.5),
            "rhythm": rng.choice(["still", "slow", "even", "broken", "quick"]),
            "tension": rng.random(),
            "tone": rng.choice(words),
        }
        try:
            return Graph.model_validate(
                {"nodes": nodes, "relations": tuple(relations.values()), "field": field}
            )
        except ValidationError:
            continue


_DRAWN = ("person", "creature", "thing", "place", "event", "state", "idea", "moment", "amount")


def _draw(
    rng: random.Random, relations: dict[frozenset[str], Relation], one: Node, other: Node
) -> None:
    """Join two nodes by a relation that may join them, if they are not joined yet."""
    a, b = rng.sample([one, other], 2)
    fitting = [
        name
        for name, type in RELATIONS.items()
        if a.kind in type.sources and b.kind in type.targets
    ]
    if fitting:
        relations.setdefault(
            frozenset((a.id, b.id)), Relation(source=a.id, type=rng.choice(fitting), target=b.id)
        )
