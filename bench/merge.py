"""Merging two adapters: ours in core space, PEFT's ``add_weighted_adapter`` through dense updates.

    python bench/merge.py [--base demo] [--ranks 8,16] [--rank 16] [--rounds 3]

Two seeded random adapters on all linear layers of the base. Both ways take turns within each round;
ratios are formed within a round, and their median is what counts. The first round warms up and is
not counted. In every round the merged updates must be the same at every site, or the script ends
with an error. PEFT is given ``svd_full_matrices=False``, which is faster than its default. Ours is
timed with its checks; PEFT has none.
"""

import argparse
import json
import platform
import statistics
import sys
from importlib.metadata import version
from time import perf_counter

import torch
from peft import LoraConfig, get_peft_model

from loratelier import Adapter, load_base, merge_adapters
from loratelier.adapter import Card

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_adapter(model, rank, seed):
    chance = torch.Generator().manual_seed(seed)
    pairs = {
        name: (
            torch.randn(rank, module.in_features, generator=chance) / module.in_features**0.5,
            torch.randn(module.out_features, rank, generator=chance) * 0.01,
        )
        for name, module in model.named_modules()
        if name.endswith(tuple(LAYERS))
    }
    return Adapter.from_tensors(pairs, Card(), f"r{rank}", alphas=2.0 * rank)


def with_peft(model, adapters):
    wrapped = None
    for adapter in adapters:
        config = LoraConfig(r=adapter.rank, lora_alpha=2 * adapter.rank, target_modules=LAYERS)
        if wrapped is None:
            wrapped = get_peft_model(model, config, adapter_name=adapter.name)
        else:
            wrapped.add_adapter(adapter.name, config)
        for site, (down, up) in adapter.tensors.items():
            layer = wrapped.base_model.model.get_submodule(site)
            layer.lora_A[adapter.name].weight.data.copy_(down)
            layer.lora_B[adapter.name].weight.data.copy_(up)
    return wrapped.eval()


def furthest(wrapped, merged):
    """The largest relative difference of the two merged updates at any site."""
    off = 0.0
    for site, delta in merged.deltas.items():
        theirs = wrapped.base_model.model.get_submodule(site).get_delta_weight("merged")
        off = max(off, float((theirs - delta).norm() / delta.norm()))
    return off


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="demo")
    parser.add_argument("--ranks", default="8,16")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = load_base(options.base).model
    ranks = [int(rank) for rank in options.ranks.split(",")]
    adapters = [random_adapter(model, rank, seed) for seed, rank in enumerate(ranks)]
    weights = [0.7, 0.4, *[0.3] * len(adapters)][: len(adapters)]
    weighted = dict(zip(adapters, weights, strict=True))
    wrapped = with_peft(model, adapters)
    ours, theirs = [], []
    for number in range(options.rounds + 1):
        began = perf_counter()
        merged = merge_adapters(weighted, rank=options.rank)
        between = perf_counter()
        wrapped.add_weighted_adapter(
            [adapter.name for adapter in adapters],
            weights,
            "merged",
            combination_type="svd",
            svd_rank=options.rank,
            svd_full_matrices=False,
        )
        ended = perf_counter()
        off = furthest(wrapped, merged)
        if off > 1e-3:
            sys.exit(f"round {number}: the two merges differ by {off:.1e}")
        wrapped.delete_adapter("merged")
        print(f"round {number} of {options.rounds}: {between - began:.2f} s", file=sys.stderr)
        if number:
            ours.append(between - began)
            theirs.append(ended - between)
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    document = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "peft", "loratelier")},
        "sites": len(merged.sites),
        "ranks": [*ranks, options.rank],
        "rounds": options.rounds,
        "seconds": {"loratelier": statistics.median(ours), "peft": statistics.median(theirs)},
        "ratio": {"median": statistics.median(ratios), "from": min(ratios), "to": max(ratios)},
        "furthest": off,
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{document['machine']}; {document['versions']}; {document['sites']} sites")
    for name, seconds in document["seconds"].items():
        print(f"  {name:<12} {seconds:8.2f} s")
    span = f"{min(ratios):.1f} to {max(ratios):.1f}"
    print(f"  PEFT / ours: {document['ratio']['median']:.1f} ({span}), at least 10 wanted")
    print(f"  the merged updates differ by {off:.1e} at most")


if __name__ == "__main__":
    main()
