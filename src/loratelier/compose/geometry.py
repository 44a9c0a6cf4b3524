"""How two adapters lie to each other at a site, from their small matrices alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.compose.core import ZERO, Core, Part, core_of


@dataclass(frozen=True)
class SiteConflict:
    """Two adapters at a site where both act.

    Attributes:
        site: its name.
        pair: places of the two in the order in which they were given.
        cosine: ``<D1, D2> / (||D1|| ||D2||)``, 0 where one is zero.
        overlap_out: mean squared cosine of the principal angles between the spaces that the two
            write to, from 0 to 1.
        overlap_in: the same of the spaces that they read from.
        chance: what two random spaces of these ranks would have, in the mean of both.
        sign_conflict: the share of each one's strength that the other takes away, the mean of both.
            Along the singular directions of ``D1 = sum sigma_j u_j v_j^T`` that is
            ``sum min(sigma_j, max(0, -u_j^T D2 v_j)) / sum sigma_j``: 1 for an adapter and its
            opposite, 0 for an adapter and itself, near 0 for two that have nothing in common.
        undone: the numerators, of the first and of the second.
        masses: the denominators: the sums of singular values.
        norms: ``||D1||``, ``||D2||``.
        strengths: each one's ``||D||^2`` here over its own mean over sites.
    """

    site: str
    pair: tuple[int, int]
    cosine: float
    overlap_out: float
    overlap_in: float
    chance: float
    sign_conflict: float
    undone: tuple[float, float]
    masses: tuple[float, float]
    norms: tuple[float, float]
    strengths: tuple[float, float]

    @property
    def overlap(self) -> float:
        """The mean of both overlaps."""
        return (self.overlap_out + self.overlap_in) / 2


@dataclass(frozen=True)
class Whole:
    """Two adapters over all sites, where one without a pair is zero.

    ``cosine`` is that of the two updates as one long vector each. ``overlap`` is the sum of the
    sites' overlaps, each times ``||D1|| ||D2||`` there over the same of the whole adapters, so that
    it is 1 for an adapter and itself. ``sign_conflict`` has its sums over all sites of each.
    """

    cosine: float
    overlap: float
    sign_conflict: float


Pairs = Mapping[str, tuple[Tensor, Tensor]]


def relate(one: Pairs, other: Pairs, pair: tuple[int, int]) -> tuple[Whole, list[SiteConflict]]:
    """Return how two adapters lie to each other, in all and at every site where both act."""
    norms = [
        {site: float(_core(half).blocks.norm()) for site, half in each.items()}
        for each in (one, other)
    ]
    means = [sum(n**2 for n in each.values()) / max(1, len(each)) for each in norms]
    sites = [
        _site(site, one[site], other[site], pair, (means[0], means[1]))
        for site in one
        if site in other
    ]
    whole = [sum(n**2 for n in each.values()) ** 0.5 for each in norms]
    scale = whole[0] * whole[1] or 1.0
    products = [(each, each.norms[0] * each.norms[1]) for each in sites]
    masses = [
        sum(each.masses[side] for each in sites) + _mass_apart(own, beside)
        for side, (own, beside) in enumerate(((one, other), (other, one)))
    ]
    undone = [sum(each.undone[side] for each in sites) for side in (0, 1)]
    return (
        Whole(
            cosine=_bounded(sum(each.cosine * product for each, product in products) / scale),
            overlap=min(1.0, sum(each.overlap * product for each, product in products) / scale),
            sign_conflict=_shares(undone, masses),
        ),
        sites,
    )


def _core(*pairs: tuple[Tensor, Tensor]) -> Core:
    return core_of([Part(*pair, 1.0, 0) for pair in pairs])


def _mass_apart(one: Pairs, other: Pairs) -> float:
    """Return the sum of the singular values of the sites where one acts without the other."""
    return sum(_mass(_core(half).blocks[0]) for site, half in one.items() if site not in other)


def _site(
    site: str,
    one: tuple[Tensor, Tensor],
    other: tuple[Tensor, Tensor],
    pair: tuple[int, int],
    means: tuple[float, float],
) -> SiteConflict:
    core = _core(one, other)
    first, second = core.blocks
    norms = (float(first.norm()), float(second.norm()))
    product = norms[0] * norms[1]
    spaces = [_spaces(block) for block in core.blocks]
    outs, ins = ([space[side] for space in spaces] for side in (0, 1))
    sizes = (one[1].shape[0], one[0].shape[1])
    most = max(space.shape[1] for space in outs)
    undone = (_undone(first, second), _undone(second, first))
    masses = (_mass(first), _mass(second))
    return SiteConflict(
        site=site,
        pair=pair,
        cosine=_bounded(float((first * second).sum()) / product) if product else 0.0,
        overlap_out=_overlap(*outs),
        overlap_in=_overlap(*ins),
        chance=sum(min(1.0, most / size) for size in sizes) / 2,
        sign_conflict=_shares(undone, masses),
        undone=undone,
        masses=masses,
        norms=norms,
        strengths=(norms[0] ** 2 / (means[0] or 1.0), norms[1] ** 2 / (means[1] or 1.0)),
    )


def _spaces(block: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal bases of what a block writes to and reads from."""
    left, sigmas, right = torch.linalg.svd(block, full_matrices=False)
    count = int((sigmas > ZERO * sigmas[0]).sum())
    return left[:, :count], right[:count].T


def _overlap(one: Tensor, other: Tensor) -> float:
    """Return ``||U^T V||^2 / min(ranks)``: the mean squared cosine of the principal angles."""
    least = min(one.shape[1], other.shape[1])
    return min(1.0, float((one.T @ other).square().sum()) / least) if least else 0.0


def _mass(block: Tensor) -> float:
    return float(torch.linalg.svdvals(block).sum())


def _undone(own: Tensor, other: Tensor) -> float:
    """Return how much of a block's singular values another takes away along their directions."""
    left, sigmas, right = torch.linalg.svd(own, full_matrices=False)
    against = -torch.einsum("ij,ik,jk->j", left, other, right)
    return float(torch.minimum(sigmas, against.clamp_min(0)).sum())


def _shares(undone: Sequence[float], masses: Sequence[float]) -> float:
    return sum(part / (mass or 1.0) for part, mass in zip(undone, masses, strict=True)) / 2


def _bounded(cosine: float) -> float:
    return max(-1.0, min(1.0, cosine))
