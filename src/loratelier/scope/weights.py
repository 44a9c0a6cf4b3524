"""What an adapter is, before it reads anything: the size and the form of its updates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from loratelier.base.stream import residual_stream, weight_of
from loratelier.scope.change import Change
from loratelier.scope.factors import Svd, beside_weights, factors, not_low_rank, svd
from loratelier.scope.intruders import Intruder, look_for_intruders
from loratelier.scope.overlap import Overlap, look_at_overlap
from loratelier.scope.pointing import Pointing, look_at_pointing


@dataclass(frozen=True)
class SiteWeight:
    """The update of one weight, dW = W_after - W_before; strength included.

    Attributes:
        norm: its Frobenius norm.
        relative: ``norm`` over the Frobenius norm of the base's own weight W.
        base_norm: that norm.
        spectral: its largest singular value.
        stable_rank: ``norm**2 / spectral**2``, from 1 to the rank; 0 where the update is zero.
        spectrum: its singular values above rounding, falling.
    """

    norm: float
    relative: float
    base_norm: float
    spectral: float
    stable_rank: float
    spectrum: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "norm": self.norm,
            "relative": self.relative,
            "base_norm": self.base_norm,
            "spectral": self.spectral,
            "stable_rank": self.stable_rank,
            "spectrum": list(self.spectrum),
        }


@dataclass(frozen=True)
class Weights:
    """The size and the form of a change of weights.

    Attributes:
        base: the base's name.
        before: the adapter that is compared with; None for the base as it is.
        after: the adapter that is looked at.
        sites: site -> its update, by layer.
        overlaps: how far the updates of sites that share a space go the same ways.
        pointing: which tokens the updates read and write, where that can be said.
        intruders: site -> directions that the base did not have; None where not asked for.
        not_covered: site -> what is changed there instead of a weight by a low-rank update; none
            of the figures knows of it.
        beside: site -> what is changed there beside its weight; not in the figures either.
        effect: whether anything can change.
    """

    base: str
    before: str | None
    after: str
    sites: Mapping[str, SiteWeight]
    overlaps: tuple[Overlap, ...]
    pointing: Mapping[str, tuple[Pointing, ...]]
    intruders: Mapping[str, tuple[Intruder, ...]] | None
    not_covered: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    effect: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "base": self.base,
            "before": self.before,
            "after": self.after,
            "effect": self.effect,
            "sites": {site: each.to_json() for site, each in self.sites.items()},
            "overlaps": [each.to_json() for each in self.overlaps],
            "pointing": {
                site: [each.to_json() for each in found] for site, found in self.pointing.items()
            },
            "intruders": None
            if self.intruders is None
            else {site: [i.to_json() for i in found] for site, found in self.intruders.items()},
            "not_covered": dict(self.not_covered),
            "beside": dict(self.beside),
        }


@torch.no_grad()
def look_at_weights(
    change: Change, *, directions: int = 2, tokens: int = 6, intruders: bool = False
) -> Weights:
    """Say how large the update of each site is, which form it has, and what it points at.

    Everything but the intruders is computed from the small factors, never from a dense update.

    Args:
        change: what is looked at.
        directions: how many singular directions of a site are put into tokens; 0 for none.
        tokens: how many tokens at either end of each.
        intruders: look for intruder dimensions too, which takes a dense eigendecomposition of each
            weight: about 0.2 s a site for the demo base, minutes in all for a large one.

    Raises:
        InputError: a site that the base lacks.
    """
    skipped = not_low_rank(change)
    found = {site: _decomposed(change, site) for site in change.sites if site not in skipped}
    stream = residual_stream(change.base.model)
    return Weights(
        base=change.base.name,
        before=change.before.name if change.before else None,
        after=change.after.name,
        sites={site: _site(change, site, each) for site, each in found.items()},
        overlaps=look_at_overlap(stream, found),
        pointing=look_at_pointing(
            stream, found, change.base.tokenizer, directions=directions, tokens=tokens
        ),
        intruders=look_for_intruders(change, list(found)) if intruders else None,
        not_covered=skipped,
        beside=beside_weights(change),
        effect=change.effect,
    )


def _decomposed(change: Change, site: str) -> Svd:
    pair = factors(change, site)
    assert pair is not None  # the sites without one were left out
    return svd(*pair)


def _site(change: Change, site: str, found: Svd) -> SiteWeight:
    values: Sequence[float] = found.values.tolist()
    norm = float(found.values.square().sum().sqrt())
    base_norm = float(weight_of(change.base.model, site).norm())
    spectral = values[0] if values else 0.0
    return SiteWeight(
        norm=norm,
        relative=norm / base_norm if base_norm else 0.0,
        base_norm=base_norm,
        spectral=spectral,
        stable_rank=norm**2 / spectral**2 if spectral else 0.0,
        spectrum=tuple(values),
    )
