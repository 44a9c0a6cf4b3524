"""The lens drawn: what each layer would say next, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from loratelier.scope.pictures.svg import Both, Cell, Grid, Picture, Table, label

_LAYER: Both = ("layer →", "слой →")
_AFTER: Both = ("after ↓", "после ↓")
_SIDES: tuple[Both, Both] = (("before", "до"), ("after", "после"))
_COLUMNS, _TEXT = 12, 8


@dataclass(frozen=True)
class Said:
    """What a layer would say: the likeliest token and its probability."""

    token: str
    probability: float


def lens(
    before: Sequence[Sequence[Said]],
    after: Sequence[Sequence[Said]],
    tokens: Sequence[str],
    decided: Sequence[tuple[int, int]],
    *,
    title: Both,
    says: Both,
) -> Picture:
    """Draw both looks, one below the other: positions downwards, layers from left to right.

    A cell is the likeliest next token there, the warmer the surer. The layer from which on a look
    stays with its final word is framed.

    Args:
        before: by position and layer; the last layer is the model's own answer.
        after: the same, after.
        tokens: after which token each position is.
        decided: for each position the layer at which it is decided, before and after.
        title: of the picture.
        says: the sentence below it.
    """
    layers = len(before[0]) if before else 0
    columns = _columns(layers)
    drawn, y = [], 0.0
    width = 0.0
    for side, (words, said) in enumerate(zip(_SIDES, (before, after), strict=True)):
        grid = Grid(
            cells=[
                [_cell(row, layer, columns, decided[n][side]) for layer in columns]
                for n, row in enumerate(said)
            ],
            rows=[_short(token) for token in tokens],
            columns=[str(layer) for layer in columns],
            row_title=_AFTER,
            column_title=_LAYER,
            cell_width=64,
        )
        drawn.append(f'<g transform="translate(0 {y:.0f})">{label(words, 0, 10)}{grid.draw()}</g>')
        y += grid.height + 8
        width = grid.width
    return Picture(
        name="lens",
        title=title,
        says=says,
        width=width,
        height=y,
        drawing="".join(drawn),
        table=Table(
            heads=(
                ("After", "После"),
                ("Decided at layer, before", "Решено на слое, до"),
                ("Decided at layer, after", "Решено на слое, после"),
                ("Final, before", "Итог, до"),
                ("Final, after", "Итог, после"),
            ),
            rows=tuple(
                (token, str(one), str(other), early[-1].token, late[-1].token)
                for token, (one, other), early, late in zip(
                    tokens, decided, before, after, strict=True
                )
            ),
        ),
    )


def _columns(layers: int) -> list[int]:
    """Return at most :data:`_COLUMNS` layers, the last one among them, evenly apart."""
    if layers <= _COLUMNS:
        return list(range(layers))
    return [round(n * (layers - 1) / (_COLUMNS - 1)) for n in range(_COLUMNS)]


def _cell(row: Sequence[Said], layer: int, columns: Sequence[int], decided: int) -> Cell:
    said = row[layer]
    # Not every layer has a column: the first one from which on it is decided is framed.
    chosen = layer == next((column for column in columns if column >= decided), columns[-1])
    return Cell(
        shade=0.75 * said.probability,  # the words stay readable on it
        told=f"{layer}: {said.token} {said.probability:.1%}",
        text=_short(said.token),
        chosen=chosen,
    )


def _short(token: str) -> str:
    return token if len(token) <= _TEXT else token[: _TEXT - 1] + "…"
