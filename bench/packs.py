"""Train every pack of examples/packs on the demo base, and run the tests that travel with it.

    python -m bench.packs                    all packs; what is up to date is not trained again
    python -m bench.packs poet critic        these
    python -m bench.packs --check            also what each pack broke (minutes more a pack)
    python -m bench.packs --policy           only write examples/packs/policy.yaml anew

The adapters lie in the store afterwards (LORATELIER_HOME), each with its behaviour tests, and the
corpora beside them. The table says what was measured in this run; the exit status is 1 when a pack
gained less than 15% on its held-out rows, cost general text more than its budget, or failed a test.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

PACKS = Path(__file__).parents[1] / "examples" / "packs"
POLICY = PACKS / "policy.yaml"
# A tenth would be six of 64 rows: too few to say how much was gained.
HOLDOUT = 0.15
# The demo base knows English only; the Russian dialogues wait for a base that reads them.
SCRIPT = "Latn"
GAIN = -0.15

HEAD = """\
# Which pack answers when. Made of the packs' own entries by `python -m bench.packs --policy`:
# change those, not this file. Try it with
#   loratelier route "Now as a poet. What is snow?" --policy examples/packs/policy.yaml
"""


@dataclass(frozen=True)
class Result:
    """What became of one pack; ``missed`` names the behaviour tests that failed."""

    name: str
    rows: int
    steps: int
    seconds: float
    before: float
    after: float
    gain: float
    drift: float
    budget: float | None
    tests: int
    missed: tuple[str, ...]
    broke: tuple[str, ...]

    @property
    def good(self):
        """Whether it keeps what a pack promises."""
        within = self.budget is None or self.drift <= self.budget
        return self.gain <= GAIN and within and not self.missed and not self.broke


def main():
    """Train, test, print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("names", nargs="*", metavar="NAME", help="packs; all without one")
    options.add_argument("--check", action="store_true", help="also run `loratelier check`")
    options.add_argument("--force", action="store_true", help="replace what is in the store")
    options.add_argument("--policy", action="store_true", help="only write the policy anew")
    given = options.parse_args()
    if given.policy:
        POLICY.write_text(merged_policy(), encoding="utf-8")
        return
    from loratelier.base import load_base
    from loratelier.cli.reporting import reporter
    from loratelier.kit.errors import InputError
    from loratelier.kit.progress import report_to

    try:
        with report_to(reporter()):
            base = load_base("demo")
            results = [one(base, PACKS / name, given) for name in given.names or trained()]
    except InputError as error:
        sys.exit(str(error))
    print(table(results), flush=True)
    sys.exit(0 if all(result.good for result in results) else 1)


def trained():
    """Return the packs that are trained; others only route."""
    return sorted(recipe.parent.name for recipe in PACKS.glob("*/recipe.yaml"))


def one(base, folder, given):
    """Build, train and test one pack."""
    from loratelier.check import check_adapter
    from loratelier.corpus import Corpus
    from loratelier.train import load_recipe

    rows = built(folder)
    recipe = load_recipe(folder / "recipe.yaml").model_copy(update={"corpus": rows})
    adapter = worn(base, recipe, folder, given.force)
    broke = ()
    if given.check:
        verdict = check_adapter(base, adapter, corpus=Corpus.load(rows))
        broke = tuple(f"{finding.name}: {finding.sentence['en']}" for finding in verdict.reasons)
    outcomes = tested(base, adapter, folder)
    metrics = adapter.card.metrics
    result = Result(
        name=folder.name,
        rows=adapter.card.corpus.rows,
        steps=metrics["steps"],
        seconds=metrics["seconds"],
        before=metrics["held_out_nll_base"],
        after=metrics["held_out_nll"],
        gain=metrics["held_out_nll_change"],
        drift=metrics["general_bpb_change"],
        budget=recipe.guards.drift_budget,
        tests=len(outcomes),
        missed=tuple(f"{o.name}: {'; '.join(o.missed)}" for o in outcomes if not o.passed),
        broke=broke,
    )
    print(table([result]), flush=True)
    return result


def built(folder):
    """Return the pack's corpus folder, built anew where its words have changed."""
    from loratelier.corpus import Corpus, build_corpus
    from loratelier.kit.home import room

    corpus = build_corpus([folder / "corpus"], script=SCRIPT, holdout=HOLDOUT)
    place = room("corpora") / f"pack-{folder.name}"
    if not place.exists() or Corpus.load(place).hash != corpus.hash:
        corpus.save(place, replace=True)
    return place


def worn(base, recipe, folder, force):
    """Return the pack's adapter with its tests: from the store if it is up to date, or trained."""
    from loratelier.adapter import Adapter, store
    from loratelier.corpus import Corpus
    from loratelier.train import train

    place = store.path_of(recipe.name)
    adapter = Adapter.load(place) if place.exists() else None
    if adapter is None or not _is_from(adapter, base, recipe, Corpus.load(recipe.corpus).hash):
        # Somebody may have an adapter of that name: it is replaced only if they say so.
        adapter = train(recipe, base=base, replace=force)
    tests = (folder / "behaviour.yaml").read_text(encoding="utf-8")
    if adapter.behaviour != tests:
        adapter = replace(adapter, behaviour=tests)
        adapter.save(place, replace=True)
    return adapter


def _is_from(adapter, base, recipe, rows):
    card = adapter.card
    return (
        card.corpus is not None
        and card.corpus.hash == rows
        and card.base.fingerprint == base.fingerprint
        and card.recipe == recipe.model_dump(mode="json", exclude={"corpus"})
    )


def tested(base, adapter, folder):
    """Run the pack's behaviour tests at the strength that its card recommends."""
    from loratelier.check.behaviour import load_behaviour, run_behaviour
    from loratelier.check.looks import Looks
    from loratelier.scope import Change

    strength = adapter.card.strength or 1.0
    looks = Looks(Change(base, adapter, strength=strength))
    return run_behaviour(looks, load_behaviour(folder / "behaviour.yaml"))


def table(results):
    """Return the figures as text, and below them what failed."""
    head = ("pack", "rows", "steps", "s", "held-out, base", "pack", "change", "drift", "tests")
    lines = [head, *(_line(result) for result in results)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    text = ["  ".join(cell.rjust(w) for cell, w in zip(li, widths, strict=True)) for li in lines]
    failed = [f"{r.name}: {why}" for r in results for why in (*r.missed, *r.broke)]
    return "\n".join([*text, *failed])


def _line(result):
    passed = result.tests - len(result.missed)
    return (
        result.name, str(result.rows), str(result.steps), f"{result.seconds:.0f}",
        f"{result.before:.3f}", f"{result.after:.3f}", f"{result.gain:+.1%}",
        f"{result.drift:+.2%}", f"{passed}/{result.tests}",
    )  # fmt: skip


def merged_policy():
    """Return one policy that has the entries of all packs."""
    whole = {"base": "demo", "adapters": {}, "roles": {}}
    for path in sorted(PACKS.glob("*/policy.yaml")):
        entry = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in ("adapters", "roles"):
            for name, value in entry.get(part, {}).items():
                if name in whole[part] and whole[part][name] != value:
                    sys.exit(f"{path}: '{name}' stands in another pack with other words")
                whole[part][name] = value
    # The packs' corpora are no part of the checkout, so only what needs none decides.
    whole["stages"] = ["name", "signals", "roles", "keywords"]
    return HEAD + yaml.safe_dump(whole, allow_unicode=True, sort_keys=False, width=96)


if __name__ == "__main__":
    main()
