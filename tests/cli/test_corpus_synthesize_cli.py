"""``loratelier corpus synthesize`` as a person runs it, against a server on this machine."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loratelier.cli import main
from loratelier.corpus import Corpus, build_corpus
from tests.corpus.protocol_server import KEY, Server, status
from tests.corpus.test_synthesize import reworded, write_many

ROWS = 16


@pytest.fixture
def run(monkeypatch, capsys, home):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def call(*words):
        words = ["loratelier", "corpus", "synthesize", *map(str, words)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as left:
            main()
        seen = capsys.readouterr()
        return left.value.code or 0, seen.out, seen.err

    return call


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    return build_corpus(write_many(folder / "notes", ROWS), holdout=0).save(folder / "corpus")


@pytest.fixture
def server():
    with Server(reworded) as running:
        yield running


def to(server, **more):
    options = {"task": "rephrase", "api": server.url, "model": "writer"} | more
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def test_a_dry_run_says_the_price_and_asks_for_nothing(run, built, server, tmp_path):
    prices = {"price-in": 3, "price-out": 15}
    words = [built, "--out", tmp_path / "out", *to(server, **prices), "--dry-run"]
    code, said, _ = run(*words)
    assert code == 0
    assert f"{ROWS} requests" in said
    assert "by the given prices" in said
    code, said, _ = run(*words, "--json")
    estimate = json.loads(said)["estimate"]
    tokens = 3 * estimate["prompt_tokens"] + 15 * estimate["answer_tokens"]
    assert estimate["price"] == pytest.approx(tokens / 1e6)
    assert not server.seen
    assert list(tmp_path.iterdir()) == [tmp_path / "home"] or not list(tmp_path.iterdir())


def test_nothing_is_paid_for_without_a_yes(run, built, server, tmp_path, monkeypatch):
    words = [built, "--out", tmp_path / "out", *to(server)]
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        code, _, told = run(*words)
    assert code == 2
    assert "--yes" in told
    assert "To be asked for, estimated: 16 requests" in told
    assert not server.seen


def test_a_person_says_yes_or_no(run, built, server, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    said = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda *_, **__: next(said))
    words = [built, "--out", tmp_path / "out", *to(server)]
    assert run(*words)[0] == 2
    assert not server.seen
    assert run(*words)[0] == 0
    assert len(server.seen) == ROWS


def test_json_is_one_document_with_the_cost_before_and_after(run, built, server, tmp_path):
    out = tmp_path / "out"
    code, said, _ = run(built, "-o", out, *to(server), "--yes", "--json")
    document = json.loads(said)
    assert code == 0
    assert (document["rows"], document["train"], document["failed"]) == (ROWS, ROWS, 0)
    assert document["estimate"]["requests"] == document["this_run"]["requests"] == ROWS
    assert document["this_run"] == document["in_all"]
    assert document["this_run"]["estimated"] == 0
    assert Corpus.load(out).hash == document["hash"]
    assert not out.with_name("out.answers.sqlite").exists()


def test_a_wrong_key_is_one_line(run, built, tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "sk-wrong-1234567890")
    with Server(reworded, key=KEY) as server:
        code, said, told = run(
            built, "-o", tmp_path / "out", *to(server, **{"key-env": "THE_KEY"}), "--yes"
        )
    assert code == 2
    lines = [line for line in told.splitlines() if line.startswith("loratelier:")]
    assert len(lines) == 1
    assert "401: the key is wrong or missing" in lines[0]
    assert "THE_KEY" in lines[0]
    assert "sk-wrong" not in said + told
    assert not (tmp_path / "out").exists()


def test_what_got_no_answer_is_asked_for_again_alone(run, built, server, tmp_path):
    out = tmp_path / "out"
    words = [built, "-o", out, *to(server, tries=1, parallel=1), "--yes"]
    server.faults.extend([None, status(500), None])
    code, said, _ = run(*words)
    assert code == 0
    assert "1 requests got no answer" in said
    assert Corpus.load(out).report.dropped == 2
    code, said, told = run(*words, "--force")
    assert code == 0
    assert "15 of 16 requests are answered already" in told
    assert len(server.seen) == ROWS + 1
    assert Corpus.load(out).report.dropped == 0
    assert not out.with_name("out.answers.sqlite").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--task", "rephrase"], "Nobody to ask was named"),
        (["--task", "rephrse", "--base", "demo"], "Did you mean 'rephrase'"),
        (["--task", "qa", "--base", "demo", "--role", "a poet"], "plays no role"),
        (["--task", "qa", "--base", "demo", "--tries", "3"], "--tries is for --api"),
        (["--task", "qa", "--base", "demo", "--api", "https://a/v1"], "two ways to the same"),
        (["--task", "qa", "--api", "https://a/v1", "--model", "m", "--seed", "1"], "for --base"),
        (["--task", "qa", "--price-in", "1", "--base", "demo"], "two parts"),
        (["--task", "qa", "--api", "https://a/v1", "--model", "m", "--parallel", "0"], "parallel"),
    ],
)
def test_what_does_not_go_together_is_one_line(run, built, tmp_path, words, told):
    code, _, said = run(built, "-o", tmp_path / "out", *words)
    assert code == 2
    assert told in said


# Runs that are ended from outside


def process(built, out, server, home):
    code = "from loratelier.cli import main; main()"
    words = ["corpus", "synthesize", built, "-o", out, *to(server, parallel=2), "--yes", "--json"]
    environment = os.environ | {"LORATELIER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("OPENAI_API_KEY", None)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts us in its background lets us, and ours, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def stop_in_the_middle(process, server, number):
    """Send a signal when several answers are on disk and others on their way."""
    until = time.monotonic() + 120
    while len(server.seen) < 7:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(60)


def answers_in(store):
    with sqlite3.connect(store) as file:
        return file.execute("SELECT count(*) FROM answers").fetchone()[0]


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """The hash of the corpus that an uninterrupted run makes."""
    folder = tmp_path_factory.mktemp("whole")
    with Server(reworded) as server:
        ended = process(built, folder / "out", server, folder)
        said, told = ended.communicate(timeout=120)
    assert ended.returncode == 0, told
    return json.loads(said)["hash"]


def test_a_killed_run_goes_on_without_asking_twice(built, whole, server, tmp_path):
    out, store = tmp_path / "out", tmp_path / "out.answers.sqlite"
    server.wait = 0.25
    first = process(built, out, server, tmp_path)
    stop_in_the_middle(first, server, signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    assert not out.exists()
    before, kept = len(server.seen), answers_in(store)
    assert before - 2 <= kept <= before  # at most those two were on their way
    assert kept >= 5
    second = process(built, out, server, tmp_path)
    said, told = second.communicate(timeout=120)
    assert second.returncode == 0, told
    assert f"{kept} of {ROWS} requests are answered already" in told
    assert len(server.seen) - before == ROWS - kept
    document = json.loads(said)
    assert document["this_run"]["requests"] == ROWS - kept
    assert document["in_all"]["requests"] == ROWS
    assert document["hash"] == whole
    assert Corpus.load(out).hash == whole
    assert not store.exists()


def test_an_interrupted_run_keeps_what_was_on_its_way(built, whole, server, tmp_path):
    out, store = tmp_path / "out", tmp_path / "out.answers.sqlite"
    server.wait = 0.25
    first = process(built, out, server, tmp_path)
    stop_in_the_middle(first, server, signal.SIGINT)
    assert first.returncode == 130
    before = len(server.seen)
    assert answers_in(store) == before
    second = process(built, out, server, tmp_path)
    said, told = second.communicate(timeout=120)
    assert second.returncode == 0, told
    assert len(server.seen) == ROWS
    assert json.loads(said)["hash"] == whole
