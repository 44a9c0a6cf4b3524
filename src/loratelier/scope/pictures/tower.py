"""The model as a plan, its layers from left to right: where an adapter sits, what a site does."""

from collections.abc import Callable, Mapping

from loratelier.base.outline import Outline, labels_of, place_of
from loratelier.scope.pictures.svg import Both, Cell, Grid, Picture, Table

_LAYER: Both = ("layer →", "слой →")
# The rows of the table under a drawing.
_MOST = 20


def tower(
    plan: Outline,
    values: Mapping[str, float],
    *,
    name: str,
    title: Both,
    says: Both,
    value: Both,
    told: Callable[[float], str],
) -> Picture:
    """Draw a value for each site into the plan of a model.

    The strongest value has the strongest shade; colours tell the sign. Places without a value are
    empty boxes.

    Args:
        plan: of the model.
        values: by site. Sites that share a place (experts) are added up.
        name: of the picture.
        title: of the picture.
        says: the sentence below it.
        value: what the values are called.
        told: a value in words.
    """
    placed = by_place(values)
    most = max((abs(v) for v in placed.values()), default=0.0)
    # Whatever else an adapter changes, the ends or norms, has rows of its own below.
    others = tuple(dict.fromkeys(module for _, module in placed if module not in plan.modules))
    modules = (*plan.modules, *others)
    grid = Grid(
        cells=[
            [_cell((block, module), plan, placed, most, told) for block in range(plan.blocks)]
            for module in modules
        ],
        rows=(*plan.labels, *labels_of(others)),
        columns=[str(number) for number in range(plan.blocks)],
        column_title=_LAYER,
        cell_width=max(14, min(30, 860 / max(1, plan.blocks))),
    )
    return Picture(
        name=name,
        title=title,
        says=says,
        width=grid.width,
        height=grid.height,
        drawing=grid.draw(),
        table=Table(
            heads=(("Site", "Место"), value),
            rows=tuple((site, told(v)) for site, v in strongest(values, _MOST)),
        ),
    )


def by_place(values: Mapping[str, float]) -> dict[tuple[int, str], float]:
    """Return values by (block, module); a site in no block has the block 0 and its own name."""
    placed: dict[tuple[int, str], float] = {}
    for site, value in values.items():
        place = place_of(site) or (0, site)
        placed[place] = placed.get(place, 0.0) + value
    return placed


def strongest(values: Mapping[str, float], most: int) -> list[tuple[str, float]]:
    """Return the sites with the largest absolute values, largest first."""
    return sorted(values.items(), key=lambda pair: -abs(pair[1]))[:most]


def _cell(
    place: tuple[int, str],
    plan: Outline,
    placed: Mapping[tuple[int, str], float],
    most: float,
    told: Callable[[float], str],
) -> Cell | None:
    block, module = place
    where = f"{block} · {module}"
    if place in placed:
        shade = placed[place] / most if most else 0.0
        return Cell(shade, f"{where}: {told(placed[place])}")
    return Cell(0.0, where) if place in plan.held else None
