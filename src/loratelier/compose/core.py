"""Core space: what several adapters do at a site, as small matrices between two thin bases.

With ``[B_1 ... B_T] = Q_B R_B`` and ``[A_1; ...; A_T]^T = Q_A R_A`` every update is
``s_i B_i A_i = Q_B M_i Q_A^T`` exactly, where ``M_i = s_i R_B^(i) R_A^(i)^T`` is at most
``[sum of ranks, sum of ranks]`` (arXiv 2509.17786). No dense update is ever made. All in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loratelier.kit.errors import InputError

# A singular value below this share of the largest is rounding of the float32 that adapters are
# stored in, and no direction of its own.
ZERO = 1e-6
# Two singular values nearer to each other than this share of the largest have no directions of
# their own: any rotation between them is as good, and float64 would choose by its last bits.
SAME = 1e-9
# An entry below this share of its block's largest is rounding of float64.
NOISE = 1e-12


@dataclass(frozen=True)
class Part:
    """One adapter at one site.

    Attributes:
        down: A [r, d_in], float64.
        up: ``s B`` [d_out, r], float64.
        weight: its share of the merge.
        stream: which stream of chance drops its entries; see :func:`loratelier.compose.merge`.
    """

    down: Tensor
    up: Tensor
    weight: float
    stream: int


@dataclass(frozen=True)
class Core:
    """Parts between two bases: part i is ``left @ blocks[i] @ right.T``.

    Attributes:
        left: [d_out, k], orthonormal columns.
        right: [d_in, l], orthonormal columns; None where the blocks are in the model's own input
            coordinates and l is d_in.
        blocks: [T, k, l].
    """

    left: Tensor
    right: Tensor | None
    blocks: Tensor


@dataclass(frozen=True)
class Spectrum:
    """A merged update as its singular value decomposition, without what is zero.

    Attributes:
        left: [d_out, k], orthonormal.
        sigmas: [k], falling.
        right: [d_in, k], orthonormal.
    """

    left: Tensor
    sigmas: Tensor
    right: Tensor

    def pair(self, rank: int | None) -> tuple[Tensor, Tensor]:
        """Return (A [r, d_in], B [d_out, r]) of the first ``rank`` directions, evenly scaled.

        A pair has a rank of at least 1, so that an update of zero is a pair of zeros.
        """
        kept = self.sigmas[:rank].sqrt()
        if not len(kept):
            return self.right.new_zeros(1, len(self.right)), self.left.new_zeros(len(self.left), 1)
        count = len(kept)
        return (self.right[:, :count] * kept).T, self.left[:, :count] * kept

    def lost(self, rank: int | None) -> float:
        """Return ``sqrt(sum of sigma^2)`` over what a rank leaves out."""
        return float(self.sigmas[rank:].norm()) if rank is not None else 0.0

    @property
    def norm(self) -> float:
        """The Frobenius norm of the update."""
        return float(self.sigmas.norm())


def core_of(parts: Sequence[Part]) -> Core:
    """Return parts in core space, in whatever basis QR gives: it is not the same for
    ``(B G, G^-1 A)``, nor in another order.
    """
    left, left_parts = torch.linalg.qr(torch.cat([part.up for part in parts], 1))
    right, right_parts = torch.linalg.qr(torch.cat([part.down.T for part in parts], 1))
    ranks = [part.down.shape[0] for part in parts]
    blocks = [
        up @ down.T
        for up, down in zip(left_parts.split(ranks, 1), right_parts.split(ranks, 1), strict=True)
    ]
    return Core(left, right, torch.stack(blocks))


def aligned(core: Core, site: str) -> Core:
    """Return the same parts in the basis that belongs to them, whatever their order and factors.

    Left are the singular directions of ``[D_1 | ... | D_T]``, right those of ``[D_1; ...; D_T]``
    (of the updates without their weights), by falling singular value. A direction's sign is not
    fixed, and need not be: what is done in this basis does the same when a row or column of all
    parts changes its sign.

    Raises:
        InputError: singular values coincide, so that the basis is not the parts' own.
    """
    left = _directions(torch.cat(list(core.blocks), 1), site)
    right = _directions(torch.cat(list(core.blocks.mT), 1), site)
    assert core.right is not None
    return Core(core.left @ left, core.right @ right, _clean(left.T @ core.blocks @ right))


def aligned_left(core: Core, site: str) -> Core:
    """Return the same parts as ``U (S V_i^T)`` of ``[D_1 | ... | D_T] = U S [V_1; ...; V_T]^T``.

    The blocks are ``S V_i^T``, in the model's own input coordinates (KnOTS, arXiv 2410.19735).

    Raises:
        InputError: as :func:`aligned`.
    """
    left = _directions(torch.cat(list(core.blocks), 1), site)
    assert core.right is not None
    return Core(core.left @ left, None, _clean(left.T @ core.blocks @ core.right.T))


def _clean(blocks: Tensor) -> Tensor:
    """Make zero what is rounding: where one adapter does nothing it must have no sign either."""
    return torch.where(blocks.abs() > NOISE * blocks.abs().amax((1, 2), keepdim=True), blocks, 0.0)


def _directions(matrix: Tensor, site: str) -> Tensor:
    """Return the left singular directions that are not zero: [n, k]."""
    found, sigmas, _ = torch.linalg.svd(matrix, full_matrices=False)
    count = int((sigmas > ZERO * sigmas[0]).sum())
    kept = sigmas[:count]
    if count > 1 and bool(((kept[:-1] - kept[1:]) < SAME * kept[0]).any()):
        raise InputError(
            f"{site}: singular values of the adapters coincide, so that they have no basis of "
            "their own in which this method would act",
            "Take a method that needs none: linear, nlerp, slerp, iso, cat",
        )
    kept_directions: Tensor = found[:, :count]
    return kept_directions


def spectrum_of(core: Core, block: Tensor) -> Spectrum:
    """Return ``left @ block @ right.T`` as its singular value decomposition.

    What is rounding beside the core's own blocks is zero: where they cancel, nothing is left.
    """
    outer = core.right
    if outer is None:  # [k, d_in] with few rows: its QR first, so that the SVD is small
        outer, small = torch.linalg.qr(block.T)
        block = small.T
    left, sigmas, right = torch.linalg.svd(block, full_matrices=False)
    floor = max(ZERO * float(sigmas[0]), NOISE * float(core.blocks.abs().max()))
    count = int((sigmas > floor).sum())
    return Spectrum(core.left @ left[:, :count], sigmas[:count], outer @ right[:count].T)


def distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Return the Frobenius norm of ``B A - B' A'`` for two pairs, with no dense matrix.

    By Gram matrices, so that it resolves about 1e-8 of the larger norm.
    """
    return norm_of((torch.cat([one[0], other[0]]), torch.cat([one[1], -other[1]], 1)))


def inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Return ``<B A, B' A'>``, as the sum of ``(B^T B') * (A A'^T)`` entry by entry."""
    return float(((one[1].T @ other[1]) * (one[0] @ other[0].T)).sum())


def norm_of(pair: tuple[Tensor, Tensor]) -> float:
    """Return the Frobenius norm of ``B A``."""
    return math.sqrt(max(0.0, inner(pair, pair)))


def weighing(parts: Sequence[Part], weights: Sequence[float]) -> list[Part]:
    """Return parts with other weights."""
    return [replace(part, weight=weight) for part, weight in zip(parts, weights, strict=True)]
