"""merge and compare, through the command line."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from loratelier import Adapter, AdapterBank, InputError
from loratelier.adapter import store
from tests.cli.test_errors import refused, run
from tests.compose.adapters import make


@pytest.fixture
def pair(home):
    for seed, name in ((1, "sport"), (2, "poet")):
        make(seed, rank=seed + 1, name=name).save(store.path_of(name))


def test_merge_writes_an_adapter_with_its_parents(pair):
    done = run("merge", "sport=0.5", "poet=-0.5", "--rank", "3", "--name", "both", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    merged = store.open("both")
    assert facts["digest"] == merged.digest
    assert facts["rank"] == merged.rank == 3
    assert facts["truncation_error"] == merged.card.truncation_error > 0
    assert [parent["name"] for parent in merged.card.parents] == ["sport", "poet"]
    assert [parent["weight"] for parent in merged.card.parents] == [0.5, -0.5]
    assert "linear" in run("adapters", "show", "both").stdout
    refused(run("merge", "sport=1", "--name", "both"), "--force")
    done = run("merge", "sport=1", "poet=1", "--method", "ties", "--name", "both", "--force")
    assert "ties" in done.stdout
    assert "gauge" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sport", "--name", "x"], "sport=1"),
        (["sport=many", "--name", "x"], "'many'"),
        (["sport=nan", "--name", "x"], "'nan'"),
        (["spot=1", "--name", "x"], "Did you mean 'sport'"),
        (["sport=1", "sport=2", "--name", "x"], "given twice"),
        (["sport=1", "poet=1", "--name", "x", "--method", "tis"], "Did you mean 'ties'"),
        (["sport=1", "poet=1", "--name", "a/b"], "no name"),
        (["sport=1", "poet=1", "--name", "x", "--density", "0.5"], "linear has no density"),
    ],
)
def test_a_merge_that_makes_no_sense_is_refused(pair, arguments, said):
    refused(run("merge", *arguments), said)
    with pytest.raises(InputError):
        store.require_stored("x")


def test_compare_says_what_to_do(pair, tmp_path):
    done = run("compare", "sport", "poet", "--json", "--picture", tmp_path / "conflict.svg")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["advice"]["way"] == "merge"
    assert (tmp_path / "conflict.svg").read_text(encoding="utf-8").startswith("<svg")
    said = run("compare", "sport", "poet", "--sites", tmp_path / "sites.svg", "--language", "ru")
    assert found["advice"]["sentence"] in said.stdout.replace("\n", " ")
    assert "по местам" in (tmp_path / "sites.svg").read_text(encoding="utf-8")
    refused(run("compare", "sport"), "Give two")
    refused(run("compare", "sport", "poet", "--base", "demo"), "--held-out")
    refused(run("compare", "sport", "poet", "--held-out", "other=x"), "NAME=CORPUS")


def test_an_adapter_is_exported_as_a_whole_model(pair, tiny_base, tiny_base_dir, tmp_path):
    folder = tmp_path / "whole"
    done = run("adapters", "export", "sport", folder, "--merged", "--base", tiny_base_dir, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["reloaded"] < 1e-4 and facts["worn"] < 1e-4 and facts["strength"] == 1
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([tiny_base.tokenizer("Река and river")["input_ids"]])
    with AdapterBank(tiny_base.model) as bank:
        bank.add("a", store.open("sport"))
        with torch.no_grad(), bank.activate("a"):
            wanted = tiny_base.model(ids).logits
    with torch.no_grad():
        assert (model(ids).logits - wanted).abs().max() < 1e-4
    refused(run("adapters", "export", "sport", folder, "--merged", "--base", tiny_base_dir), "exis")
    refused(run("adapters", "export", "sport", tmp_path / "x", "--base", "demo"), "--merged")


def test_a_merge_is_written_into_its_base(pair, tiny_base_dir, tmp_path):
    whole = tmp_path / "whole"
    both = ("merge", "sport=0.5", "poet=0.5", "--name", "both", "--and-unload", whole)
    refused(run(*both), "--base")
    done = run(*both, "--base", tiny_base_dir)
    assert done.returncode == 0, done.stderr
    origin = json.loads((whole / "loratelier.json").read_text(encoding="utf-8"))
    assert origin["adapters"][0]["digest"] == store.open("both").digest


def test_the_store_keeps_what_was_checked(pair):
    run("merge", "sport=0.5", "poet=0.5", "--name", "both")
    names = [check["name"] for check in Adapter.load(store.path_of("both")).card.merge["checks"]]
    assert names == ["identity", "weights", "order", "gauge", "stored"]
