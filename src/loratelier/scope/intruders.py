"""Intruder dimensions: strong directions of the changed weight that the base did not have.

After arXiv 2410.21228: of the ``top`` left singular vectors of ``W + dW`` those whose largest
absolute cosine with any left singular vector of W is below ``epsilon``. Full fine-tuning makes
hardly any; LoRA does, and the more of them, the more was found to be forgotten.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loratelier.base.stream import weight_of
from loratelier.kit.progress import task
from loratelier.scope.change import Change
from loratelier.scope.factors import factors

TOP, EPSILON = 10, 0.5


@dataclass(frozen=True)
class Intruder:
    """A direction of the changed weight that the weight did not have.

    Attributes:
        rank: which of the changed weight's singular values it has, from 1.
        value: that singular value.
        cosine: the largest absolute cosine with any direction that the weight had.
    """

    rank: int
    value: float
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


@torch.no_grad()
def look_for_intruders(
    change: Change, sites: Sequence[str], *, top: int = TOP, epsilon: float = EPSILON
) -> dict[str, tuple[Intruder, ...]]:
    """Return the intruder dimensions of each site; a site that has none has an empty tuple.

    From one adapter to another W is the weight as it is in the first of them.

    Args:
        change: what is looked at.
        sites: whose change is low-rank.
        top: how many of the changed weight's strongest directions are looked at.
        epsilon: the cosine below which one is an intruder.
    """
    found = {}
    with task("Intruder dimensions", total=len(sites)) as bar:
        for site in sites:
            before, after = _both(change, site)
            found[site] = _intruders(before, after, top, epsilon)
            bar.advance()
    return found


def _both(change: Change, site: str) -> tuple[Tensor, Tensor]:
    """Return the dense weight before and after: float32 [d_out, d_in]."""
    weight = weight_of(change.base.model, site)
    if change.before is not None and site in change.before.tensors:
        down, up = change.before.tensors[site]
        scale = change.strength * change.before.scaling(site)
        weight = weight + scale * (up.float().cpu() @ down.float().cpu())
    pair = factors(change, site)
    return weight, weight if pair is None else weight + pair[1] @ pair[0]


def _intruders(before: Tensor, after: Tensor, top: int, epsilon: float) -> tuple[Intruder, ...]:
    _, old = left_vectors(before)
    values, new = left_vectors(after, top)
    cosines = (old.T @ new).abs().amax(0).tolist()
    return tuple(
        Intruder(n, value, cosine)
        for n, (value, cosine) in enumerate(zip(values.tolist(), cosines, strict=True), start=1)
        if cosine < epsilon
    )


def left_vectors(weight: Tensor, top: int | None = None) -> tuple[Tensor, Tensor]:
    """Return singular values [k], falling, and left singular vectors [d_out, k], float64.

    By the eigenvectors of the smaller of ``W W^T`` and ``W^T W``, which is several times as fast as
    an SVD. Vectors whose values are below a millionth of the largest are left out: squaring has
    made them rounding, and no strong direction of a changed weight is one of them.
    """
    weight = weight.double()
    wide = weight.shape[0] <= weight.shape[1]
    squares, vectors = torch.linalg.eigh(weight @ weight.T if wide else weight.T @ weight)
    values = squares.clamp_min(0).sqrt().flip(0)[:top]
    kept = values > 1e-6 * values[0]
    values, vectors = values[kept], vectors.flip(1)[:, : len(kept)][:, kept]
    return values, vectors if wide else weight @ vectors / values
