"""A conflict, drawn: adapter by adapter, and for a pair layer by layer."""

import re
from collections.abc import Sequence

from loratelier.compose.conflict import Conflict
from loratelier.compose.geometry import SiteConflict
from loratelier.scope.pictures.svg import Cell, Grid, Picture, Table


def matrix(conflict: Conflict) -> Picture:
    """Return all adapters against each other: the shade is the cosine."""
    cells, rows = [], []
    for one, name in enumerate(conflict.names):
        line = []
        for other, beside in enumerate(conflict.names):
            cosine = conflict.cosine[one][other]
            overlap, signs = conflict.overlap[one][other], conflict.sign_conflict[one][other]
            told = f"{name} × {beside}: cos {cosine:+.3f}, overlap {overlap:.3f}, signs {signs:.1%}"
            line.append(Cell(0.8 * cosine, told, f"{cosine:+.2f}"))
            if one < other:
                figures = (f"{cosine:+.3f}", f"{overlap:.3f}", f"{signs:.1%}")
                rows.append((name, beside, *figures))
        cells.append(line)
    width = max(46.0, *(7.0 * len(name) + 6 for name in conflict.names))
    grid = Grid(cells, conflict.names, conflict.names, cell_width=width, cell_height=30)
    return Picture(
        name="conflict",
        title=("How the adapters lie to each other", "Как адаптеры лежат друг к другу"),
        says=(conflict.advice.sentence, conflict.advice.sentence_ru),
        width=max(grid.width, 420),
        height=grid.height,
        drawing=grid.draw(),
        table=Table(
            (
                ("one", "один"),
                ("other", "другой"),
                ("cosine", "косинус"),
                ("overlap", "общее пространство"),
                ("signs that cancel", "гасящие знаки"),
            ),
            tuple(rows),
        ),
    )


def by_site(conflict: Conflict, one: int = 0, other: int = 1) -> Picture:
    """Return a pair site by site: the shade is the cosine, a frame marks a clash.

    Args:
        conflict: the report.
        one: place of an adapter in ``conflict.names``.
        other: place of another, after it.
    """
    found = {_place(each.site): each for each in conflict.sites if each.pair == (one, other)}
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    depths = sorted({depth for _, depth in found})
    clashes = {(each.pair, each.site) for each in conflict.clashes}

    def cell(kind: str, depth: int) -> Cell | None:
        each = found.get((kind, depth))
        if each is None:
            return None
        return Cell(each.cosine, _told(each), chosen=(each.pair, each.site) in clashes)

    grid = Grid(
        [[cell(kind, depth) for depth in depths] for kind in kinds],
        kinds,
        [str(depth) if depth >= 0 else "" for depth in depths],
        column_title=("layer", "слой"),
    )
    pair = (conflict.names[one], conflict.names[other])
    count = sum(each.pair == (one, other) for each in conflict.clashes)
    return Picture(
        name="conflict-sites",
        title=(f"{pair[0]} × {pair[1]}, site by site", f"{pair[0]} × {pair[1]}, по местам"),
        says=(
            f"Of {len(found)} sites where both act, {count} have both acting strongly against "
            "each other (framed).",
            f"Из {len(found)} мест, где действуют оба, в {count} оба сильно действуют друг против "
            "друга (в рамке).",
        ),
        width=max(grid.width, 420),
        height=grid.height,
        drawing=grid.draw(),
        table=_table(conflict.clashes),
    )


def _told(each: SiteConflict) -> str:
    return (
        f"{each.site}: cos {each.cosine:+.3f}, overlap {each.overlap:.3f}, "
        f"signs {each.sign_conflict:.1%}"
    )


def _place(site: str) -> tuple[str, int]:
    """Return what a site is called within its layer, and which layer that is; -1 for none."""
    number = re.search(r"\.(\d+)\.", site)
    return (site[number.end() :], int(number[1])) if number else (site, -1)


def _table(sites: Sequence[SiteConflict]) -> Table:
    return Table(
        (("site", "место"), ("cosine", "косинус"), ("overlap", "общее пространство")),
        tuple((each.site, f"{each.cosine:+.3f}", f"{each.overlap:.3f}") for each in sites),
    )
