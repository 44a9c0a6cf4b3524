"""What was found of the rows behind a move: plain data, each row with the note that it is from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Order = Literal["push", "per_token", "cosine"]
Method = Literal["gradient", "datainf"]
Points = Literal["end", "start", "both"]


@dataclass(frozen=True)
class Source:
    """A message of a source that the row was made of.

    ``start`` and ``end`` count characters of the decoded file; None where the file is structured
    and ``item`` says the place. ``role`` is the one in the source.
    """

    file: str
    uid: str
    item: str
    start: int | None
    end: int | None
    role: str


@dataclass(frozen=True)
class RowPush:
    """How much learning one row pushes the target.

    ``push``: above 0 learning the row raises the target, below 0 it lowers it. Of the method
    ``gradient`` in units of the target for each unit of learning rate, when the row's tokens are
    learned once, each weighing 1; of ``datainf`` in units of its own.
    ``per_token``: ``push`` for each learned token; ``tokens`` counts those.
    ``cosine``: ``push`` over the lengths of both gradients, from -1 to 1: long rows and rows that
    are far from learned have long gradients, and win by ``push`` alone.
    """

    row: str
    conversation: str
    tokens: int
    push: float
    per_token: float
    cosine: float
    asked: str
    excerpt: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Influence:
    """The rows of a corpus by how much they pushed a target.

    ``target`` says what is looked at, in words; ``before`` is its value without the adapter and
    ``after`` with it, in ``unit``. ``rows``: every row that was trained on, the highest push first.
    """

    base: str
    adapter: str
    corpus: str
    prompt: str
    target: str
    unit: Literal["nats", "probability"]
    before: float
    after: float
    method: Method
    points: Points
    rows: tuple[RowPush, ...]

    @property
    def moved(self) -> float:
        """How far the adapter moved the target."""
        return self.after - self.before

    def ordered(self, by: Order = "cosine") -> tuple[RowPush, ...]:
        """Return the rows by one of their figures, the highest first."""
        return tuple(sorted(self.rows, key=lambda row: -_figure(row, by)))

    def to_json(self, top: int | None = None, by: Order = "cosine") -> dict[str, Any]:
        """Return plain data: all rows, or the ``top`` highest and the ``top`` lowest."""
        ordered = self.ordered(by)
        shown: Sequence[RowPush] = ordered
        if top is not None and 2 * top < len(ordered):
            shown = (*ordered[:top], *ordered[-top:])
        return {
            "base": self.base,
            "adapter": self.adapter,
            "corpus": self.corpus,
            "prompt": self.prompt,
            "target": self.target,
            "unit": self.unit,
            "before": self.before,
            "after": self.after,
            "moved": self.moved,
            "method": self.method,
            "points": self.points,
            "ordered_by": by,
            "rows_trained": len(self.rows),
            "rows": [asdict(row) for row in shown],
        }


def _figure(row: RowPush, by: Order) -> float:
    return {"push": row.push, "per_token": row.per_token, "cosine": row.cosine}[by]
