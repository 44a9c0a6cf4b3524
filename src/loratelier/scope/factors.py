"""The change of a weight as small factors, and its singular directions from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.scope.change import Change

# Singular values below this part of the largest are rounding: their directions mean nothing.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Svd:
    """``W_after - W_before = out diag(values) into^T``, with values above rounding only.

    Attributes:
        out: [d_out, k] orthonormal directions of the output, float64.
        values: [k] singular values, falling.
        into: [d_in, k] orthonormal directions of the input.
    """

    out: Tensor
    values: Tensor
    into: Tensor


def factors(change: Change, site: str) -> tuple[Tensor, Tensor] | None:
    """Return (A [r, d_in], B [d_out, r]) with ``B A`` the change of a weight, strength included.

    From one adapter to another it is the difference, whose rank is up to that of both together.
    None where the change is not of this form, see :func:`not_low_rank`. float32, on the CPU.
    """
    if site in not_low_rank(change):
        return None
    worn = [(change.after, change.strength), (change.before, -change.strength)]
    halves = [
        (adapter.tensors[site], sign * adapter.scaling(site))
        for adapter, sign in worn
        if adapter is not None and site in adapter.tensors
    ]
    down = torch.cat([pair[0].detach().float().cpu() for pair, _ in halves])
    up = torch.cat([scale * pair[1].detach().float().cpu() for pair, scale in halves], dim=1)
    return down, up


def svd(down: Tensor, up: Tensor) -> Svd:
    """Return the singular value decomposition of ``up @ down`` without forming it.

    QR of both factors, then the SVD of a matrix of r x r, in float64. Unlike rows of A or columns
    of B it does not depend on how the product was split into factors.
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().T)
    out, values, into = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    kept = values > _ROUNDING * values.amax().clamp_min(torch.finfo(torch.float32).tiny)
    return Svd(left @ out[:, kept], values[kept], right @ into.T[:, kept])


def not_low_rank(change: Change) -> dict[str, str]:
    """Return the sites whose change is more than ``s B A``, or something else, and what it is."""
    found: dict[str, str] = {}
    for adapter in (change.before, change.after):
        if adapter is not None:
            found |= _others(adapter)
    return found


def beside_weights(change: Change) -> dict[str, str]:
    """Return what is changed beside a weight at sites whose weight is changed by ``s B A``."""
    found: dict[str, str] = {}
    skipped = not_low_rank(change)
    for adapter in (change.before, change.after):
        if adapter is None:
            continue
        extras = adapter.extras
        sites = {**dict.fromkeys(extras.biases, "a trained bias")}
        sites |= dict.fromkeys(extras.up_biases, "a bias of B (lora_bias)")
        found |= {s: what for s, what in sites.items() if s in adapter.tensors and s not in skipped}
    return found


def _others(adapter: Adapter) -> dict[str, str]:
    extras = adapter.extras
    bare = [site for site in extras.biases if site not in adapter.tensors]
    return {
        **dict.fromkeys(extras.magnitudes, "DoRA, which also changes the length of every row"),
        **dict.fromkeys(bare, "a trained bias, and no weight"),
        **dict.fromkeys(extras.tokens, "trained rows of tokens"),
        **dict.fromkeys(extras.modules, "a whole module in place of the base's"),
        **dict.fromkeys(extras.experts, "experts of one parameter, many weights in one"),
    }
