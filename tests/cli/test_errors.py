"""Bad input, through the command line: one clear line, status 2, no traceback."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from loratelier import build_corpus
from loratelier.cli import main
from tests.adapter.test_adapter import peft_model


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments, **environment):
    """Run the command line in this process: importing torch anew for each call takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["loratelier", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.dict(os.environ, environment),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            status = 0
        except SystemExit as left:
            status = left.code or 0
    return Done(status, out.getvalue(), err.getvalue())


def refused(result, *named):
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("loratelier: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in named:
        assert word in lines[0]


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.md").write_text(
            f">[!nexus_user] **User** - 01.02.2025 at 10:00\n> Question {number}?\n"
            f"<!-- UID: {number} -->\n\n"
            f">[!nexus_agent] **Assistant** - 01.02.2025 at 10:00\n> Answer {number}.\n"
            f"<!-- UID: {number}a -->\n"
        )
    return folder


def test_corpus_sources_that_are_none(home, tmp_path):
    refused(run("corpus", "build", tmp_path / "nowhere", "-o", tmp_path / "o"), "nowhere")
    (tmp_path / "empty.md").write_text("")
    refused(run("corpus", "build", tmp_path / "empty.md", "-o", tmp_path / "o"), "empty.md")
    (tmp_path / "bare").mkdir()
    refused(run("corpus", "build", tmp_path / "bare", "-o", tmp_path / "o"), "bare")
    assert not (tmp_path / "o").exists()


def test_a_base_that_is_none(home, tmp_path, notes):
    build_corpus(notes).save(tmp_path / "rows")
    train = ("train", "--corpus", tmp_path / "rows", "--name", "x", "--base")
    refused(run(*train, "dmeo"), "dmeo", "Did you mean 'demo'?")
    refused(run(*train, tmp_path / "nothing"), "nothing")


def test_a_recipe_with_a_misspelt_key(home, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("base: demo\ncorpus: rows\nname: x\nlearning_rat: 1e-4\n")
    refused(run("train", recipe), "r.yaml", "learning_rat", "learning_rate")
    refused(run("train", "--corpus", "c", "--base", "demo", "--name", "x", "--set", "rnak=3"),
            "rnak", "rank")  # fmt: skip
    refused(run("train", tmp_path / "none.yaml"), "none.yaml")
    refused(run("train", "--base", "demo"), "--corpus, --name")


def test_an_adapter_for_another_base(home, tmp_path, tiny_base, tiny_base_dir):
    from loratelier.adapter import Adapter, Card
    from loratelier.adapter.card import BaseRef
    from tests.conftest import make_tiny

    card = Card(base=BaseRef(fingerprint=tiny_base.fingerprint, spec="tiny", name="tiny"))
    Adapter.from_peft(peft_model(tiny_base), card, "mine").save(home / "adapters" / "mine")
    other, tokenizer = make_tiny(seed=5)
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    wrong = ("--base", tmp_path / "other")
    refused(run("inspect", "mine", "--prompt", "hello", *wrong), "made for the base tiny")
    refused(run("chat", "mine", "--message", "hello", *wrong), "made for the base tiny")
    refused(run("inspect", "mien", "--prompt", "x"), "mien", "Did you mean 'mine'?")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_the_right_to_write(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(run("adapters", "list", LORATELIER_HOME=str(locked)), "cannot be written")


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    refused(run("adapters", "list", LORATELIER_HOME=str(tmp_path / "file")), "file")
    refused(
        run("bases", "list", LORATELIER_HOME=str(tmp_path / "file" / "deep")), "LORATELIER_HOME"
    )
    if Path("/proc").is_dir():
        refused(run("adapters", "list", LORATELIER_HOME="/proc/loratelier"), "/proc/loratelier")


def test_the_installed_command_answers_as_well(tmp_path):
    command = [Path(sys.executable).parent / "loratelier", "corpus", "build", tmp_path / "nowhere"]
    done = subprocess.run(
        [*command, "-o", tmp_path / "o"], capture_output=True, text=True, check=False
    )
    refused(Done(done.returncode, done.stdout, done.stderr), "nowhere")


def test_unknown_options_are_status_2(home):
    assert run("train", "--no-such-option").returncode == 2
    assert run("no-such-verb").returncode == 2
