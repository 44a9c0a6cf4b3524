"""The methods: what becomes of one site where several adapters act.

Each is written down in ``docs/compose.md`` with its source. Everything here is independent of how
an adapter is factored and of the order of the adapters; the checks hold every merge to that.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from loratelier.compose.core import (
    Core,
    Part,
    Spectrum,
    aligned,
    aligned_left,
    core_of,
    spectrum_of,
)
from loratelier.compose.plan import SIGN_BEFORE, Plan

# The cosine beyond which two updates span no plane to go round in (Shoemake 1985).
_PARALLEL = 1 - 1e-6
# A sum of entries that is smaller than this share of what was added is nothing but rounding.
_DRAW = 1e-9


def merge_site(site: str, parts: Sequence[Part], plan: Plan) -> Spectrum:
    """Return the merged update of a site from the adapters that act there, all ranks kept.

    ``cat`` gives what linear gives: how its pairs are kept is :func:`concatenated`'s matter.

    Raises:
        InputError: the method needs a basis, and the parts have none of their own.
    """
    if plan.method in ("ties", "dare", "della", "knots"):
        # They count heads, and an adapter that has no weight has no vote.
        parts = [part for part in parts if part.weight]
        if not parts:
            raise ValueError("no part has a weight")
    core = core_of(parts)
    weights = core.blocks.new_tensor([part.weight for part in parts])
    if plan.method in ("linear", "cat", "nlerp", "slerp"):
        return spectrum_of(core, _weighed(core.blocks, _coefficients(core.blocks, weights, plan)))
    if plan.method == "iso":
        return _even(spectrum_of(core, _weighed(core.blocks, weights)))
    core = aligned_left(core, site) if plan.method == "knots" else aligned(core, site)
    return spectrum_of(core, _combined(core, weights, parts, plan, site))


def concatenated(parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Return (A [sum of r, d_in], B [d_out, sum of r]) with the weights in B."""
    return torch.cat([part.down for part in parts]), torch.cat(
        [part.weight * part.up for part in parts], 1
    )


def _weighed(blocks: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of blocks [T, k, l]: [k, l]."""
    return (weights[:, None, None] * blocks).sum(0)


def _coefficients(blocks: Tensor, weights: Tensor, plan: Plan) -> Tensor:
    """Return what the blocks are multiplied with before they are summed: [T]."""
    norms = blocks.flatten(1).norm(dim=1)
    if plan.method == "nlerp":
        wanted = float((weights.abs() * norms).sum())
        reached = float(_weighed(blocks, weights).norm())
        return weights * (wanted / reached if reached > _DRAW * wanted else 0.0)
    if plan.method == "slerp" and len(blocks) == 2 and bool(norms.all()):
        return _around(float((blocks[0] * blocks[1]).sum() / norms.prod()), weights)
    return weights


def _around(cosine: float, weights: Tensor) -> Tensor:
    """Return SLERP's coefficients, ``sin((1-t) a)/sin a`` and ``sin(t a)/sin a``, times the sum."""
    if abs(cosine) > _PARALLEL:
        return weights
    total, angle = weights.sum(), math.acos(cosine)
    shares = weights / total
    return torch.sin(shares * angle) / math.sin(angle) * total


def _even(spectrum: Spectrum) -> Spectrum:
    """Return a spectrum whose singular values are all their mean (Iso-C, arXiv 2502.04959)."""
    if not len(spectrum.sigmas):
        return spectrum
    return replace(spectrum, sigmas=spectrum.sigmas.mean().expand_as(spectrum.sigmas))


def _combined(core: Core, weights: Tensor, parts: Sequence[Part], plan: Plan, site: str) -> Tensor:
    blocks = core.blocks
    if plan.method == "dare":
        return _weighed(_dropped(blocks, parts, plan, site), weights)
    if plan.method == "knots" and plan.combine == "linear":
        return _weighed(blocks, weights)
    kept = _dropped(blocks, parts, plan, site) if plan.method == "della" else _trimmed(blocks, plan)
    return _elected(kept, weights, plan)


def _trimmed(blocks: Tensor, plan: Plan) -> Tensor:
    """Keep the largest entries of each block, a share ``density`` of them and one at least."""
    flat = blocks.flatten(1)
    count = math.ceil(plan.density * flat.shape[1] - 1e-9)
    largest = flat.abs().topk(count, dim=1).indices
    mask = torch.zeros_like(flat).scatter_(1, largest, 1.0)
    return (flat * mask).view_as(blocks)


def _elected(blocks: Tensor, weights: Tensor, plan: Plan) -> Tensor:
    """Elect a sign for each entry and average those who have it (TIES, arXiv 2306.01708).

    Before the weights: the sign of the plain sum; then ``sum(w x) / number of those who agree``.
    After them: the sign of ``sum(w x)``; then ``sum(w x) / sum(w)`` over those who agree. Where the
    sum is zero nobody is elected: a rule that then takes plus would depend on the basis' signs.
    """
    weighed = blocks * weights[:, None, None]
    votes = blocks if plan.variant == SIGN_BEFORE else weighed
    total = votes.sum(0)
    elected = torch.where(total.abs() > _DRAW * votes.abs().sum(0), total.sign(), 0.0)
    agrees = ((votes.sign() == elected) & (elected != 0)).to(blocks.dtype)
    voices = agrees if plan.variant == SIGN_BEFORE else agrees * weights[:, None, None]
    count = voices.sum(0)
    return (weighed * agrees).sum(0) / torch.where(count == 0, 1.0, count)


def _dropped(blocks: Tensor, parts: Sequence[Part], plan: Plan, site: str) -> Tensor:
    """Drop entries by chance, and divide those that stay by the chance that they had.

    DARE (arXiv 2311.03099): every entry stays with the probability ``density``. DELLA (arXiv
    2406.11617): within a row, by rank of magnitude, from ``density - epsilon`` to
    ``density + epsilon``. Both leave the expectation of every entry as it was.
    """
    keep = torch.full_like(blocks, plan.density)
    if plan.method == "della" and blocks.shape[2] > 1:
        ranks = blocks.abs().argsort(2).argsort(2).to(blocks.dtype)
        spread = 2 * ranks / (blocks.shape[2] - 1) - 1
        keep = plan.density + plan.epsilon * spread
    drawn = torch.stack([_uniform(blocks[0], part.stream, plan.seed, site) for part in parts])
    return torch.where(drawn < keep, blocks / keep, 0.0)


def _uniform(like: Tensor, stream: int, seed: int, site: str) -> Tensor:
    """Draw from [0, 1): the same for the same seed, site and stream, whatever else is merged."""
    name = hashlib.sha256(f"{seed}/{site}/{stream}".encode()).digest()
    chance = torch.Generator().manual_seed(int.from_bytes(name[:7], "big"))
    return torch.rand(like.shape, generator=chance, dtype=torch.float64)
