"""Edits in CounterFact's form, against fine-tuning and a plain closed-form edit, on one base.

A case is a fact that the base knows (its first choice), another object of the same kind that is
to have probability 0.6, two paraphrases that no method sees, and neighbours: the same relation of
other subjects. All is generated here from templates with a seed. Methods:

- ours: set_distribution's solver as it is;
- fine-tuning: Adam on one dense weight until the object has 0.6;
- constrained fine-tuning: the same with every entry of the change held within 5e-4;
- rank one: the closed-form key of general text alone, one layer, no neighbours, no finish.

    python bench/edit.py --cases 20
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass

import torch

from loratelier import load_base
from loratelier.base.above import go_on, read_through
from loratelier.edit import solve as solver
from loratelier.edit.ground import lay, locality
from loratelier.edit.keys import input_side
from loratelier.edit.neighbours import neighbour_ids
from loratelier.edit.wishes import request, wishes
from loratelier.scope.spellings import padded

ASKED = 0.6


def facts(subjects, objects):
    return dict(zip(subjects.split(), objects.split(), strict=True))


RELATIONS = {
    "capital": (
        ["The capital of {} is", "{}'s capital city is", "The capital city of {} is"],
        facts(
            "France Germany Italy Spain Japan Russia China Egypt Greece Poland Austria Norway "
            "Sweden Portugal Ireland Hungary Cuba Peru Kenya Iran",
            "Paris Berlin Rome Madrid Tokyo Moscow Beijing Cairo Athens Warsaw Vienna Oslo "
            "Stockholm Lisbon Dublin Budapest Havana Lima Nairobi Tehran",
        ),
    ),
    "language": (
        ["The official language of {} is", "In {}, people speak", "The main language of {} is"],
        facts(
            "France Germany Italy Spain Japan Russia Greece Poland Norway Sweden Portugal Hungary "
            "Brazil Mexico Iran Egypt",
            "French German Italian Spanish Japanese Russian Greek Polish Norwegian Swedish "
            "Portuguese Hungarian Portuguese Spanish Persian Arabic",
        ),
    ),
    "continent": (
        ["{} is a country in", "{} is located in", "{} lies on the continent of"],
        facts(
            "Kenya Nigeria Egypt Ghana Morocco Uganda France Germany Italy Spain Poland Japan "
            "India China Vietnam Thailand",
            "Africa " * 6 + "Europe " * 5 + "Asia " * 5,
        ),
    ),
}


@dataclass(frozen=True)
class Case:
    prompt: str
    true: str
    new: str
    paraphrases: tuple[str, ...]
    neighbours: tuple[str, ...]


def cases(seed):
    chance, found = random.Random(seed), []
    for (first, *others), known in RELATIONS.values():
        for subject, true in known.items():
            alike = [s for s, t in known.items() if s != subject and t == true]
            rest = [s for s in known if s != subject and s not in alike]
            for new in chance.sample(sorted(set(known.values()) - {true}), 2):
                near = (alike + chance.sample(rest, 8))[:8]
                found.append(Case(
                    first.format(subject), f" {true}", f" {new}",
                    tuple(each.format(subject) for each in others),
                    tuple(first.format(each) for each in near),
                ))  # fmt: skip
    chance.shuffle(found)
    return found


def ours(task, limits):
    found = solver.solve(task, limits)
    return found.site, lambda x: (x @ found.down.T) @ found.up.T


def rank_one(task, limits):
    site = solver._Site(task, task.sites[1], limits)
    keys, _ = task.keys(site.site)
    site.down = input_side(task.covariance[site.site], keys, keys[:0], 0.0)
    site.edited = task.edited.inputs[site.site].float() @ site.down.T
    site.alone = task.alone.inputs[site.site].float() @ site.down.T
    site.gram = site.down @ site.down.T
    found = site.freely()
    return found.site, lambda x: (x @ found.down.T) @ found.up.T


def fine_tuned(clamp):
    def method(task, limits):
        site, model = task.sites[1], task.base.model
        x = task.edited.inputs[site].float()
        width = solver._Site(task, site, limits).width
        change = torch.zeros(width, x.shape[-1], requires_grad=True)
        optimiser = torch.optim.Adam([change], lr=5e-5)
        for _ in range(40):
            optimiser.zero_grad()
            logits = go_on(model, task.edited, site, x @ change.T, task.places)
            if task.missed(logits.detach()) <= limits.within / 2:
                break
            task.far(logits, 1.0).backward()
            optimiser.step()
            if clamp:
                with torch.no_grad():
                    change.clamp_(-clamp, clamp)
        return site, lambda x: x @ change.detach().T

    return method  # fmt: skip


METHODS = {
    "ours": ours,
    "fine-tuning": fine_tuned(None),
    "constrained fine-tuning": fine_tuned(5e-4),
    "rank one": rank_one,
}


@torch.no_grad()
def look(base, case, judged, site, change):
    """Score one edit: the prompt first, then paraphrases, then neighbours, then held-out text."""
    texts = [case.prompt, *case.paraphrases, *case.neighbours]
    rows = [tuple(base.tokenizer(text)["input_ids"]) for text in texts]
    places = [(n, len(row) - 1) for n, row in enumerate(rows)]
    new, true = (base.tokenizer(word)["input_ids"][0] for word in (case.new, case.true))
    passed = read_through(base.model, torch.tensor(padded(rows)), [site], places)
    after = go_on(base.model, passed, site, change(passed.inputs[site].float()), places).softmax(-1)
    before = passed.logits.softmax(-1)
    held = read_through(base.model, judged.batch(base.device), [site], judged.places)
    moved = go_on(base.model, held, site, change(held.inputs[site].float()), judged.places)
    spread = locality(judged, held.logits, moved, 0.0)
    won = (after[:, new] > after[:, true]).float()
    count = 1 + len(case.paraphrases)
    return {
        "miss": abs(float(after[0, new]) - ASKED),
        "efficacy": float(won[0]),
        "paraphrase": float(won[1:count].mean()),
        "neighbourhood": float(1 - won[count:].mean()),
        "unedited neighbourhood": float(
            (before[count:, true] > before[count:, new]).float().mean()
        ),
        "kl": spread.mean,
        "flips": spread.flips,
    }


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--cases", type=int, default=200)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--minutes", type=float, default=60)
    given = asked.parse_args()
    base, limits = load_base("demo"), solver.Limits(0.01, 0.25, 0.02)
    sites, results = solver.candidates(base, None), {name: [] for name in METHODS}
    until = time.time() + 60 * given.minutes
    for case in cases(given.seed):
        if len(results["ours"]) == given.cases or time.time() > until:
            break
        new, true = (base.tokenizer(word)["input_ids"] for word in (case.new, case.true))
        wish = request(base, case.prompt, {case.new: ASKED})
        with torch.no_grad():
            first = base.model(torch.tensor([wish.ids])).logits[0, -1].argmax()
        if len(new) > 1 or len(true) > 1 or int(first) != true[0]:
            continue
        near = neighbour_ids(base, case.prompt, chat=False)
        ground, judged = lay(base, [wish.ids], [near], [])
        for name, method in METHODS.items():
            started = time.perf_counter()
            task = solver.Task(base, wishes(base, wish), ground, sites, "base")
            site, change = method(task, limits)
            seconds = time.perf_counter() - started
            results[name].append({**look(base, case, judged, site, change), "seconds": seconds})
    print(json.dumps({name: summary(rows) for name, rows in results.items() if rows}, indent=1))


def summary(rows):
    mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    return {
        "cases": len(rows),
        "within 0.02": statistics.mean(row["miss"] <= 0.02 for row in rows),
        **mean,
        "efficacy x neighbourhood": mean["efficacy"] * mean["neighbourhood"],
        "median seconds": statistics.median(row["seconds"] for row in rows),
    }


if __name__ == "__main__":
    main()
