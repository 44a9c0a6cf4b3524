"""Overlap of sites: how far the updates of sites that share a space go the same ways.

All sites that read the residual stream, and all that write to it, have one space in common. The
overlap of two updates there is the mean squared cosine of the principal angles between the
subspaces that they span (Bjorck and Golub 1973), ``||P^T Q||_F^2 / min(p, q)`` for orthonormal
bases P and Q: 1 if the smaller lies in the larger, 0 if they are perpendicular, and
``max(p, q) / d`` on average for random ones. Singular values do not weigh in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from loratelier.base.stream import Stream
from loratelier.scope.factors import Svd

Between = Literal["outputs", "inputs", "outputs and later inputs"]
_STRONGEST = 12


@dataclass(frozen=True)
class Pair:
    """Two sites, their overlap, and the cosine of the smallest angle between their subspaces."""

    first: str
    second: str
    overlap: float
    cosine: float


@dataclass(frozen=True)
class Overlap:
    """The overlaps of all pairs of sites in one space.

    Attributes:
        between: "outputs" of sites that write to the residual stream, "inputs" of sites that read
            it, or "outputs and later inputs", what one site may hand on to another.
        mean: over all pairs.
        chance: what random subspaces of these sizes would have on average.
        strongest: the pairs that overlap most, falling.
        rows: the sites of the rows of ``matrix``, in the order in which the model calls them.
        columns: the sites of its columns; the same ones, but for outputs with later inputs.
        matrix: overlap of each pair, rounded to four places; None where two sites are no pair.
    """

    between: Between
    mean: float
    chance: float
    strongest: tuple[Pair, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "between": self.between,
            "mean": self.mean,
            "chance": self.chance,
            "strongest": [
                {"first": p.first, "second": p.second, "overlap": p.overlap, "cosine": p.cosine}
                for p in self.strongest
            ],
            "rows": list(self.rows),
            "columns": list(self.columns),
            "matrix": [list(row) for row in self.matrix],
        }


def look_at_overlap(stream: Stream, found: Mapping[str, Svd]) -> tuple[Overlap, ...]:
    """Return the overlaps of outputs, of inputs, and of outputs with later inputs.

    A norm's scale is part of what a site reads or writes; that it divides by the length of the
    stream changes no direction. A relation of which there is no pair of sites is left out.

    Args:
        stream: of the base.
        found: site -> the singular directions of its update.
    """
    called = [site for site in stream.order if site in found and len(found[site].values)]
    outputs = {
        site: _basis(found[site].out, stream.writers[site])
        for site in called
        if site in stream.writers
    }
    inputs = {
        site: _basis(found[site].into, stream.readers[site])
        for site in called
        if site in stream.readers
    }
    turn = {site: n for n, site in enumerate(called)}
    later = torch.tensor([[turn[one] < turn[other] for other in inputs] for one in outputs])
    made = (
        _overlap("outputs", outputs, outputs, _above(len(outputs))),
        _overlap("inputs", inputs, inputs, _above(len(inputs))),
        _overlap("outputs and later inputs", outputs, inputs, later),
    )
    return tuple(each for each in made if each is not None)


def _basis(directions: Tensor, scale: Tensor) -> Tensor:
    """Return an orthonormal basis of directions as they lie in the stream: float64 [d, k]."""
    basis: Tensor = torch.linalg.qr(directions * scale.double()[:, None])[0]
    return basis


def _above(count: int) -> Tensor:
    """Return which of all pairs count, so that each does once: bool [count, count]."""
    return torch.ones(count, count, dtype=torch.bool).triu(1)


def _overlap(
    between: Between, first: Mapping[str, Tensor], second: Mapping[str, Tensor], pairs: Tensor
) -> Overlap | None:
    if not bool(pairs.any()):
        return None
    rows, columns = list(first), list(second)
    sizes = [torch.tensor([basis.shape[1] for basis in each.values()]) for each in (first, second)]
    values = _squared_cosines(list(first.values()), list(second.values()), sizes)
    smaller = torch.minimum(sizes[0][:, None], sizes[1][None])
    larger = torch.maximum(sizes[0][:, None], sizes[1][None])
    overlap = values / smaller
    width = next(iter(first.values())).shape[0]
    ranked = overlap.masked_fill(~pairs, -1.0).flatten().argsort(descending=True)
    places = [divmod(n, len(columns)) for n in ranked[: min(_STRONGEST, int(pairs.sum()))].tolist()]
    shown = pairs | pairs.T if between != "outputs and later inputs" else pairs
    return Overlap(
        between=between,
        mean=float(overlap[pairs].mean()),
        chance=float((larger[pairs] / width).mean()),
        strongest=tuple(
            Pair(
                rows[i],
                columns[j],
                float(overlap[i, j]),
                float(torch.linalg.svdvals(first[rows[i]].T @ second[columns[j]])[0].clamp_max(1)),
            )
            for i, j in places
        ),
        rows=tuple(rows),
        columns=tuple(columns),
        matrix=tuple(
            tuple(round(v, 4) if own else None for v, own in zip(*line, strict=True))
            for line in zip(overlap.tolist(), shown.tolist(), strict=True)
        ),
    )


def _squared_cosines(
    first: Sequence[Tensor], second: Sequence[Tensor], sizes: Sequence[Tensor]
) -> Tensor:
    """Return ``||P^T Q||_F^2`` for all pairs, in one product: [first, second]."""
    squares = (torch.cat(list(first), dim=1).T @ torch.cat(list(second), dim=1)).square()
    owners = [torch.arange(len(each)).repeat_interleave(each) for each in sizes]
    by_row = squares.new_zeros(len(first), squares.shape[1])
    by_row.index_add_(0, owners[0], squares)
    by_pair = by_row.new_zeros(len(first), len(second))
    by_pair.index_add_(1, owners[1], by_row)
    return by_pair
