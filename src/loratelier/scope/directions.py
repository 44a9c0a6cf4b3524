"""Which directions within a site did it: shares by singular direction of the change of its weight.

A LoRA's own rows and columns are arbitrary: ``B R`` and ``R^-1 A`` are the same update for every
invertible R. Its singular directions are not, so the update of a site is split into those, each
behind a gate of its own, and the shares are integrated gradients over these gates. They add up to
the site's share, because all gates of a site open together.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.scope.attribute import MAX_NODES, TOLERANCE, ends, near_zero, nothing
from loratelier.scope.change import Change, Share
from loratelier.scope.factors import Svd, beside_weights, factors, not_low_rank, svd
from loratelier.scope.gradient import by_gates, integrate
from loratelier.scope.reading import logits_of
from loratelier.scope.targets import Asked, Target, target_of

_BEFORE, _AFTER = "before", "after"


@dataclass(frozen=True)
class Direction:
    """One singular direction of a site: its singular value and its share of the change."""

    value: float
    share: float


@dataclass(frozen=True)
class Directions:
    """What each singular direction of some sites contributes to the change of one number.

    Attributes:
        target: what the number is, in words.
        unit: ``nats`` or ``probability``.
        by_site: site -> its directions, by falling singular value; their shares sum to the site's.
        elsewhere: the share of all other sites together.
        total: the change of the number.
        residual: as in :class:`loratelier.scope.attribute.Attribution`.
        residual_is: "relative", or "absolute" where the total is near zero.
        reached: whether the residual is within the tolerance.
        nodes: of the quadrature; 0 where nothing can change.
    """

    target: str
    unit: Literal["nats", "probability"]
    by_site: Mapping[str, tuple[Direction, ...]]
    elsewhere: float
    total: float
    residual: float
    residual_is: Literal["relative", "absolute"]
    reached: bool
    nodes: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "target": self.target,
            "unit": self.unit,
            "by_site": {
                site: [{"value": each.value, "share": each.share} for each in found]
                for site, found in self.by_site.items()
            },
            "elsewhere": self.elsewhere,
            "total": self.total,
            "residual": self.residual,
            "residual_is": self.residual_is,
            "reached": self.reached,
            "nodes": self.nodes,
        }


def look_at_directions(
    change: Change,
    ids: Sequence[int],
    target: Asked | Target | None = None,
    *,
    sites: Sequence[str],
    tolerance: float = TOLERANCE,
    max_nodes: int = MAX_NODES,
) -> Directions:
    """Share a change out among the singular directions of chosen sites, and the rest of the model.

    Args:
        change: what is looked at.
        ids: the text's tokens.
        target: the number, see :mod:`loratelier.scope.targets`.
        sites: which sites are taken apart; all at once cost little more than one.
        tolerance: as for :func:`loratelier.scope.attribute.attribute`.
        max_nodes: as there.

    Raises:
        InputError: a site that the change does not have, or whose change is not low-rank alone.
    """
    target = target_of(change, ids, target)
    chosen = {site: _taken_apart(change, site) for site in dict.fromkeys(sites)}
    units = [(site, n) for site, found in chosen.items() for n in range(len(found.values))]
    before, after = ends(change, target)
    integral = nothing(len(units) + 1)
    if change.effect:
        split = _Split(change, chosen)

        def score(gates: Sequence[Tensor]) -> Tensor:
            by_unit = dict(zip(units, gates[:-1], strict=True))
            with split.at(by_unit, rest=gates[-1]):
                return target.score(logits_of(change.base.model, target.text))[0]

        integral = integrate(
            lambda share: by_gates(score, len(units) + 1, share, change.base.model.device),
            after - before,
            near_zero=near_zero(target, before, after),
            tolerance=tolerance,
            max_nodes=max_nodes,
        )
    shares = integral.shares.tolist()
    by_unit = dict(zip(units, shares[:-1], strict=True))
    return Directions(
        target=target.words,
        unit=target.unit,
        by_site={
            site: tuple(
                Direction(value, by_unit[site, n]) for n, value in enumerate(found.values.tolist())
            )
            for site, found in chosen.items()
        },
        elsewhere=shares[-1],
        total=after - before,
        residual=integral.residual,
        residual_is=integral.residual_is,
        reached=integral.reached,
        nodes=integral.nodes,
    )


def _taken_apart(change: Change, site: str) -> Svd:
    if site not in change.sites:
        raise InputError(f"Nothing changes {site}", did_you_mean(site, change.sites))
    pair = factors(change, site)
    other = {**beside_weights(change), **not_low_rank(change)}.get(site)
    if site in change.after.extras.embeddings:
        other = "rows that are looked up"
    if pair is None or other:
        raise InputError(f"{site} cannot be taken apart by rank: it has {other}")
    return svd(*pair)


class _Split:
    """A change with the directions of some sites behind gates of their own.

    The n-th directions of all chosen sites are one adapter of rank one, so that there are as many
    adapters as a site has directions and not as many as there are directions in all.
    """

    def __init__(self, change: Change, chosen: Mapping[str, Svd]) -> None:
        self._change = change
        self._chosen = chosen
        self._bank = AdapterBank(change.base.model)
        self._bank.add(_AFTER, change.after)
        if change.before is not None:
            self._bank.add(_BEFORE, change.before)
        self._sites: dict[str, list[str]] = {}
        for n in range(max((len(found.values) for found in chosen.values()), default=0)):
            name = f"direction {n + 1}"
            pairs = {s: _rank_one(each, n) for s, each in chosen.items() if n < len(each.values)}
            self._sites[name] = list(pairs)
            self._bank.add(name, Adapter.from_tensors(pairs, change.after.card, name))

    def at(
        self, units: Mapping[tuple[str, int], Tensor], rest: Tensor
    ) -> AbstractContextManager[None]:
        """Return a context: each direction at its gate, all other sites at ``rest``."""
        change, strength = self._change, self._change.strength
        mix: dict[str, Mapping[str, Share]] = {
            _AFTER: {s: strength * rest for s in change.after.sites if s not in self._chosen}
        }
        if change.before is not None:
            # The directions are the difference from before to after, so before stays at full here.
            mix[_BEFORE] = {
                s: strength if s in self._chosen else strength * (1 - rest)
                for s in change.before.sites
            }
        for n, (name, sites) in enumerate(self._sites.items()):
            mix[name] = {site: units[site, n] for site in sites}
        return self._bank.activate(mix)


def _rank_one(found: Svd, n: int) -> tuple[Tensor, Tensor]:
    """Return the n-th direction as a pair (A [1, d_in], B [d_out, 1])."""
    down, up = found.into[:, n : n + 1].T, found.out[:, n : n + 1] * found.values[n]
    return down.float().contiguous(), up.float().contiguous()
