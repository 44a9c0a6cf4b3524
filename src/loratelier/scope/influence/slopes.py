"""Gradients over an adapter's parameters, one row at a time, and what is made of them.

No row's gradient is kept: a row gives a few numbers a block (its inner product with a direction,
its own length), or is added to a sum. A block is one of the adapter's tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.kit.progress import task
from loratelier.train.examples import Example
from loratelier.train.learner import Learner
from loratelier.train.packing import side_by_side
from loratelier.train.terms import guarded_losses

Slope = list[Tensor]
# DataInf's damping: this times the mean squared entry of the rows' gradients in a block.
DAMPING = 0.1


class Slopes:
    """Gradients with respect to whatever takes one in a learner: A and B of every site."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._over = [p for p in learner.parameters() if p.requires_grad]

    def of_row(self, row: Example) -> Slope:
        """Return the gradient of the row's training loss: the sum over its learned tokens.

        That is what the row adds to a step but for the step's common factor, guards included that
        are computed on the row.
        """
        learner = self._learner
        pack = side_by_side([row], padded=learner.reader.apart == "padding")
        losses = guarded_losses(learner, pack.to(self._over[0].device), learner.recipe.guards)
        return self.of(losses.sum())

    def of(self, value: Tensor) -> Slope:
        """Return the gradient of a number; zeros for what it does not depend on."""
        found = torch.autograd.grad(value, self._over, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g.float()
            for p, g in zip(self._over, found, strict=True)
        ]

    def rows(self, rows: Sequence[Example], what: str) -> Iterator[Slope]:
        """Yield each row's gradient, with a progress bar."""
        with task(what, total=len(rows)) as bar:
            for row in rows:
                yield self.of_row(row)
                bar.advance()


@dataclass(frozen=True)
class Seen:
    """What one pass over n rows keeps: float64 [n, blocks] each.

    ``along``: inner products with a direction; ``squared``: squared lengths.
    """

    along: Tensor
    squared: Tensor


def look(slopes: Slopes, rows: Sequence[Example], direction: Slope, what: str) -> Seen:
    """Read every row once."""
    along, squared = [], []
    for slope in slopes.rows(rows, what):
        along.append([_dot(one, other) for one, other in zip(slope, direction, strict=True)])
        squared.append([_dot(one, one) for one in slope])
    return Seen(
        torch.tensor(along, dtype=torch.float64), torch.tensor(squared, dtype=torch.float64)
    )


def undone(slopes: Slopes, rows: Sequence[Example], target: Slope) -> Slope:
    """Return DataInf's direction: the target's gradient through the inverse of the rows' curvature.

    Of each block ``(v - mean_i L_i (L_i . v) / (damping + |L_i|^2)) / damping``, which is the mean
    of the inverses of ``L_i L_i^T + damping I``, with ``damping = 0.1 mean_i |L_i|^2 / d`` over the
    d numbers of the block (arXiv:2310.00902, equations 4 and 5). Reads every row twice.
    """
    seen = look(slopes, rows, target, "Lengths of the rows' gradients")
    sizes = torch.tensor([tensor.numel() for tensor in target], dtype=torch.float64)
    damping = DAMPING * seen.squared.mean(0) / sizes
    # A block in which no row has a gradient has none to push with either.
    damping = damping.clamp_min(torch.finfo(torch.float64).tiny)
    shares = seen.along / (damping + seen.squared) / len(rows)
    taken = [torch.zeros_like(tensor) for tensor in target]
    for share, slope in zip(shares, slopes.rows(rows, "The rows' curvature"), strict=True):
        for sum_, factor, one in zip(taken, share.tolist(), slope, strict=True):
            sum_.add_(one, alpha=factor)
    flat = seen.squared.sum(0) == 0
    return [
        torch.zeros_like(v) if none else (v - part) / float(lamb)
        for v, part, lamb, none in zip(target, taken, damping, flat.tolist(), strict=True)
    ]


def squared(slope: Slope) -> float:
    """Return the squared length of a gradient."""
    return sum(_dot(tensor, tensor) for tensor in slope)


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))
