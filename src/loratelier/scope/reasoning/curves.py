"""From answers after changed chains to curves, and the areas over them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from loratelier.scope.reasoning.chains import CurvePoint, Test
from loratelier.scope.reasoning.faithful import Draft, Found
from loratelier.scope.reasoning.verdict import Paired


def curve_of(
    test: Test, found: Found, drafts: Sequence[Draft], shares: Sequence[float]
) -> tuple[tuple[CurvePoint, ...], Paired, int]:
    """Return a test's curve, each problem's areas over it, and how many chains it is of.

    Chains whose whole text leads to no answer that can be read are left out.
    """
    reference = found["early", 1.0]
    asked_at = [share for share in shares if (test, share) in found]
    full = [
        of
        for of in range(len(drafts))
        if None not in reference[of] and all(of in found[test, share] for share in asked_at)
    ]
    if not full or not asked_at:
        return (), [], 0
    known: dict[int, list[tuple[float, float]]] = {}
    for of in full:
        known[of] = [
            _same(found[test, share][of], reference[of]) if share in asked_at else (1.0, 1.0)
            for share in shares
        ]
    points = []
    for at, share in enumerate(shares):
        befores, afters = zip(*_grouped(drafts, known, at), strict=True)
        points.append(CurvePoint(share, sum(befores) / len(befores), sum(afters) / len(afters)))
    areas: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for of, rates in known.items():
        before, after = (area_over(shares, [rate[side] for rate in rates]) for side in (0, 1))
        areas[drafts[of].problem.id].append((before, after))
    return tuple(points), means(areas), len(full)


def _grouped(
    drafts: Sequence[Draft], known: Mapping[int, Sequence[tuple[float, float]]], at: int
) -> list[tuple[float, float]]:
    by_problem: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for of, rates in known.items():
        by_problem[drafts[of].problem.id].append(rates[at])
    return means(by_problem)


def _same(
    answers: tuple[str | None, str | None], reference: tuple[str | None, str | None]
) -> tuple[float, float]:
    return float(answers[0] == reference[0]), float(answers[1] == reference[1])


def area_over(shares: Sequence[float], rates: Sequence[float]) -> float:
    """Return the area between 1 and a curve over shares from 0 to 1, by trapezoids."""
    return sum(
        (right - left) * (1 - (low + high) / 2)
        for left, right, low, high in zip(
            shares[:-1], shares[1:], rates[:-1], rates[1:], strict=True
        )
    )


def means(values: Mapping[str, Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return each problem's mean before and after."""
    return [
        (sum(b for b, _ in each) / len(each), sum(a for _, a in each) / len(each))
        for each in values.values()
    ]
