"""Attention drawn: which heads moved, and where one of them looked before and after."""

from collections.abc import Sequence

from loratelier.scope.pictures.svg import Both, Cell, Grid, Picture, Table, label

_LAYER: Both = ("layer →", "слой →")
_HEAD: Both = ("head", "голова")
_MOST = 20


def heads(moved: Sequence[Sequence[float]], *, title: Both, says: Both, value: Both) -> Picture:
    """Draw how far each head moved: layers from left to right, heads downwards.

    Args:
        moved: by layer and head, 0 for none and 1 for another place altogether.
        title: of the picture.
        says: the sentence below it.
        value: what the numbers are called.
    """
    most = max((each for layer in moved for each in layer), default=0.0)
    count = max((len(layer) for layer in moved), default=0)
    grid = Grid(
        cells=[
            [_head(moved, layer, head, most) for layer in range(len(moved))]
            for head in range(count)
        ],
        rows=[str(head) for head in range(count)],
        columns=[str(layer) for layer in range(len(moved))],
        row_title=_HEAD,
        column_title=_LAYER,
        cell_width=max(14, min(30, 860 / max(1, len(moved)))),
    )
    every = [(f"{n}.{h}", each) for n, layer in enumerate(moved) for h, each in enumerate(layer)]
    first = sorted(every, key=lambda pair: -pair[1])[:_MOST]
    return Picture(
        name="heads",
        title=title,
        says=says,
        width=grid.width,
        height=grid.height,
        drawing=grid.draw(),
        table=Table(
            heads=(("Layer.head", "Слой.голова"), value),
            rows=tuple((name, f"{each:.4f}") for name, each in first),
        ),
    )


def _head(moved: Sequence[Sequence[float]], layer: int, head: int, most: float) -> Cell | None:
    if head >= len(moved[layer]):
        return None
    value = moved[layer][head]
    return Cell(value / most if most else 0.0, f"{layer}.{head}: {value:.4f}")


def looks(
    before: Sequence[Sequence[float]],
    after: Sequence[Sequence[float]],
    tokens: Sequence[str],
    *,
    first: int,
    title: Both,
    says: Both,
) -> Picture:
    """Draw where each token looked: before, after, and what is more and less.

    Args:
        before: attention by query and key, the rows being the last tokens of the text.
        after: the same, after.
        tokens: the text's tokens, as they are to be read; their number is that of the keys.
        first: which token the first row is.
        title: of the picture.
        says: the sentence below it.
    """
    names = [_short(token) for token in tokens]
    change = [
        [late - early for early, late in zip(*rows, strict=True)]
        for rows in zip(before, after, strict=True)
    ]
    size = max(11.0, min(22.0, 420 / max(1, len(names))))
    drawn, x = [], 0.0
    for words, values in zip((_BEFORE, _AFTER, _CHANGE), (before, after, change), strict=True):
        most = max((abs(v) for row in values for v in row), default=0.0) or 1.0
        scale = 1.0 if words is not _CHANGE else most
        labelled = x == 0
        grid = Grid(
            cells=[
                [
                    Cell(v / scale, f"{names[first + q]} → {names[k]}: {v:+.3f}")
                    if k <= first + q
                    else None
                    for k, v in enumerate(row)
                ]
                for q, row in enumerate(values)
            ],
            rows=names[first : first + len(values)] if labelled else [""] * len(values),
            columns=[""] * len(names),
            cell_width=size,
            cell_height=size,
        )
        drawn.append(f'<g transform="translate({x:.0f} 0)">{label(words, grid.left, 22)}')
        drawn.append(f"{grid.draw()}</g>")
        x += grid.width + 10
        height = grid.height
    return Picture(
        name="looks",
        title=title,
        says=says,
        width=x,
        height=height,
        drawing="".join(drawn),
        table=_moved(change, names, first),
    )


_BEFORE: Both = ("before", "до")
_AFTER: Both = ("after", "после")
_CHANGE: Both = ("more (warm) and less (cold)", "больше (тёплое) и меньше (холодное)")


def _moved(change: Sequence[Sequence[float]], names: Sequence[str], first: int) -> Table:
    every = [
        (names[first + q], names[k], value)
        for q, row in enumerate(change)
        for k, value in enumerate(row)
        if value
    ]
    return Table(
        heads=(("From", "Откуда"), ("To", "Куда"), ("Change", "Изменение")),
        rows=tuple(
            (query, key, f"{value:+.4f}")
            for query, key, value in sorted(every, key=lambda one: -abs(one[2]))[:_MOST]
        ),
    )


def _short(token: str, most: int = 9) -> str:
    return token if len(token) <= most else token[: most - 1] + "…"
