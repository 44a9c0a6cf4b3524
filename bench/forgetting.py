"""What each guard costs and what it saves: the same rows, the same steps, one guard at a time.

    python -m bench.forgetting                       the table of docs/training-guards.md
    python -m bench.forgetting --corpus russian --only free,defaults
    python -m bench.forgetting --source my-notes/ --steps 120

Every line is a run of `train` with the same seed and the same rows, in turn. `free` has no guard at
all. The gain is the fall of the held-out loss under the base's; what is kept of it is a share of
what `free` gains. The rise of bits per byte is measured on general text that no run has seen and by
which no state was chosen; KL(base || adapter) is on the texts that watch over the run. Runs that
are done are not done again (they are in --home): stop the command and go on as you like.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

OFF = dict.fromkeys(
    ("drift_budget", "strength", "replay", "replay_from", "kl", "token_mask", "norm"), "off"
)
METHODS = {
    "free": OFF,
    "budget": OFF | {"drift_budget": 0.02},
    "budget, strength": OFF | {"drift_budget": 0.02, "strength": "auto"},
    "replay 0.1, learned": OFF | {"replay": 0.1, "replay_kl": "off"},
    "replay 0.1, held": OFF | {"replay": 0.1, "replay_kl": 1.0},
    "kl 0.1": OFF | {"kl": 0.1},
    "token mask 2.5": OFF | {"token_mask": 2.5},
    "norm 3e-5": OFF | {"norm": 3e-5},
    "defaults": {},
}
EXAMPLES = Path(__file__).parents[1] / "examples"
VAULT = EXAMPLES / "vault"
# Rows, and how fast they are learned. The Russian rows are few, in another language than the text
# that the drift is measured on, and learned ten times too fast: there is something to forget.
CORPORA = {
    "everyday": {"learning_rate": 1e-2, "batch_tokens": 256},
    "russian": {"learning_rate": 5e-3, "batch_tokens": 256},
    "vault": {"learning_rate": 5e-4, "batch_tokens": 512},
}


def main():
    """Run what is asked for and print the tables."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--corpus", default=",".join(CORPORA))
    options.add_argument("--source", type=Path, help="notes of your own, instead of the corpora")
    options.add_argument("--only", help="methods, as their adapters are called: free,kl-0.1")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--every", type=int, default=10, help="measure every so many steps")
    options.add_argument("--home", type=Path, default=Path("bench-forgetting"))
    given = options.parse_args()
    os.environ.setdefault("LORATELIER_HOME", str(given.home.resolve()))
    for name in ["own"] if given.source else given.corpus.split(","):
        table(given, name)


def table(given, name):
    """Run every method on one corpus and print what came of it."""
    from loratelier.base import load_base
    from loratelier.corpus import Corpus, build_corpus

    home = Path(os.environ["LORATELIER_HOME"])
    folder = home / "corpora" / name
    if not folder.exists():
        build_corpus(source(given, name), holdout=0.15).save(folder)
    rows = Corpus.load(folder).rows.num_rows
    base = load_base("demo", dtype="float32")
    wanted = [
        method for method in METHODS if not given.only or slug(method) in given.only.split(",")
    ]
    found = {method: measured(given, base, name, folder, method) for method in wanted}
    print(f"\n{name}: {rows} rows, {given.steps} steps\n")
    print("\n".join(lines(found)))
    print(f"\n{machine()}")


def source(given, name):
    """Return what a corpus is built of; the Russian rows are written out first."""
    if given.source or name != "russian":
        return given.source or {"vault": VAULT, "everyday": VAULT / "everyday"}[name]
    import yaml

    path = Path(os.environ["LORATELIER_HOME"]) / "russian.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for file in sorted((EXAMPLES / "structures").glob("*.yaml")):
        for structure in yaml.safe_load(file.read_text(encoding="utf-8"))["structures"]:
            found += [row for row in structure["rows"].get("ru", []) if "reply" in row]
    talks = [[("user", row["prompt"]), ("assistant", row["reply"].strip())] for row in found[:44]]
    rows = [{"messages": [{"role": r, "content": text} for r, text in talk]} for talk in talks]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def measured(given, base, corpus, folder, method):
    """Return the metrics of one run; one that is done is not done again."""
    from loratelier.adapter import store
    from loratelier.train import load_recipe, train

    name = f"{corpus}-{slug(method)}"
    if not store.path_of(name).exists():
        changes = {
            "base": "demo",
            "corpus": str(folder),
            "name": name,
            "max_steps": given.steps,
            "epochs": 100,
            "evaluate_every": given.every,
            "patience": 100,
        }
        changes |= CORPORA.get(corpus, {})
        changes |= {f"guards.{key}": value for key, value in METHODS[method].items()}
        print(f"{name}:", file=sys.stderr, flush=True)
        train(load_recipe(None, changes), base=base, resume=True)
    return store.open(name).card.metrics


def lines(found):
    """Return the table, as Markdown."""
    free = found.get("free")
    head = "| | held-out loss | gain kept | general text | KL | kept | tokens/s |"
    made = [head, "|---|---|---|---|---|---|---|"]
    for method, metrics in found.items():
        gained = metrics["held_out_nll_base"] - metrics["held_out_nll"]
        of = free["held_out_nll_base"] - free["held_out_nll"] if free else None
        curve = metrics["curve"]
        kept = next(
            point
            for point in reversed(curve)
            if point["step"] == metrics["kept_step"] and point["strength"] == metrics["strength"]
        )
        strength = f" at {metrics['strength']:g}" if metrics["strength"] != 1 else ""
        made.append(
            f"| {method} | {metrics['held_out_nll_base']:.3f} -> {metrics['held_out_nll']:.3f} "
            f"| {f'{gained / of:.0%}' if of else ''} | {metrics['general_bpb_change']:+.2%} "
            f"| {kept['general_kl']:.3f} | step {metrics['kept_step']}{strength} "
            f"| {metrics['tokens_per_second']:.0f} |"
        )
    return made


def slug(method):
    """Return a method's name as a file may be called."""
    return method.replace(", ", "-").replace(" ", "-")


def machine():
    """Say where and with what this was measured."""
    packages = ("torch", "transformers", "peft")
    told = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {told}"


if __name__ == "__main__":
    main()
