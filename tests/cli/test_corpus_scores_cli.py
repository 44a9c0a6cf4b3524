"""``loratelier corpus score`` and ``select`` as a person runs them."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from loratelier.cli import main
from loratelier.corpus import Corpus, build_corpus
from tests.conftest import make_tiny

NOTE = """>[!nexus_user] **User** - t
> Question {number}?
<!-- UID: u{number} -->

>[!nexus_agent] **Assistant** - t
> {answer}
<!-- UID: a{number} -->
"""


@pytest.fixture
def run(monkeypatch, capsys, home):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["loratelier", "corpus", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        seen = capsys.readouterr()
        return left.value.code or 0, seen.out, seen.err

    return call


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "notes"
    folder.mkdir()
    for number in range(12):
        answer = "a" if number == 3 else "The river turns, and turns. " * (number % 5 + 1)
        (folder / f"{number:02}.md").write_text(NOTE.format(number=number, answer=answer))
    return build_corpus(folder, holdout=0).save(folder.parent / "corpus")


@pytest.fixture
def corpus(built, tmp_path):
    return shutil.copytree(built, tmp_path / "corpus")


@pytest.fixture(scope="session")
def other_dir(tmp_path_factory):
    model, tokenizer = make_tiny(seed=9)
    folder = tmp_path_factory.mktemp("bases") / "other"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_score_writes_columns_into_the_corpus(run, corpus, tiny_base_dir):
    status, said, told = run("score", corpus, "--base", tiny_base_dir, "--json")
    assert status == 0, told
    document = json.loads(said)
    assert list(document["metrics"]) == ["ppl", "ifd", "bpb", "s-ifd"]
    ifd = document["metrics"]["ifd"]
    assert (ifd["metric"], ifd["scored"], ifd["unscored"]) == ("ifd-loss-ratio", 11, 1)
    assert (document["rows"], document["passages_kept"]) == (12, 0)
    rows = pq.read_table(corpus / "rows.parquet").to_pylist()
    assert all(row["ppl"] > 0 for row in rows)
    assert sum(row["ifd"] is None for row in rows) == 1
    assert Corpus.load(corpus).hash == document["hash"]
    again = json.loads(run("score", corpus, "--base", tiny_base_dir, "--json")[1])
    assert again["tokens"] == 0
    assert again["passages_kept"] == again["passages"]
    assert again["hash"] == document["hash"]


def test_score_tells_a_person(run, corpus, tiny_base_dir, other_dir):
    words = ("--metrics", "ifd,token-mask", "--mask-above", 3, "--compare", other_dir)
    status, said, told = run("score", corpus, "--base", tiny_base_dir, *words)
    assert status == 0, told
    assert "ifd-loss-ratio" in said
    assert "1 not scored, the answer is one token" in said
    assert "token-mask: above 3" in said
    assert "Rank correlation (Spearman) of tiny and other" in said
    assert "over 11 rows" in said
    (comparison,) = Corpus.load(corpus).report.comparisons
    assert -1 <= comparison.spearman["ifd"] <= 1


def test_score_errors_are_one_line(run, corpus, tiny_base_dir):
    for words, line in (
        (("--metrics", "pppl", "--base", tiny_base_dir), "Did you mean 'ppl'"),
        ((), "need a base"),
        (("--base", tiny_base_dir, "--keep", 2), "keep = 2.0"),
    ):
        status, said, told = run("score", corpus, *words)
        assert (status, said) == (2, "")
        assert line in told
        assert len(told.strip().splitlines()) == 1


def test_select_writes_a_smaller_corpus_and_its_control(run, corpus, tiny_base_dir, tmp_path):
    run("score", corpus, "--base", tiny_base_dir, "--metrics", "ppl,length")
    out, control = tmp_path / "out", tmp_path / "control"
    words = ("--top", 0.25, "--by", "length", "--control", control)
    status, said, told = run("select", corpus, "-o", out, *words, "--json")
    assert status == 0, told
    document = json.loads(said)
    assert (document["selected"], document["rows"], document["candidates"]) == (3, 3, 12)
    assert document["reasons"] == {"not among the highest by length": 9}
    assert document["messages"] == document["messages_in_rows"] + document["dropped"] == 24
    assert Corpus.load(out).hash == document["hash"]
    assert Corpus.load(control).report.train == 3
    assert "3 of 12 training rows chosen" in run("select", corpus, "-o", out, *words, "--force")[1]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "not among the highest by length" in page
    assert "ppl" in page


def test_select_limits(run, corpus, tiny_base_dir, tmp_path):
    run("score", corpus, "--base", tiny_base_dir, "--metrics", "ppl,length")
    rows = pq.read_table(corpus / "rows.parquet").to_pylist()
    cut = sorted(row["ppl"] for row in rows)[6]
    words = ("--max-ppl", cut, "--min", "length=5", "--json")
    document = json.loads(run("select", corpus, "-o", tmp_path / "out", *words)[1])
    kept = [row for row in rows if row["ppl"] <= cut and row["length"] >= 5]
    assert document["train"] == len(kept)
    words = ("--top", 4, "--diverse", "--base", tiny_base_dir)
    status, said, _ = run("select", corpus, "-o", tmp_path / "diverse", *words)
    assert status == 0
    assert "Likeness: hidden states of tiny" in said


def test_select_errors_are_one_line_and_write_nothing(run, corpus, tiny_base_dir, tmp_path):
    out = tmp_path / "out"
    for words, line in (
        (("--top", 0.1, "--by", "ifd"), "has no score 'ifd'"),
        (("--top", 0.1), "by which score"),
        (("--base", tiny_base_dir), "--diverse only"),
        (("--max", "ppl"), "no score with a number"),
        (("--replay-share", 0.1), "Replay needs both"),
    ):
        status, said, told = run("select", corpus, "-o", out, *words)
        assert (status, said) == (2, "")
        assert line in told
        assert len(told.strip().splitlines()) == 1
    assert not out.exists()
    assert run("select", corpus, "-o", corpus, "--top", 2, "--diverse")[0] == 2
