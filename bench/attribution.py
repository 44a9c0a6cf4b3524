"""Do shares of a change add up, do they agree with Shapley's, and what do they cost?

    python -m bench.attribution ADAPTER                    the tables of docs/scope-sites.md
    python -m bench.attribution ADAPTER --only cost        or residual, shapley
    python -m bench.attribution ADAPTER --base BASE --pairs 30

Residual: 20 prompts, the default target of each and KL at the last position. Shapley values are
sampled over 28 groups (four bands of layers by seven modules) with antithetic permutations, which
are read there and back; the shares of the same groups are put beside them, and so are two cheaper
figures: the gradient with the adapter on, and what is lost without a group.
"""

import argparse
import os
import platform
import resource
import sys
import time
from importlib.metadata import version

import numpy as np
import torch

from loratelier.adapter import Adapter
from loratelier.base import load_base
from loratelier.scope.ablation import values_at, what_is_lost
from loratelier.scope.attribute import ends, look_at_sites
from loratelier.scope.change import Change
from loratelier.scope.gradient import by_gates
from loratelier.scope.keywords import track_keywords
from loratelier.scope.places import layer_of, module_of
from loratelier.scope.prompt import encode_prompt
from loratelier.scope.reading import logits_at
from loratelier.scope.targets import Divergence, target_of
from loratelier.scope.weights import look_at_weights

PROMPTS = [
    "Why is it late?", "Name one colour.", "What is a river?", "How do I learn to wait?",
    "Tell me about the moon.", "Is silence an answer?", "What should I cook tonight?",
    "Explain gravity to a child.", "If I am free, why do I obey?", "Write a line about rain.",
    "What is two plus two?", "Who was Marie Curie?", "Why do people forget?",
    "Can a question be wrong?", "Describe your morning.", "What is the capital of France?",
    "How does bread rise?", "Почему вода мокрая?", "Что такое время?", "Зачем человеку тишина?",
]  # fmt: skip
SHORT = ["The capital of France is", "I think, therefore", "If nothing is certain, then"]


