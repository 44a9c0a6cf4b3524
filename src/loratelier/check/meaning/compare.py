"""What is left of scenes that were told and read again: triples, Smatch and the three errors."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loratelier.check.intervals import Interval, bootstrap, ratio
from loratelier.check.meaning.align import by_words, smatch
from loratelier.check.meaning.faults import ERRORS, Fault, faults
from loratelier.check.meaning.graphs import Counts, Triples, counts
from loratelier.corpus.scenes import Graph, read_graph
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class Figure:
    """A figure with its 95% interval: bootstrap over scenes."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Kept:
    """One scene: its triples by words, under the best mapping (Smatch), and its faults."""

    scene: str
    words: Counts
    smatch: Counts
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Unread:
    """A scene of which the answer is no scene: ``why`` is what the notation's reader says."""

    scene: str
    why: str


@dataclass(frozen=True)
class Meaning:
    """All scenes; the figures are None where no answer could be read.

    ``precision``, ``recall`` and ``f1`` are of the triples between nodes that are called alike,
    ``smatch`` of those under the best mapping. ``errors`` are faults a scene. What could not be
    read is in ``unread`` and in no figure: it is neither 0 nor left out in silence.
    """

    kept: tuple[Kept, ...]
    unread: tuple[Unread, ...]
    precision: Figure | None
    recall: Figure | None
    f1: Figure | None
    smatch: Figure | None
    errors: dict[str, Figure]

    @property
    def scenes(self) -> int:
        """How many scenes were asked about."""
        return len(self.kept) + len(self.unread)

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return asdict(self) | {"scenes": self.scenes}


Answer = Graph | str  # a scene, or what a model wrote in the notation of scenes


def measure_meaning(pairs: Iterable[tuple[str, Graph, Answer]], *, seed: int = 0) -> Meaning:
    """Compare scenes with what was made of them; no model is needed.

    Args:
        pairs: a name, the scene, and the answer: a scene, or text in the notation of scenes.
        seed: of the hill climbing.
    """
    kept: list[Kept] = []
    unread: list[Unread] = []
    for name, wanted, answer in pairs:
        try:
            found = read_answer(answer) if isinstance(answer, str) else answer
        except InputError as error:
            unread.append(Unread(name, str(error)))
        else:
            kept.append(compare_scenes(name, wanted, found, seed=seed))
    return summed(kept, unread)


def compare_scenes(name: str, wanted: Graph, found: Graph, *, seed: int = 0) -> Kept:
    """Compare one scene with what was made of it."""
    one, other = Triples(wanted), Triples(found)
    return Kept(
        scene=name,
        words=counts(one, other, by_words(one, other)),
        smatch=smatch(one, other, seed=seed),
        faults=faults(one, other, seed=seed),
    )


def read_answer(text: str) -> Graph:
    """Read a scene that a model wrote; a fence of backticks around it is not meant.

    Raises:
        InputError: it is no scene.
    """
    lines = text.strip().split("\n")
    if len(lines) > 1 and lines[0].startswith("```"):
        lines = lines[1 : -1 if lines[-1].strip() == "```" else None]
    return read_graph("\n".join(line.rstrip() for line in lines))


def summed(kept: Sequence[Kept], unread: Sequence[Unread]) -> Meaning:
    """Sum scenes up."""
    words, best = [one.words for one in kept], [one.smatch for one in kept]
    return Meaning(
        kept=tuple(kept),
        unread=tuple(unread),
        precision=_ratio([(one.matched, one.found) for one in words]),
        recall=_ratio([(one.matched, one.wanted) for one in words]),
        f1=_ratio([(2 * one.matched, one.wanted + one.found) for one in words]),
        smatch=_ratio([(2 * one.matched, one.wanted + one.found) for one in best]),
        errors=_errors(kept),
    )


def _errors(kept: Sequence[Kept]) -> dict[str, Figure]:
    if not kept:
        return {}
    found: dict[str, Figure] = {}
    for kind in ERRORS:
        numbers = [float(count_of(one.faults)[kind]) for one in kept]
        found[kind] = Figure(sum(numbers) / len(numbers), bootstrap(numbers))
    return found


def count_of(found: Iterable[Fault]) -> Counter[str]:
    """Count faults by their kind."""
    return Counter(one.kind for one in found)


def _ratio(pairs: Sequence[tuple[int, int]]) -> Figure | None:
    """Return sums over scenes divided; every scene has triples, so nothing is divided by 0."""
    if not pairs:
        return None
    above, below = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    return Figure(sum(above) / sum(below), ratio(above, below))
