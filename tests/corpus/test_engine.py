"""The same corpus wherever the work was done."""

import sys
from functools import partial
from pathlib import Path

import pytest

from loratelier.base import load_base
from loratelier.corpus import build_corpus
from loratelier.corpus.engine import Local, engine_of
from loratelier.corpus.hygiene import Hygiene
from loratelier.corpus.score import score_rows
from loratelier.kit.errors import InputError
from tests.conftest import make_tiny

EXAMPLES = Path(__file__).parents[2] / "examples"
MIXED = "Привет, это обычная строка о жизни и о море."


@pytest.fixture(scope="module")
def ray():
    pytest.importorskip("ray")
    with engine_of("ray") as engine:
        yield engine


@pytest.fixture
def sources(tmp_path):
    """The sample vault, a damaged note, a broken export, scenes, private data, near copies."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "damaged.md").write_text(MIXED.encode().decode("cp1251", "replace"), "utf-8")
    (folder / "broken.json").write_text(
        '[{"title": "a", "mapping": {}}, {"mapping": 3}, {"a"', "utf-8"
    )
    same = "One and the same long line that says how the tide comes in at the mill. " * 5
    (folder / "one.txt").write_text(f"{same}\n\nWrite to anna@example.org.\n", "utf-8")
    (folder / "two.txt").write_text(f"{same}\n\nWrite to otto@example.org.\n", "utf-8")
    return [folder, EXAMPLES / "vault", EXAMPLES / "scenes"]


def squared(number):
    if number == 7:
        raise InputError("seven is refused", "Leave it out")
    return number * number


def make_square():
    return squared


def test_results_come_in_the_items_order_and_a_refusal_comes_in_its_turn(ray):
    numbers = [n for n in range(300) if n != 7]
    assert list(ray.map(make_square, numbers)) == [n * n for n in numbers]
    assert list(ray.map(make_square, [])) == []
    for engine in (ray, Local()):
        results = engine.map(make_square, range(20))
        assert [next(results) for _ in range(7)] == [n * n for n in range(7)]
        with pytest.raises(InputError, match="seven is refused"):
            next(results)


@pytest.mark.parametrize("format", ["chat", "markdown"])
def test_ray_makes_the_same_corpus(ray, sources, format):
    build = partial(
        build_corpus,
        sources,
        format=format,
        hygiene=Hygiene(mask=frozenset({"pii"}), near_duplicates=0.7, strip_boilerplate=True),
    )
    here, there = build(), build(engine="ray")
    assert there.rows.equals(here.rows)
    assert there.dropped.equals(here.dropped)
    assert there.report == here.report
    assert there.hash == here.hash
    assert here.report.rows > 60


def test_ray_gives_the_same_scores(ray, tmp_path, monkeypatch):
    model, tokenizer = make_tiny()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = load_base(tmp_path / "base")
    rows = build_corpus(EXAMPLES / "vault").rows.slice(0, 12).to_pylist()
    found = []
    for engine in ("local", "ray"):
        monkeypatch.setenv("LORATELIER_HOME", str(tmp_path / engine))  # nothing is known yet
        found.append(score_rows(rows, base, "ppl,ifd,s-ifd,bpb,token-mask", engine=engine))
    here, there = found
    assert there.read == here.read > 0
    for column in ("ppl", "ifd", "s-ifd", "bpb"):
        assert there.values[column] == pytest.approx(here.values[column], rel=1e-4)
    hard = [[mask.hard for masks in one.values["token-mask"] for mask in masks] for one in found]
    assert hard[0] == hard[1]


def test_an_engine_that_is_not_there_is_one_line(monkeypatch, sources):
    with pytest.raises(InputError, match="'rya' is unknown.*ray"):
        build_corpus(sources, engine="rya")
    with pytest.raises(InputError, match="the engine is local"):
        build_corpus(sources, ray_address="somewhere:6379")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="not installed"):
        build_corpus(sources, engine="ray")
