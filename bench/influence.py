"""Do the rows that influence names carry the move? Train again without them and see.

    python -m bench.influence                the table of docs/scope-influence.md
    python -m bench.influence --steps 20 --leave 12 --only times

An adapter is trained on the sample vault; its own greedy answer to a question that the vault never
asked is the target. Then it is trained again without the rows that come first, last, or at random,
from the same seed for as many steps. What each run lost of the target is a share of how far the
first one had moved it. Runs that are done are not done again (they are in --home).
"""

import argparse
import os
import random
import shutil
from pathlib import Path
from time import perf_counter

QUESTION = "Why do I keep buying things I never use?"


def main():
    """Train, ask the rows, train without them."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--leave", type=int, default=12, help="rows that are left out")
    options.add_argument("--home", type=Path, default=Path("bench-influence"))
    options.add_argument("--only", choices=["times", "rows"])
    given = options.parse_args()
    os.environ.setdefault("LORATELIER_HOME", str(given.home.resolve()))
    base, adapter, corpus = first(given)
    target = own_answer(base, adapter)
    print(f"target: {target}", flush=True)
    if given.only != "rows":
        times(base, adapter, corpus, target)
    if given.only != "times":
        without(given, base, adapter, corpus, target)


def trained(given, base, name, notes):
    """Train on a folder of notes, or take what was trained before."""
    from loratelier.adapter import Adapter, store
    from loratelier.corpus import Corpus, build_corpus
    from loratelier.train import load_recipe, train

    folder = given.home / f"{name}-rows"
    if not folder.exists():
        build_corpus([notes], script="Latn").save(folder)
    place = store.path_of(name)
    if place.exists():
        return Adapter.load(place), Corpus.load(folder)
    keys = {
        "base": "demo",
        "corpus": str(folder),
        "name": name,
        "layers": "10-29",
        "epochs": 100,
        "max_steps": given.steps,
        "evaluate_every": given.steps,
        "learning_rate": 1e-3,
        "batch_tokens": 512,
        "guards.drift_budget": "off",
        "holdout": 0,
        "patience": 100,
    }
    return train(load_recipe(None, keys), base=base), Corpus.load(folder)


def first(given):
    """Train on all of the vault."""
    from loratelier.base import load_base
    from loratelier.demo import vault

    base = load_base("demo")
    return base, *trained(given, base, f"all-{given.steps}", vault())


def own_answer(base, adapter):
    """The adapter's greedy answer, its first 40 tokens."""
    from loratelier.scope import inspect_prompt

    seen = inspect_prompt(base, adapter, QUESTION, max_new_tokens=40)
    return seen.continuations["adapter"].text


def times(base, adapter, corpus, target):
    """What each way costs, and how far they agree."""
    from loratelier.scope.influence import rows_behind

    ways = {"gradient, end": {}, "gradient, both": {"points": "both"}, "datainf": {}}
    ways["datainf"]["method"] = "datainf"
    found = {}
    for name, how in ways.items():
        began = perf_counter()
        found[name] = rows_behind(base, adapter, corpus, QUESTION, target, **how)
        print(f"{name}: {perf_counter() - began:.1f} s, {len(found[name].rows)} rows", flush=True)
    began = perf_counter()
    slopes, error = differences(base, adapter, corpus, target, found["gradient, end"])
    print(f"difference of two forward passes: {perf_counter() - began:.1f} s")
    print(f"  largest error {error:.2%} of the largest push, {len(slopes)} rows")
    plain = found["gradient, end"]
    for name, other in found.items():
        for by in ("push", "cosine"):
            same = {r.row for r in plain.ordered(by)[:10]} & {r.row for r in other.ordered(by)[:10]}
            print(f"{name}, {by}: {len(same)} of the first 10 as in gradient, end")


def differences(base, adapter, corpus, target, exact):
    """Pushes by (L(w + e v) - L(w - e v)) / 2e along the target's gradient, rows packed."""
    import torch

    from loratelier.scope.change import Change
    from loratelier.scope.influence.aim import value_of
    from loratelier.scope.influence.behind import _recipe
    from loratelier.scope.influence.slopes import Slopes, squared
    from loratelier.scope.prompt import encode_prompt
    from loratelier.scope.targets import target_of
    from loratelier.train.again import put_on
    from loratelier.train.objective import Sft
    from loratelier.train.packing import by_length, pack

    recipe = _recipe(adapter, corpus)
    rows, _ = Sft().rows(base, corpus, recipe)
    packs = pack(by_length(rows), 1024)
    aim = target_of(Change(base, adapter), encode_prompt(base, QUESTION).ids, target)
    sums = {}
    with put_on(base, adapter, recipe) as learner:
        over = [p for p in learner.parameters() if p.requires_grad]
        direction = Slopes(learner).of(value_of(aim, learner))
        step = 0.01 * squared([p.detach() for p in over]) ** 0.5 / squared(direction) ** 0.5
        with torch.no_grad():
            for sign in (1, -1):
                for p, v in zip(over, direction, strict=True):
                    p.add_(v, alpha=sign * step * (1 if sign == 1 else 2))
                for each in packs:
                    nll = learner.nll(each).double()
                    for n, row in enumerate(each.rows):
                        part = float(nll[each.owners == n].sum())
                        sums[row] = sums.get(row, 0.0) - sign * part / (2 * step)
    largest = max(abs(one.push) for one in exact.rows)
    return sums, max(abs(one.push - sums[one.row]) for one in exact.rows) / largest


def without(given, base, adapter, corpus, target):
    """Train again without rows, and print what is lost."""
    from loratelier.demo import vault
    from loratelier.scope.influence import rows_behind

    seen = rows_behind(base, adapter, corpus, QUESTION, target)
    print(f"{seen.before:.2f} -> {seen.after:.2f} nats, moved {seen.moved:+.2f}", flush=True)
    by = {order: [file_of(one) for one in seen.ordered(order)] for order in ("cosine", "push")}
    mixed = sorted(by["push"])
    random.Random(0).shuffle(mixed)
    left = {
        "first by cosine": by["cosine"][: given.leave],
        "at random": mixed[: given.leave],
        "last by cosine": by["cosine"][-given.leave :],
        "first by push": by["push"][: given.leave],
        "at random again": mixed[-given.leave :],
    }
    for name, files in left.items():
        label = f"{name.replace(' ', '-')}-{given.leave}-{given.steps}"
        notes = given.home / f"{label}-notes"
        if not notes.exists():
            shutil.copytree(vault(), notes)
            for file in files:
                (notes / file).unlink()
        made, rest = trained(given, base, label, notes)
        after = rows_behind(base, made, rest, QUESTION, target).after
        print(f"without {name}: lost {(seen.after - after) / seen.moved:.1%}", flush=True)


def file_of(one):
    """The note of a row."""
    return one.sources[0].file


if __name__ == "__main__":
    main()
