"""``loratelier reason`` and ``loratelier influence`` as a person runs them."""

import json

from tests.cli.test_inspect_cli import run, stored

__all__ = ["run", "stored"]


def test_reason_prints_one_document(run, stored):
    status, out, _ = run(
        "reason", "loud", "--problems", "order:2", "--prompt", "Why?", "--max-new-tokens", 8,
        "--tests", "early", "--json",
    )  # fmt: skip
    document = json.loads(out)
    assert status == 0
    assert len(document["pairs"]) == 3 and document["after"] == "loud"
    assert document["curves"] == [] or document["curves"][0]["test"] == "early"


def test_reason_says_that_few_problems_say_nothing(run, stored):
    status, out, _ = run(
        "reason", "loud", "--problems", "if-then:2", "--language", "ru", "--max-new-tokens", 8,
        "--tests", "none",
    )  # fmt: skip
    assert status == 0 and "Nothing that was measured stands out from noise" in out


def test_reason_refuses_in_one_line(run, stored):
    for arguments, says in (
        ((), "nothing to think about"),
        (("--problems", "sums"), "There are no problems 'sums'"),
        (("--problems", "order:x"), "'x' is no number"),
        (("--prompt", "Why?", "--tests", "erly"), "Did you mean 'early'?"),
    ):
        status, out, err = run("reason", "loud", *arguments)
        assert (status, out) == (2, "") and says in " ".join(err.split())


def test_influence_refuses_an_adapter_that_names_no_corpus(run, stored, tmp_path):
    from loratelier.corpus import build_corpus
    from tests.scope.test_influence import write_notes

    folder = build_corpus(write_notes(tmp_path / "notes")).save(tmp_path / "rows")
    asked = ("influence", "loud", "--prompt", "Hi", "--corpus", folder)
    status, _, err = run(*asked, "--token", " a")
    assert status == 2 and "names no corpus" in err
    status, _, err = run(*asked)
    assert status == 2 and "Give --token or --answer" in err
