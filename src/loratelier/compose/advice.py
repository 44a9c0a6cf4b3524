"""Merge, mix softly, or route: what the figures speak for, and where the lines are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loratelier.compose.geometry import SiteConflict, Whole
from loratelier.compose.interference import Interference, Kept

Way = Literal["merge", "mix softly", "route"]


@dataclass(frozen=True)
class Thresholds:
    """Where the lines are.

    Attributes:
        strong: an adapter acts strongly at a site where its ``||D||^2`` is at least this many times
            its own mean.
        opposed: at or below this cosine two adapters disagree at a site.
        conflicting: at or above this sign conflict they disagree too.
        merge_cosine, merge_conflict: by geometry alone a merge is advised from this cosine and up
            to this sign conflict, over all sites and for every pair.
        mix_cosine, mix_conflict: a soft mix, likewise; else to route.
        merge_kept: measured, a merge is advised where every adapter keeps this share of its gain.
        mix_kept: measured, a soft mix; else to route.
    """

    strong: float = 1.0
    opposed: float = -0.1
    conflicting: float = 0.1
    merge_cosine: float = -0.05
    merge_conflict: float = 0.05
    mix_cosine: float = -0.2
    mix_conflict: float = 0.2
    merge_kept: float = 0.8
    mix_kept: float = 0.5

    def clashes(self, site: SiteConflict) -> bool:
        """Whether both act strongly at a site and disagree there."""
        disagree = site.cosine <= self.opposed or site.sign_conflict >= self.conflicting
        return min(site.strengths) >= self.strong and disagree


@dataclass(frozen=True)
class Advice:
    """What to do, and a sentence that says why, with the figures and the lines.

    ``measured`` is false where there were only the adapters to judge by, and no held-out rows.
    """

    way: Way
    measured: bool
    sentence: str
    sentence_ru: str


def by_geometry(wholes: Sequence[Whole], lines: Thresholds) -> Advice:
    """Return advice for adapters of which only the tensors are known: the worst pair decides."""
    cosine = min(whole.cosine for whole in wholes)
    conflict = max(whole.sign_conflict for whole in wholes)
    way: Way = "merge"
    least, most = lines.merge_cosine, lines.merge_conflict
    if cosine < least or conflict > most:
        least, most = lines.mix_cosine, lines.mix_conflict
        way = "mix softly" if cosine >= least and conflict <= most else "route"
    inside, within = ("outside", "вне") if way == "route" else ("within", "в пределах")
    return Advice(
        way,
        False,
        f"{_DO[way][0]}: the lowest cosine is {cosine:+.2f} and the highest sign conflict "
        f"{conflict:.0%}, {inside} {least:+.2f} and {most:.0%}; by the tensors alone, held-out "
        "rows would say more.",
        f"{_DO[way][1]}: наименьший косинус {cosine:+.2f}, наибольший конфликт знаков "
        f"{conflict:.0%}, {within} границ {least:+.2f} и {most:.0%}; это только по тензорам, "
        "отложенные строки сказали бы больше.",
    )


def by_measure(found: Sequence[Interference], lines: Thresholds) -> Advice:
    """Return advice for adapters whose held-out rows were read: the one that loses most decides.

    Of the ways to wear them at once the best is taken, and is named.
    """
    gaining = [each for each in found if each.kept]
    if not gaining:
        names = ", ".join(f"'{each.adapter}'" for each in found)
        return Advice(
            "route",
            True,
            f"{_DO['route'][0]}: {names} alone gain nothing on their held-out rows, so there is "
            "nothing that a merge could keep.",
            f"{_DO['route'][1]}: {names} и поодиночке ничего не дают на отложенных строках, "
            "слиянию нечего сохранять.",
        )
    worst = {name: min(gaining, key=lambda each: each.kept[name].share) for name in gaining[0].kept}
    best = max(worst, key=lambda name: worst[name].kept[name].share)
    loser, kept = worst[best], worst[best].kept[best]
    way: Way = "route"
    if kept.share >= lines.mix_kept:
        way = "merge" if kept.share >= lines.merge_kept else "mix softly"
    line = lines.mix_kept if way == "route" else _LINE[way](lines)
    sign = "<" if way == "route" else "≥"
    how, how_ru = _WAYS[best]
    return Advice(
        way,
        True,
        f"{_DO[way][0]}: {how}, '{loser.adapter}' keeps {kept.share:.0%} of its gain on its "
        f"held-out rows ({_span(kept, 'one row, no interval', 'to')}; {sign} {line:.0%}).",
        f"{_DO[way][1]}: {how_ru} адаптер '{loser.adapter}' сохраняет {kept.share:.0%} своего "
        f"выигрыша на отложенных строках ({_span(kept, 'одна строка, без интервала', '–')}; "
        f"{sign} {line:.0%}).",
    )


def _span(kept: Kept, unknown: str, to: str) -> str:
    if kept.low is None or kept.high is None:
        return unknown
    return f"95%: {kept.low:.0%} {to} {kept.high:.0%}"


_DO: dict[str, tuple[str, str]] = {
    "merge": ("Merge them", "Сливать"),
    "mix softly": ("Mix them softly", "Смешивать мягко"),
    "route": ("Route between them", "Переключать"),
}
_LINE = {"merge": lambda lines: lines.merge_kept, "mix softly": lambda lines: lines.mix_kept}
_WAYS = {
    "soft": ("worn at equal shares", "при равных долях"),
    "full": ("worn together at full strength", "вместе в полную силу"),
    "merged": ("merged", "после слияния"),
}
