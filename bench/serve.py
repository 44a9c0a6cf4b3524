"""Serving: does the engine slow down as the adapters become many, and what does PEFT do.

    python -m bench.serve [--adapters 1,4,32] [--requests 32] [--rows 16] [--tokens 24] [--rounds 3]

The same load of short chat requests, spread over 1, 4, ... adapters: seeded random ones of rank 8
on all linear layers. Ours: all requests are handed to the engine at once, which writes ``--rows``
of them at a time as others end; no prefix cache, so that everything is read. PEFT: the same
requests in batches of ``--rows`` with ``adapter_names`` through transformers' generate. Answers are
greedy and of fixed unequal lengths, as answers are; a static batch waits for its longest row, the
engine does not. All ways take turns within each round; the first round warms up and is not counted.
In every round the tokens of both must be the same (but for a tie's rounding, which is counted).
"""

import argparse
import json
import os
import platform
import statistics
from importlib.metadata import version
from time import perf_counter

import torch

from bench.bank import random_adapter, with_peft
from loratelier import load_base
from loratelier.scope.prompt import encode_prompt
from loratelier.serve.engine import Asked, Engine, EngineSettings, Sampling

SUBJECTS = ("rest", "the sea", "a debt", "winter", "a map", "hunger", "a clock", "a lost key")
QUESTIONS = ("What is {}?", "Why do people speak of {}?", "Say something of {}, in one breath.")


def main():
    """Run the rounds and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--adapters", default="1,4,32")
    options.add_argument("--requests", type=int, default=32)
    options.add_argument("--rows", type=int, default=16)
    options.add_argument("--tokens", type=int, default=24, help="of an answer on average")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--without-peft", action="store_true")
    given = options.parse_args()
    counts = [int(each) for each in given.adapters.split(",")]
    base = load_base("demo", dtype="float32", device="cpu")
    adapters = {f"a{n}": random_adapter(base.model, n) for n in range(max(counts))}
    engine = Engine(base, settings=EngineSettings(max_rows=given.rows, cache_bytes=0))
    for name, adapter in adapters.items():
        engine.adapters.add(name, adapter)
    engine.start()
    peft = None
    if not given.without_peft:
        peft = with_peft(load_base("demo", dtype="float32", device="cpu").model, adapters).eval()
    speed, ratios, unlike = {}, {}, 0
    for number in range(given.rounds + 1):
        found = {}
        for count in counts:
            load = requests(base, given, count)
            began = perf_counter()
            mine = ours(engine, load)
            found[f"engine, {count} adapters"] = perf_counter() - began
            if peft is not None:
                began = perf_counter()
                theirs = static(peft, load, given.rows)
                found[f"PEFT, {count} adapters"] = perf_counter() - began
                unlike += sum(a != b for a, b in zip(mine, theirs, strict=True))
        if not number:
            unlike = 0
            continue
        total = sum(limit for *_, limit in requests(base, given, 1))
        first = found[f"engine, {counts[0]} adapters"]
        for name, seconds in found.items():
            speed.setdefault(name, []).append(total / seconds)
            ratios.setdefault(name, []).append(first / seconds)
        print(json.dumps(found), flush=True)
    engine.stop()
    print(json.dumps(report(given, speed, ratios, unlike), indent=2))


def requests(base, given, count):
    """Return (ids, adapter, tokens of the answer); only the names depend on the number."""
    made = []
    for number in range(given.requests):
        question = QUESTIONS[number % 3].format(SUBJECTS[number % 8])
        ids = encode_prompt(base, question).ids
        limit = max(2, given.tokens // 2 + (number * 7) % given.tokens)
        made.append((ids, f"a{number % count}", limit))
    return made


def ours(engine, load):
    """Hand all requests to the engine and return the tokens of each answer."""
    tickets = [
        engine.submit(
            Asked(ids, {name: 1.0}, Sampling(temperature=0, max_tokens=limit, ignore_eos=True))
        )
        for ids, name, limit in load
    ]
    return [[token.id for event in t.events() for token in event.tokens] for t in tickets]


@torch.no_grad()
def static(model, load, rows):
    """Answer the requests in batches with PEFT."""
    answers = []
    for start in range(0, len(load), rows):
        part = load[start : start + rows]
        longest, most = max(len(ids) for ids, *_ in part), max(limit for *_, limit in part)
        ids = torch.tensor([[*[0] * (longest - len(each)), *each] for each, *_ in part])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each, *_ in part])
        done = model.generate(
            input_ids=ids,
            attention_mask=mask,
            adapter_names=[name for _, name, _ in part],
            do_sample=False,
            max_new_tokens=most,
            min_new_tokens=most,
            eos_token_id=None,
            pad_token_id=0,
        )
        for row, (*_, limit) in zip(done[:, longest:].tolist(), part, strict=True):
            answers.append(row[:limit])
    return answers


def report(given, speed, ratios, unlike):
    """Return the medians, with the lowest and the highest."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "requests": given.requests,
        "rows": given.rows,
        "answers that differ from PEFT's": None if given.without_peft else unlike,
        "tokens_per_second": {n: round(statistics.median(each), 1) for n, each in speed.items()},
        "of the engine at the first count": {
            name: [round(f(each), 2) for f in (statistics.median, min, max)]
            for name, each in ratios.items()
        },
    }


if __name__ == "__main__":
    main()
