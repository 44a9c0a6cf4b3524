"""The conflict report: how adapters lie to each other before anybody merges them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.compose.advice import Advice, Thresholds, by_geometry, by_measure
from loratelier.compose.geometry import SiteConflict, Whole, relate
from loratelier.compose.interference import Interference, Rows, measure_interference
from loratelier.compose.parents import pairs_of, require_alike
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Conflict:
    """How adapters lie to each other.

    Attributes:
        names: the adapters, in the order in which they were given.
        cosine, overlap, sign_conflict: N x N, symmetric; see :class:`Whole` for their definitions.
            On the diagonal 1, 1 and 0.
        sites: every pair at every site where both act.
        clashes: those where both act strongly and disagree, worst cosine first.
        interference: what was measured, by adapter; empty without held-out rows.
        advice: merge, mix softly, or route, and why.
        thresholds: the lines that the clashes and the advice go by.
    """

    names: tuple[str, ...]
    cosine: Matrix
    overlap: Matrix
    sign_conflict: Matrix
    sites: tuple[SiteConflict, ...]
    clashes: tuple[SiteConflict, ...]
    interference: tuple[Interference, ...]
    advice: Advice
    thresholds: Thresholds

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values; pairs are named."""
        document = asdict(self)
        for key in ("sites", "clashes"):
            document[key] = [
                asdict(each)
                | {"overlap": each.overlap, "pair": [self.names[place] for place in each.pair]}
                for each in getattr(self, key)
            ]
        return document


def compare_adapters(
    adapters: Sequence[Adapter],
    *,
    base: Base | None = None,
    held_out: Mapping[Adapter, Rows] | None = None,
    merged: Adapter | None = None,
    thresholds: Thresholds | None = None,
) -> Conflict:
    """Say how adapters conflict, from their tensors and, where rows are given, by measuring.

    Args:
        adapters: two or more of one base; any ranks, alphas and sites.
        base: to measure with.
        held_out: an adapter -> rows that it was not trained on (a corpus, whose split ``holdout``
            is read, or texts and dialogues): read under the base, the adapter alone, all at equal
            shares, all at full strength, and ``merged``.
        merged: an adapter that was made of them.
        thresholds: the lines; the untold ones are named in :class:`Thresholds`.

    Raises:
        InputError: fewer than two adapters, adapters that cannot meet, or a base without rows and
            the other way round.
    """
    if len(adapters) < 2:
        raise InputError(f"There is nothing to compare: {len(adapters)} adapter", "Give two")
    _require_measurable(adapters, base, held_out, merged)
    require_alike(adapters)
    lines = thresholds or Thresholds()
    pairs = [pairs_of(adapter) for adapter in adapters]
    chosen = list(combinations(range(len(adapters)), 2))
    wholes: dict[tuple[int, int], Whole] = {}
    sites: list[SiteConflict] = []
    with task("Comparing", total=len(chosen)) as bar:
        for one, other in chosen:
            wholes[one, other], found = relate(pairs[one], pairs[other], (one, other))
            sites += found
            bar.advance()
    measured: tuple[Interference, ...] = ()
    if base is not None and held_out:
        measured = measure_interference(base, held_out, adapters, merged)
    count = len(adapters)
    return Conflict(
        names=tuple(adapter.name for adapter in adapters),
        cosine=_matrix({place: whole.cosine for place, whole in wholes.items()}, count, 1.0),
        overlap=_matrix({place: whole.overlap for place, whole in wholes.items()}, count, 1.0),
        sign_conflict=_matrix({p: whole.sign_conflict for p, whole in wholes.items()}, count, 0.0),
        sites=tuple(sites),
        clashes=tuple(sorted(filter(lines.clashes, sites), key=lambda each: each.cosine)),
        interference=measured,
        advice=by_measure(measured, lines) if measured else by_geometry([*wholes.values()], lines),
        thresholds=lines,
    )


def _require_measurable(
    adapters: Sequence[Adapter],
    base: Base | None,
    held_out: Mapping[Adapter, Rows] | None,
    merged: Adapter | None,
) -> None:
    if (base is None) != (not held_out):
        what = "no base" if base is None else "no held-out rows"
        raise InputError(f"To measure interference there is {what}", "Give both, or neither")
    if merged is not None and not held_out:
        raise InputError("A merged adapter is compared on held-out rows", "Give them and a base")
    odd = next((each for each in held_out or {} if each not in adapters), None)
    if odd is not None:
        raise InputError(f"There are held-out rows for '{odd.name}', which is not compared")


def _matrix(values: Mapping[tuple[int, int], float], count: int, diagonal: float) -> Matrix:
    return tuple(
        tuple(
            diagonal if row == column else values[min(row, column), max(row, column)]
            for column in range(count)
        )
        for row in range(count)
    )
