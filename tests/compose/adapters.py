"""Adapters made of a seed, and merges written down once more with dense matrices."""

import numpy as np
import torch

from loratelier import Adapter
from loratelier.adapter import BaseRef, Card

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
# As in the tiny base: [d_out, d_in].
SHAPES = {Q: (64, 64), DOWN: (64, 128)}


def make(seed, rank=4, alpha=None, sites=SHAPES, name=None, fingerprint=None, scale=0.1):
    chance = torch.Generator().manual_seed(seed)
    pairs = {
        site: (
            torch.randn(rank, d_in, generator=chance) / d_in**0.5,
            scale * torch.randn(d_out, rank, generator=chance),
        )
        for site, (d_out, d_in) in {site: SHAPES.get(site) or sites[site] for site in sites}.items()
    }
    card = Card(base=BaseRef(fingerprint=fingerprint, name="tiny", spec="tiny"))
    return Adapter.from_tensors(pairs, card, name or f"a{seed}", alphas=alpha)


def dense(adapter, site):
    """s B A of a site as PEFT defines it, in numpy float64; zero where the adapter has no pair."""
    if site not in adapter.tensors:
        return None
    down, up = (half.double().numpy() for half in adapter.tensors[site])
    return adapter.scaling(site) * up @ down


def all_dense(adapters, site):
    found = [dense(adapter, site) for adapter in adapters]
    shape = next(delta.shape for delta in found if delta is not None)
    return [np.zeros(shape) if delta is None else delta for delta in found]


def trimmed(block, density):
    count = int(np.ceil(density * block.size - 1e-9))
    least = np.sort(np.abs(block).ravel())[-count]
    return np.where(np.abs(block) >= least, block, 0.0)


def ties(blocks, weights, density, variant):
    blocks = [trimmed(block, density) if np.abs(block).max() > 0 else block for block in blocks]
    result = np.zeros_like(blocks[0])
    for place in np.ndindex(result.shape):
        values = [block[place] for block in blocks]
        votes = values if variant == "sign-before-weights" else np.multiply(weights, values)
        sign = np.sign(sum(votes))
        who = [n for n, vote in enumerate(votes) if sign != 0 and np.sign(vote) == sign]
        if who:
            total = sum(weights[n] * values[n] for n in who)
            result[place] = total / (
                len(who) if variant == "sign-before-weights" else sum(weights[n] for n in who)
            )
    return result


def directions(matrix):
    left, sigmas, _ = np.linalg.svd(matrix, full_matrices=False)
    return left[:, sigmas > 1e-6 * sigmas[0]]


def core_basis(deltas):
    """Singular directions of the updates side by side, and above each other."""
    return directions(np.hstack(deltas)), directions(np.vstack(deltas).T)


def in_core(deltas, combine):
    left, right = core_basis(deltas)
    blocks = [left.T @ delta @ right for delta in deltas]
    blocks = [np.where(np.abs(b) > 1e-12 * max(1e-300, np.abs(b).max()), b, 0) for b in blocks]
    return left @ combine(blocks) @ right.T


def reference(method, deltas, weights, density=0.5, variant="sign-after-weights"):
    total = sum(w * d for w, d in zip(weights, deltas, strict=True))
    norms = [np.linalg.norm(delta) for delta in deltas]
    if method in ("linear", "cat"):
        return total
    if method == "nlerp":
        return (
            total
            * sum(abs(w) * n for w, n in zip(weights, norms, strict=True))
            / (np.linalg.norm(total))
        )
    if method == "slerp":
        if not all(norms):
            return total
        a, b = deltas
        angle = np.arccos((a * b).sum() / norms[0] / norms[1])
        t = weights[1] / sum(weights)
        mixed = np.sin((1 - t) * angle) * a + np.sin(t * angle) * b
        return sum(weights) * mixed / np.sin(angle)
    if method == "iso":
        left, sigmas, right = np.linalg.svd(total, full_matrices=False)
        real = sigmas > 1e-6 * sigmas[0]
        return left[:, real] @ right[real] * sigmas[real].mean()
    if method == "ties":
        return in_core(deltas, lambda blocks: ties(blocks, weights, density, variant))
    if method == "knots":
        left = directions(np.hstack(deltas))
        blocks = [left.T @ delta for delta in deltas]
        return left @ ties(blocks, weights, density, variant)
    raise KeyError(method)


def off(adapter, wanted):
    """The largest relative error over sites of an adapter against dense updates."""
    return max(
        np.linalg.norm(dense(adapter, site) - delta) / max(1e-30, np.linalg.norm(delta))
        for site, delta in wanted.items()
    )
