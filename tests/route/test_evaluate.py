"""The table of ways to choose."""

import math

import pytest

from loratelier import InputError
from loratelier.route.evaluate import evaluate
from loratelier.route.policy import Policy, read_policy
from loratelier.route.rivals import bm25
from tests.compose.adapters import make
from tests.route.adapters import ASKED, write_policy


def policy_of(path):
    return read_policy(path, path.read_bytes())


def test_bm25_is_its_formula():
    score = bm25({"a": ["red fox", "red red hen"], "b": ["blue fox"]})
    # N = 3 rows, 'red' in 2 of them, mean length 7/3; the best row of a is 'red red hen'.
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    slack = 1.5 * (0.25 + 0.75 * 3 / (7 / 3))
    assert score("red")["a"] == pytest.approx(idf * 2 * 2.5 / (2 + slack))
    assert score("red")["b"] == 0


def test_the_table_holds_the_stages_against_chance_and_the_oracle(corpora, tiny_base):
    adapters = {name: make(n, name="x") for n, name in enumerate(ASKED)}
    found = evaluate(policy_of(write_policy(corpora)), base=tiny_base, adapters=adapters, most=3)
    lines = {line.method: line for line in found.lines}
    assert set(lines) == {
        "random", "keywords", "BM25", "centroid, wording", "centroid, hidden states", "Arrow",
        "oracle",
    }  # fmt: skip
    assert lines["centroid, wording"].top1 > 0.8
    assert lines["BM25"].top1 > 0.8
    assert lines["centroid, wording"].auroc > 0.8
    assert (lines["keywords"].top1, lines["keywords"].share) == (0, 0)
    for line in found.lines:
        assert line.top1 <= line.top3
        assert line.share is None or line.share <= 1
        assert line.masked is None or line.masked <= 1


def test_one_adapter_is_nothing_to_choose_from():
    with pytest.raises(InputError, match="nothing to choose"):
        evaluate(Policy())
