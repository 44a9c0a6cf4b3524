"""``loratelier inspect`` as a person runs it."""

import json
import sys
from dataclasses import replace

import pytest

from loratelier.adapter import Adapter, BaseRef, Card
from loratelier.cli import main
from loratelier.scope import inspect_prompt


@pytest.fixture
def stored(home, tiny_base, tiny_base_dir, tmp_path):
    """loud names its base on its card, plain has none, silent has no effect."""
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    made = {"loud": 0.3, "silent": 0.0}
    for name, spread in made.items():
        torch.manual_seed(1)
        config = LoraConfig(r=4, target_modules=["v_proj", "down_proj"])
        model = get_peft_model(copy.deepcopy(tiny_base.model), config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=spread)
        model.save_pretrained(tmp_path / name)
        card = Card(base=BaseRef(spec=str(tiny_base_dir), name="tiny"))
        replace(Adapter.load(tmp_path / name), card=card).save(home / "adapters" / name)
    Adapter.load(tmp_path / "loud").save(home / "adapters" / "plain")
    return home


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["loratelier", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


def test_json_is_the_document_of_the_library(run, stored, tiny_base):
    status, out, _ = run("inspect", "loud", "--prompt", "Hi", "--max-new-tokens", 6, "--json")
    assert status == 0
    document = json.loads(out)
    adapter = Adapter.load(stored / "adapters" / "loud")
    expected = inspect_prompt(tiny_base, adapter, "Hi", max_new_tokens=6).to_json()
    assert document["kl"] == pytest.approx(expected["kl"])
    assert document["parts_at"]["index"] == expected["parts_at"]["index"]
    assert (
        document["continuations"]["adapter"]["ids"] == expected["continuations"]["adapter"]["ids"]
    )


def test_text_and_page(run, stored, tmp_path):
    page = tmp_path / "pages" / "one.html"
    status, out, _ = run(
        "inspect", "loud", "--prompt", "Hi", "--strength", "0.5", "--max-new-tokens", 6,
        "--html", page,
    )  # fmt: skip
    assert status == 0
    assert "Wearing “loud”" in out and "KL(base || adapter)" in out
    assert str(page) in out.replace("\n", "")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_adapter_without_effect_is_named(run, stored):
    status, out, _ = run("inspect", "silent", "--prompt", "Hi", "--max-new-tokens", 3)
    assert status == 0
    assert "This adapter has no effect: its update is zero everywhere" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lowd", "--prompt", "Hi"], "Did you mean 'loud'?"),
        (["plain", "--prompt", "Hi"], "--base"),
        (["loud", "--prompt", ""], "prompt is empty"),
        (["loud", "--prompt", "Hi", "--strength", "nan"], "from -2 to 4"),
        (["loud", "--prompt", "Hi", "--html", "."], ". is a folder"),
    ],
)
def test_bad_input_is_one_line_and_status_two(run, stored, arguments, message):
    status, out, err = run("inspect", *arguments)
    assert status == 2 and out == ""
    lines = [line for line in err.splitlines() if "loratelier:" in line]
    assert len(lines) == 1 and message in err


def test_a_base_may_be_named(run, stored, tiny_base_dir):
    status, out, _ = run(
        "inspect", stored / "adapters" / "plain", "--base", tiny_base_dir, "--prompt", "Hi",
        "--raw", "--continuation", "!", "--max-new-tokens", 2, "--json",
    )  # fmt: skip
    assert status == 0
    document = json.loads(out)
    assert document["text"] == "Hi" and document["continuations"]["given"]["text"] == "!"
