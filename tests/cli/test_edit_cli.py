"""edit and edits, through the command line."""

import json

import pytest

from loratelier.adapter import store
from tests.cli.test_errors import refused, run
from tests.scope.changes import build


@pytest.fixture
def spec(home, tmp_path):
    base = build("llama", hidden_size=64, intermediate_size=128, max_position_embeddings=512)
    folder = tmp_path / "base"
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return str(folder)


def test_an_edit_is_made_listed_and_undone(spec):
    loose = ("--budget", "9", "--norm", "9")
    arguments = ("edit", "none", "--base", spec, "--prompt", "The sky is", "--set", "Z=0.5")
    done = run(*arguments, "--name", "sky", "--json", *loose)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["met"] and abs(facts["goals"][0]["reached"] - 0.5) <= 0.02
    assert facts["adapter"]["digest"] == store.open("sky").digest
    refused(run(*arguments, "--name", "sky", *loose), "--force")
    done = run("edit", "sky", "--base", spec, "--prompt", "Небо", "--set", "!=0.4", "--alone",
               "--name", "nebo", *loose)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Reached" in done.stdout
    assert run("edits", "stack", "sky", "nebo", "--name", "both").returncode == 0
    listed = json.loads(run("edits", "list", "both", "--json").stdout)
    assert [each["name"] for each in listed] == ["sky", "nebo"]
    assert run("edits", "undo", "both", "nebo", "--name", "back").returncode == 0
    assert store.open("back").digest == store.open("sky").digest


def test_a_wish_that_costs_too_much_ends_with_1(spec):
    done = run("edit", "base", "--base", spec, "--prompt", "The sky is", "--set", "Z=0.9",
               "--budget", "1e-6", "--name", "sky")  # fmt: skip
    assert done.returncode == 1
    assert "Not met" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", "x", "--set", "Z"], "is no wish"),
        (["--prompt", "x", "--set", "Z=much"], "is no wish"),
        (["--prompt", "x", "--set", "Z=0.5", "--set", "Z=0.6"], "asked for twice"),
    ],
)
def test_what_makes_no_sense_is_refused(home, arguments, said):
    refused(run("edit", "none", "--base", "nowhere", "--name", "n", *arguments), said)
    refused(run("edit", "none", "--prompt", "x", "--set", "Z=0.5", "--name", "n"), "--base")