def main():
    """Run what is asked for and print the tables."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("adapter")
    options.add_argument("--base", default="demo")
    options.add_argument("--only", default="residual,shapley,cost")
    options.add_argument("--pairs", type=int, default=30, help="antithetic pairs of permutations")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    change = Change(load_base(given.base), Adapter.load(given.adapter))
    print(f"{change.base.name}, {len(change.sites)} sites, {machine()}\n", flush=True)
    given.held = peak()
    for part in given.only.split(","):
        {"residual": residual, "shapley": shapley, "cost": cost}[part](change, given)


def residual(change, _given):
    """Print how far the shares are from adding up, at the first nodes and at the last."""
    print("| prompt | target | total | residual | nodes | s |\n|---|---|---|---|---|---|")
    worst = {}
    for prompt in PROMPTS:
        ids = encode_prompt(change.base, prompt).ids
        for kind, asked in (("default", None), ("KL", Divergence())):
            begun = time.perf_counter()
            seen = look_at_sites(change, ids, asked)
            took = time.perf_counter() - begun
            size = f"{seen.residual:.2%}" if seen.residual_is == "relative" else seen.residual
            print(
                f"| {prompt} | {seen.target} | {seen.total:.4f} | {size} | {seen.nodes} "
                f"| {took:.1f} |",
                flush=True,
            )
            worst.setdefault(kind, []).append(seen.residual if seen.reached else float("inf"))
    for kind, values in worst.items():
        print(f"\n{kind}: largest {max(values):.3%}, median {np.median(values):.3%}")


def shapley(change, given):
    """Print how shares and cheaper figures agree with sampled Shapley values over 28 groups."""
    groups = bands(change.sites)
    print(f"\n{len(groups)} groups, {2 * given.pairs} permutations\n")
    print("| prompt | shares | gradient | what is lost | L1 of shares | Shapley's error | s |")
    print("|---|---|---|---|---|---|---|")
    for prompt in SHORT:
        begun = time.perf_counter()
        ids = encode_prompt(change.base, prompt, raw=True).ids
        target = target_of(change, ids)
        values, error = sampled(change, target, groups, given)
        seen = look_at_sites(change, ids, target)
        slope = dict(zip(change.sites, gradient(change, target), strict=True))
        lost = what_is_lost(change, ids, target, by=groups).lost
        shares = gathered(groups, seen.shares)
        gap = np.abs(shares - values).sum() / np.abs(values).sum()
        print(
            f"| {prompt} | {like(shares, values):.3f} | {like(gathered(groups, slope), values):.3f}"
            f" | {like(np.array(list(lost.values())), values):.3f} | {gap:.0%} | {error:.3f} "
            f"| {time.perf_counter() - begun:.0f} |",
            flush=True,
        )


def bands(sites, count=4):
    """Return the sites by four bands of layers and by module."""
    layers = sorted({layer_of(site) for site in sites})
    band = {layer: n * count // len(layers) for n, layer in enumerate(layers)}
    found = {}
    for site in sites:
        found.setdefault(f"{band[layer_of(site)]} {module_of(site)}", []).append(site)
    return found


def sampled(change, target, groups, given):
    """Return Shapley values [groups], and their mean standard error in units of their spread."""
    names, chance = list(groups), np.random.default_rng(given.seed)
    before, after = ends(change, target)
    pairs = []
    for _ in range(given.pairs):
        order = chance.permutation(len(names))
        both = []
        for way in (order, order[::-1]):
            opened = [{names[n] for n in way[:size]} for size in range(1, len(names))]
            shares = [
                {site: float(name in on) for name, own in groups.items() for site in own}
                for on in opened
            ]
            along = [before, *values_at(change, target, shares), after]
            gains = np.empty(len(names))
            gains[way] = np.diff(along)
            both.append(gains)
        pairs.append((both[0] + both[1]) / 2)
    values = np.mean(pairs, axis=0)
    error = np.std(pairs, axis=0, ddof=1) / np.sqrt(len(pairs))
    return values, float(error.mean() / values.std())


def gradient(change, target):
    """Return the derivative by each gate with the adapter on, and no path."""

    def score(gates):
        shares = dict(zip(change.sites, gates, strict=True))
        return target.score(logits_at(change, target.text, [shares]))[0]

    return by_gates(score, len(change.sites), 1.0, change.base.model.device).tolist()


def gathered(groups, shares):
    """Return the sums of figures by site over groups."""
    return np.array([sum(shares[site] for site in own) for own in groups.values()])


def like(one, other):
    """Return Pearson's correlation."""
    return float(np.corrcoef(one, other)[0, 1])


def cost(change, given):
    """Print the time for 64 tokens, and the memory that 1,024 take beyond the model."""
    text = " ".join(PROMPTS[:17]) * 8
    ids = encode_prompt(change.base, text, raw=True).ids
    jobs = {
        "attribution, default target": lambda few: look_at_sites(change, few),
        "attribution, KL over all positions": lambda few: look_at_sites(
            change, few, Divergence("all")
        ),
        "weights": lambda few: look_at_weights(change),
        "keywords, 3 words": lambda few: track_keywords(change, [few], ["river", "mind", "река"]),
        "lost by layer": lambda few: what_is_lost(change, few, by="layer"),
        "lost by module": lambda few: what_is_lost(change, few, by="module"),
    }
    jobs["attribution, default target"](ids[:8])
    # Seconds of a core are those of the work; on a busy machine those of the clock are not.
    print("\n| 64 tokens | s of a core | s |\n|---|---|---|")
    for name, job in jobs.items():
        worked, begun = time.process_time(), time.perf_counter()
        job(ids[:64])
        worked, begun = time.process_time() - worked, time.perf_counter() - begun
        print(f"| {name} | {worked:.1f} | {begun:.1f} |", flush=True)
    print("\n| | peak beyond it, 1,024 tokens, GB |\n|---|---|")
    for name in ("keywords, 3 words", "lost by module", *list(jobs)[:2]):
        jobs[name](ids[:1024])
        print(f"| {name} | {peak() - given.held:.2f} |", flush=True)


def peak():
    """Return the most memory that this process has held, in GB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machine():
    """Say where and with what this was measured."""
    packages = ("torch", "transformers")
    told = ", ".join(f"{name} {version(name)}" for name in packages)
    threads = torch.get_num_threads()
    return f"{threads} of {os.cpu_count()} cores, Python {platform.python_version()}, {told}"


if __name__ == "__main__":
    main()
