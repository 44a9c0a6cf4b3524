"""Integrated gradients over gates: what each gate does to a number along the way from 0 to 1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from loratelier.kit.errors import InputError

_FEWEST = 4


@dataclass(frozen=True)
class Integral:
    """The shares of units of a total, and how well they add up to it.

    Attributes:
        shares: float64 [units].
        residual: ``|sum(shares) - total|``, divided by ``|total|`` where ``residual_is`` is
            "relative" and as it stands, in the target's unit, where it is "absolute".
        reached: whether the residual is within the tolerance.
        nodes: of the last quadrature.
        passes: how many forward and backward passes were made in all.
    """

    shares: Tensor
    residual: float
    residual_is: Literal["relative", "absolute"]
    reached: bool
    nodes: int
    passes: int


def integrate(
    derivative: Callable[[float], Tensor],
    total: float,
    *,
    near_zero: float,
    tolerance: float,
    max_nodes: int,
) -> Integral:
    """Integrate derivatives from 0 to 1 by Gauss-Legendre, with 4 nodes doubled until they add up.

    They add up where the error is at most ``tolerance`` of the total; of a total near zero, where
    it is at most ``tolerance`` of ``near_zero``.

    Args:
        derivative: from the place on the way to the derivative by each unit: float64 [units].
        total: what the shares should add up to.
        near_zero: the size below which a total is near zero, so that parts of it say nothing.
        tolerance: above 0.
        max_nodes: the most nodes of a quadrature, at least 4.

    Raises:
        InputError: a tolerance or a number of nodes out of range.
    """
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}", "It is a share between 0 and 1, as 0.01")
    if max_nodes < _FEWEST:
        raise InputError(f"max_nodes is {max_nodes}", f"It is {_FEWEST} or more")
    nodes, passes = _FEWEST, 0
    while True:
        shares = _quadrature(derivative, nodes)
        passes += nodes
        error = abs(float(shares.sum()) - total)
        reached = error <= tolerance * max(abs(total), near_zero)
        if reached or 2 * nodes > max_nodes:
            break
        nodes *= 2
    small = abs(total) < near_zero
    return Integral(
        shares=shares,
        residual=error if small else error / abs(total),
        residual_is="absolute" if small else "relative",
        reached=reached,
        nodes=nodes,
        passes=passes,
    )


def _quadrature(derivative: Callable[[float], Tensor], nodes: int) -> Tensor:
    places, weights = np.polynomial.legendre.leggauss(nodes)
    parts = [
        weight / 2 * derivative((1 + place) / 2)
        for place, weight in zip(places.tolist(), weights.tolist(), strict=True)
    ]
    return torch.stack(parts).sum(0)


def by_gates(
    score: Callable[[Sequence[Tensor]], Tensor], count: int, share: float, device: torch.device
) -> Tensor:
    """Return the derivative of a number by gates that are all at ``share``: float64 [count].

    Args:
        score: makes the number of a list of gates, tensors of no dimensions.
        count: how many gates.
        share: where they stand.
        device: where they are.
    """
    with torch.enable_grad():
        gates = torch.full((count,), share, device=device, requires_grad=True)
        value = score(gates.unbind())
    (gradient,) = torch.autograd.grad(value, gates)
    return gradient.detach().double().cpu()
