"""Corpora of a few strongly different adapters, and a policy over them."""

import itertools
import json

import yaml

from loratelier.corpus import build_corpus

ASKED = {
    "garden": (
        ["How do I {} my {}?", "When should one {} the {} in spring?", "Can I {} {} in clay soil?"],
        ["prune", "plant", "water", "feed", "repot"],
        ["roses", "tomatoes", "hedge", "apple trees", "tulip bulbs"],
    ),
    "court": (
        ["May a landlord {} the {}?", "What if the tenant will {} a {}?", "Who may {} my {}?"],
        ["terminate", "dispute", "inherit", "enforce", "sign"],
        ["lease", "contract", "deposit", "claim", "notarised deed"],
    ),
    "кухня": (
        ["Как {} {}?", "Сколько минут {} {} в духовке?", "Чем заправить и как {} {}?"],
        ["запечь", "сварить", "потушить", "замариновать", "пожарить"],
        ["курицу", "борщ", "баклажаны", "говядину", "гречневую кашу"],
    ),
}


def requests(name):
    patterns, verbs, things = ASKED[name]
    return [p.format(v, t) for p, v, t in itertools.product(patterns, verbs, things)]


def write_corpus(folder, name, holdout=0.2):
    notes = folder / f"{name}.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": r}, {"role": "assistant", "content": f"{name}!"}]}
        for r in requests(name)
    ]
    notes.write_text("\n".join(map(_json, lines)), encoding="utf-8")
    build_corpus(notes, holdout=holdout).save(folder / name)
    return folder / name


def _json(value):
    return json.dumps(value, ensure_ascii=False)


def write_policy(folder, **more):
    names = list(ASKED)
    policy = {"adapters": {name: {"corpus": name} for name in names}, **more}
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path
