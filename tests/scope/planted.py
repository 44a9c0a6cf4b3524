"""Adapters whose truth is known, because they were made by hand."""

import torch

from loratelier.adapter import Adapter
from loratelier.adapter.card import BaseRef, Card

KINDS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
SITES = [
    f"model.layers.{layer}.{block}.{name}"
    for layer in (0, 1)
    for block, names in KINDS.items()
    for name in names
]


def pair(model, site, *, scale, rank=4, seed=0):
    """A random pair (A, B) for a site, with a update of about ``scale`` in each entry."""
    weight = model.get_submodule(site).weight
    chance = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, weight.shape[1], generator=chance)
    return down, scale * torch.randn(weight.shape[0], rank, generator=chance) / rank**0.5


def made(base, pairs, name="planted"):
    return Adapter.from_tensors(pairs, Card(base=BaseRef(fingerprint=base.fingerprint)), name)


def planted(base, site, *, loud=0.3, noise=0.0, sites=SITES):
    """An adapter that acts at one site, and elsewhere at ``noise`` only."""
    pairs = {
        each: pair(base.model, each, scale=loud if each == site else noise, seed=number)
        for number, each in enumerate(sites)
    }
    return made(base, pairs)
