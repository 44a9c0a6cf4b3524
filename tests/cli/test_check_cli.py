"""``loratelier check`` as a person runs it."""

import copy
import json
import sys
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.adapter import Adapter, BaseRef, Card
from loratelier.cli import main

FEW = ("--items", 3)


@pytest.fixture
def stored(home, tiny_base, tiny_base_dir, tmp_path):
    for name, spread in {"loud": 0.5, "silent": 0.0}.items():
        torch.manual_seed(1)
        config = LoraConfig(r=4, target_modules=["v_proj", "down_proj"])
        model = get_peft_model(copy.deepcopy(tiny_base.model), config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=spread)
        model.save_pretrained(tmp_path / name)
        card = Card(base=BaseRef(spec=str(tiny_base_dir), name="tiny"))
        replace(Adapter.load(tmp_path / name), card=card).save(home / "adapters" / name)
    return home / "adapters"


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["loratelier", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


def test_what_fails_ends_with_status_1_and_stands_on_the_card(run, stored):
    (stored / "loud" / "behaviour.yaml").write_text(
        "tests:\n  - {name: a word, prompt: Hi, max_new_tokens: 4, "
        "expect: {contains: [surely-not]}}\n",
        encoding="utf-8",
    )
    status, out, _ = run("check", "loud", "--json", *FEW)
    document = json.loads(out)
    assert status == 1 and not document["passed"]
    failed = {one["name"] for one in document["findings"] if not one["passed"]}
    assert "behaviour" in failed
    card = Adapter.load(stored / "loud").card
    assert card.verdict["passed"] is False
    assert "It failed at strength 1" in (stored / "loud" / "README.md").read_text("utf-8")
    assert (stored / "loud" / "behaviour.yaml").exists()

    status, out, _ = run("check", "silent", "--against", "loud", "--language", "ru", *FEW)
    assert status == 0
    assert "Обычный текст" in out and "every change is exactly zero" in out


def test_scenes_that_cannot_be_read_back_are_said(run, stored, tmp_path):
    scenes = tmp_path / "scenes.yaml"
    scenes.write_text(
        "scenes:\n  - id: rain\n    text: It rains, so the river floods.\n"
        "    nodes: {rain: event, flood: event}\n    relations: [[rain, cause, flood]]\n",
        encoding="utf-8",
    )
    status, out, _ = run("check", "silent", "--meaning", scenes, "--reader", "loud", *FEW, "--json")
    read = next(one for one in json.loads(out)["findings"] if one["name"] == "meaning.read")
    assert status == 0 and read["figure"] == 1
    assert "Too few to say anything" in read["sentence"]["en"]
    control = read["detail"]["control"]
    assert control["f1"] is None and control["unread"][0]["scene"] == "rain"
    status, _, err = run("check", "silent", "--reader", "loud")
    assert status == 2 and "--meaning" in err


def test_wrong_input_is_one_line_and_status_2(run, stored, tmp_path):
    status, _, err = run("check", "silent", "--against", "silent")
    assert status == 2 and "no verdict" in err
    (tmp_path / "t.yaml").write_text("leek: {style: 1}", encoding="utf-8")
    status, _, err = run("check", "silent", "--thresholds", tmp_path / "t.yaml")
    assert status == 2 and "Did you mean 'leak'?" in err
    status, _, err = run("calibrate", "silent")
    assert status == 2 and "--corpus" in err
