"""The store, through the command line."""

import copy
import json

import pytest
from peft import LoraConfig, get_peft_model

from tests.adapter.test_adapter import peft_model
from tests.cli.test_errors import refused, run


@pytest.fixture
def folder(tiny_base, tmp_path):
    peft_model(tiny_base).save_pretrained(tmp_path / "made")
    return tmp_path / "made"


def test_import_list_show_export_remove(home, folder, tmp_path):
    assert json.loads(run("adapters", "list", "--json").stdout) == []
    done = run("adapters", "import", folder, "--name", "sport", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["proven"] is False
    assert facts["effect"] is True
    (listed,) = json.loads(run("adapters", "list", "--json").stdout)
    assert listed["name"] == "sport"
    assert listed["rank"] == 4
    assert "sport" in run("adapters", "list").stdout
    shown = run("adapters", "show", "sport").stdout
    assert "q_proj, down_proj in layers 0-1" in shown or "down_proj, q_proj in layers 0-1" in shown
    out = run("adapters", "export", "sport", tmp_path / "out", "--json")
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert json.loads(out.stdout)["name"] == "sport"
    refused(run("adapters", "export", "sport", tmp_path / "out"), "exists already")
    refused(run("adapters", "import", folder, "--name", "sport"), "exists already")
    refused(run("adapters", "remove", "sport"), "--yes")
    assert run("adapters", "remove", "sport", "--yes").returncode == 0
    refused(run("adapters", "show", "sport"), "sport")


def test_an_adapter_without_effect_is_named_as_such(home, tiny_base, tmp_path):
    fresh = get_peft_model(
        copy.deepcopy(tiny_base.model), LoraConfig(r=2, target_modules=["q_proj"])
    )
    fresh.save_pretrained(tmp_path / "fresh")
    said = run("adapters", "import", tmp_path / "fresh", "--name", "fresh").stdout
    assert "no effect" in said
    assert "no effect" in run("adapters", "list").stdout
    assert "no effect" in run("adapters", "show", "fresh").stdout
    assert json.loads(run("adapters", "show", "fresh", "--json").stdout)["effect"] is False


def test_a_damaged_adapter_is_listed_as_damaged(home, folder):
    run("adapters", "import", folder, "--name", "sport")
    (home / "adapters" / "sport" / "adapter_model.safetensors").write_bytes(b"x")
    listed = run("adapters", "list")
    assert listed.returncode == 0
    assert "damaged" in listed.stdout
    refused(run("adapters", "show", "sport"), "damaged")


@pytest.mark.parametrize("name", ["../x", "a/b", ".x"])
def test_names_that_are_paths(home, folder, name):
    refused(run("adapters", "import", folder, "--name", name), "no name for an adapter")


def test_verify_says_what_is_whole_and_what_is_not(home_with_demo, folder, tmp_path):
    (folder / "tokenizer.json").write_text("{}")
    said = run("adapters", "import", folder, "--name", "sport").stdout
    assert "never read: README.md" not in said
    assert "never read: tokenizer.json" in said
    done = run("adapters", "verify", "sport", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    assert "'sport' is whole" in run("adapters", "verify", "sport").stdout
    wrong = run("adapters", "verify", "sport", "--base", "demo", "--json")
    assert wrong.returncode == 1
    assert "does not fit" in json.loads(wrong.stdout)["error"]
    (home_with_demo / "adapters" / "sport" / "adapter_model.safetensors").write_bytes(b"x")
    broken = run("adapters", "verify", "sport")
    assert broken.returncode == 1
    assert "damaged" in broken.stdout
    refused(run("adapters", "verify", "spotr"), "Did you mean 'sport'")
