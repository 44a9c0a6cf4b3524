"""Which sites did it: shares of a change, by integrated gradients over the gates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.scope.change import Change
from loratelier.scope.gradient import Integral, by_gates, integrate
from loratelier.scope.places import sums
from loratelier.scope.prompt import Messages, encode_prompt
from loratelier.scope.reading import logits_at
from loratelier.scope.targets import Asked, Target, target_of

TOLERANCE, MAX_NODES = 0.01, 32


@dataclass(frozen=True)
class Attribution:
    """What each site contributes to the change of one number.

    Attributes:
        base: the base's name.
        before: the adapter that is compared with; None for the base as it is.
        after: the adapter that is looked at.
        target: what the number is, in words.
        unit: ``nats`` or ``probability``; of the shares, the values and the total.
        shares: site -> its share of the change, by layer; they sum to ``total`` up to the residual.
        value_before: the number before.
        value_after: the number after.
        residual: ``|sum(shares) - total|``; relative to ``|total|``, or absolute, see
            ``residual_is``.
        residual_is: "absolute" where the total is near zero, so that a relative one would say
            nothing: below 0.001 nats, or for a probability below 0.001 of the larger of the two.
        tolerance: what was asked for.
        reached: whether the error is within the tolerance, of the total or of what counts as near
            zero, whichever is larger.
        nodes: Gauss-Legendre nodes of the result; 0 where nothing can change.
        passes: forward and backward passes that it took.
        effect: whether anything can change; where not, everything here is exactly zero.
        notes: what a reader has to know, in words.
    """

    base: str
    before: str | None
    after: str
    target: str
    unit: Literal["nats", "probability"]
    shares: Mapping[str, float]
    value_before: float
    value_after: float
    residual: float
    residual_is: Literal["relative", "absolute"]
    tolerance: float
    reached: bool
    nodes: int
    passes: int
    effect: bool
    notes: tuple[str, ...]

    @property
    def total(self) -> float:
        """The change of the number: after less before."""
        return self.value_after - self.value_before

    @property
    def relative(self) -> dict[str, float] | None:
        """The shares as parts of the total (1 is all of it); None where that is near zero."""
        if self.residual_is == "absolute":
            return None
        return {site: share / self.total for site, share in self.shares.items()}

    @cached_property
    def by_layer(self) -> dict[str, float]:
        """Sums by layer, "0" and up; "outside" for embeddings and the output layer."""
        return sums(self.shares, "layer")

    @cached_property
    def by_module(self) -> dict[str, float]:
        """Sums by the module within its layer, such as ``mlp.down_proj``."""
        return sums(self.shares, "module")

    @property
    def ranked(self) -> list[str]:
        """The sites, those first that carried the change furthest in the way that it went."""
        sign = -1 if self.total < 0 else 1
        return sorted(self.shares, key=lambda site: -sign * self.shares[site])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "base": self.base,
            "before": self.before,
            "after": self.after,
            "method": "integrated gradients over the gates of the sites",
            "target": self.target,
            "unit": self.unit,
            "effect": self.effect,
            "value_before": self.value_before,
            "value_after": self.value_after,
            "total": self.total,
            "residual": self.residual,
            "residual_is": self.residual_is,
            "tolerance": self.tolerance,
            "reached": self.reached,
            "nodes": self.nodes,
            "passes": self.passes,
            "shares": dict(self.shares),
            "relative": self.relative,
            "by_layer": self.by_layer,
            "by_module": self.by_module,
            "ranked": self.ranked,
            "notes": list(self.notes),
        }


def attribute(
    base: Base,
    adapter: Adapter,
    prompt: str | Messages,
    target: Asked | None = None,
    *,
    before: Adapter | None = None,
    raw: bool = False,
    system: str | None = None,
    strength: float = 1.0,
    tolerance: float = TOLERANCE,
    max_nodes: int = MAX_NODES,
) -> Attribution:
    """Say how much of a change each site of an adapter is responsible for.

    Integrated gradients (arXiv 1703.01365) over one gate a site, on the straight line from all
    closed to all open, by Gauss-Legendre quadrature. One forward and backward pass a node gives all
    sites. The shares sum to ``f(after) - f(before)`` up to the residual, which is part of the
    result.

    Args:
        base: the base; it is left as it was.
        adapter: made for that base.
        prompt: a user's message, or a list of messages, put through the chat template.
        target: the number whose change is explained, see :mod:`loratelier.scope.targets`; without
            it the contrast of the likeliest next token after against the likeliest before, or KL at
            the last position where these are the same.
        before: an adapter to compare with, instead of the base as it is.
        raw: take the prompt as plain text instead.
        system: a system message before it.
        strength: the gate of both adapters, from -2 to 4.
        tolerance: the residual, relative to the total, at which nodes are no longer doubled.
        max_nodes: the most nodes; a residual that is still larger then is reported as it is.

    Raises:
        InputError: an adapter for another base, a prompt that is empty or too long, a target that
            is none, or figures out of range.
    """
    change = Change(base, adapter, before=before, strength=strength)
    ids = encode_prompt(change.base, prompt, raw=raw, system=system).ids
    return look_at_sites(change, ids, target, tolerance=tolerance, max_nodes=max_nodes)


def look_at_sites(
    change: Change,
    ids: Sequence[int],
    target: Asked | Target | None = None,
    *,
    tolerance: float = TOLERANCE,
    max_nodes: int = MAX_NODES,
) -> Attribution:
    """Say how much of a change each site is responsible for, after a text; see :func:`attribute`.

    Args:
        change: what is looked at.
        ids: the text's tokens.
        target: what is explained.
        tolerance: as for :func:`attribute`.
        max_nodes: as for :func:`attribute`.

    Raises:
        InputError: as :func:`attribute`.
    """
    target = target_of(change, ids, target)
    before, after = ends(change, target)

    def derivative(share: float) -> torch.Tensor:
        def score(gates: Sequence[torch.Tensor]) -> torch.Tensor:
            shares = dict(zip(change.sites, gates, strict=True))
            return target.score(logits_at(change, target.text, [shares]))[0]

        return by_gates(score, len(change.sites), share, change.base.model.device)

    integral = (
        integrate(
            derivative,
            after - before,
            near_zero=near_zero(target, before, after),
            tolerance=tolerance,
            max_nodes=max_nodes,
        )
        if change.effect
        else nothing(len(change.sites))
    )
    return Attribution(
        base=change.base.name,
        before=change.before.name if change.before else None,
        after=change.after.name,
        target=target.words,
        unit=target.unit,
        shares=dict(zip(change.sites, integral.shares.tolist(), strict=True)),
        value_before=before,
        value_after=after,
        residual=integral.residual,
        residual_is=integral.residual_is,
        tolerance=tolerance,
        reached=integral.reached,
        nodes=integral.nodes,
        passes=integral.passes,
        effect=change.effect,
        notes=notes(change, integral),
    )


@torch.no_grad()
def ends(change: Change, target: Target) -> tuple[float, float]:
    """Return the number before and after; the same one where nothing can change."""
    shares = [0.0, 1.0] if change.effect else [0.0]
    # One at a time: a pass of two rows rounds otherwise than the passes of one on the way.
    values = [float(target.score(logits_at(change, target.text, [share]))) for share in shares]
    return values[0], values[-1]


def near_zero(target: Target, before: float, after: float) -> float:
    """Return the size below which a change of a number is near zero.

    float32 resolves log-probabilities to about 1e-5 nats, and probabilities relative to themselves.
    """
    return 1e-3 * (max(before, after) if target.unit == "probability" else 1.0)


def nothing(units: int) -> Integral:
    """Return the shares of a change that is none."""
    return Integral(torch.zeros(units, dtype=torch.float64), 0.0, "absolute", True, 0, 0)


def notes(change: Change, integral: Integral) -> tuple[str, ...]:
    """Return what a reader of the shares has to know, in words."""
    said = []
    if not change.effect:
        said.append("Nothing can change here: before and after are the same, to the last bit.")
    elif integral.residual_is == "absolute":
        said.append(
            "The total is near zero, so the residual is absolute and no share of it is said."
        )
    if not integral.reached:
        said.append(
            f"The shares do not add up within the tolerance, with {integral.nodes} nodes; "
            "read them as rough."
        )
    if change.base.dtype != torch.float32 or change.base.quantization:
        kind = change.base.quantization or str(change.base.dtype).removeprefix("torch.")
        said.append(f"The base is in {kind}, whose rounding is in the shares; float32 is exact.")
    return tuple(said)
