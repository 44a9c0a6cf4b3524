"""How much faster rows are scored here than one at a time, and whether the numbers are the same.

Run::

    python bench/score.py [--corpus DIR] [--rows 8] [--join 1] [--rounds 2] [--threads N]
    [--ways ours,shared,apart]

The same rows with the demo base three ways, block by block in turn, in one process, nothing cached:

- ours: ``score_rows`` with ppl, ifd, bpb, s-ifd.
- shared: one row and one answer at a time with transformers; the pass with the prompt and the one
  without are made once an answer and shared by all four scores. The strictest peer.
- apart: the same, but each score makes the passes that it needs, as one script a score does.

``--join N`` lays N conversations end to end: chats as long as people have them, not the vault's one
to three exchanges.
"""

import argparse
import json
import os
import tempfile
from itertools import product
from time import perf_counter, process_time

import numpy as np
import torch
from torch.nn import functional as F

from loratelier.base import load_base
from loratelier.corpus import Corpus, build_corpus
from loratelier.corpus.score import score_rows
from loratelier.demo import vault

METRICS = ("ppl", "ifd", "bpb", "s-ifd")


class OneByOne:
    """Scores as a straightforward script makes them: full logits, one sequence at a time."""

    def __init__(self, base, share):
        self.base = base
        self.share = share
        self.known = {}

    def losses(self, ids):
        with torch.no_grad():
            logits = self.base.model(input_ids=torch.tensor([ids])).logits[0, :-1]
            return F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").numpy()

    def answers(self, row):
        """Yield ids of prompt and answer, the answer's ids, and its bytes."""
        tokenizer, messages = self.base.tokenizer, row["messages"]
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = tokenizer.apply_chat_template(
                    messages[:index], tokenize=False, add_generation_prompt=True
                )
                before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
                both = tokenizer(prompt + message["content"], add_special_tokens=False)["input_ids"]
                yield both, both[len(before) :], len(message["content"].encode())

    def run(self, ids, keep):
        key = (tuple(ids), keep)
        if key in self.known and self.share:
            return self.known[key]
        self.known[key] = self.losses(ids)[-keep:]
        return self.known[key]

    def given(self, row):
        return np.concatenate([self.run(both, len(own)) for both, own, _ in self.answers(row)])

    def pair(self, row):
        given = [self.run(both, len(own))[1:] for both, own, _ in self.answers(row)]
        alone = [self.run(own, len(own) - 1) for _, own, _ in self.answers(row)]
        return np.concatenate(given), np.concatenate(alone)

    def score(self, rows):
        self.known = {}
        ppl = [float(np.exp(self.given(row).mean())) for row in rows]
        size = [sum(size for *_, size in self.answers(row)) for row in rows]
        bits = [float(self.given(row).sum() / np.log(2)) for row in rows]
        ifd = [float(given.mean() / alone.mean()) for given, alone in map(self.pair, rows)]
        moved = [given - alone for given, alone in map(self.pair, rows)]
        cut = np.quantile(np.abs(np.concatenate(moved)), 0.5)
        return {
            "ppl": ppl,
            "ifd": ifd,
            "bpb": [bit / byte for bit, byte in zip(bits, size, strict=True)],
            "s-ifd": [float(np.exp(move[np.abs(move) > cut].mean())) for move in moved],
        }


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--corpus", help="a corpus folder; without it the sample vault")
    options.add_argument("--rows", type=int, default=8, help="evenly spaced over the corpus")
    options.add_argument("--join", type=int, default=1, help="conversations laid end to end")
    options.add_argument("--rounds", type=int, default=2, help="blocks that take turns")
    options.add_argument("--threads", type=int)
    options.add_argument("--ways", default="ours,shared,apart")
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    corpus = Corpus.load(given.corpus) if given.corpus else build_corpus(vault())
    rows = joined(corpus.rows.to_pylist(), given.join)
    rows = rows[:: max(1, len(rows) // given.rows)][: given.rows]
    base = load_base("demo", dtype="float32", device="cpu")

    def ours(chosen):
        with tempfile.TemporaryDirectory() as home:
            os.environ["LORATELIER_HOME"] = home
            return score_rows(chosen, base, METRICS).values

    ways = {
        "ours": ours,
        "shared": OneByOne(base, share=True).score,
        "apart": OneByOne(base, share=False).score,
    }
    ways = {name: ways[name] for name in given.ways.split(",")}
    short = [{"messages": [{"role": r, "content": "Warm up."} for r in ("user", "assistant")]}]
    for way in ways.values():
        way(short)
    seconds, busy = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    apart = dict.fromkeys(METRICS, 0.0)
    for block in (rows[number :: given.rounds] for number in range(given.rounds)):
        found = {}
        for name, way in ways.items():
            began, worked = perf_counter(), process_time()
            found[name] = way(block)
            seconds[name] += perf_counter() - began
            busy[name] += process_time() - worked
        for metric, name in product(METRICS, ways):
            difference = np.subtract(found["ours"][metric], found[name][metric])
            apart[metric] = max(apart[metric], float(np.abs(difference).max()))
    print(
        json.dumps(
            {
                "rows": len(rows),
                "answers": sum(m["role"] == "assistant" for row in rows for m in row["messages"]),
                "threads": torch.get_num_threads(),
                "seconds": seconds,
                "cpu_seconds": busy,
                "times_faster_than": {
                    name: seconds[name] / seconds["ours"] for name in ways if name != "ours"
                },
                "times_faster_than_in_cpu_time": {
                    name: busy[name] / busy["ours"] for name in ways if name != "ours"
                },
                "largest_difference": apart,
            },
            indent=1,
        )
    )


def joined(rows, count):
    """Lay every ``count`` conversations end to end."""
    return [
        {"messages": [m for row in rows[begin : begin + count] for m in row["messages"]]}
        for begin in range(0, len(rows) - count + 1, count)
    ]


if __name__ == "__main__":
    main()
