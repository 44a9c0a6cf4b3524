"""``loratelier inspect`` as a person runs it."""

import json
import re
import sys
from dataclasses import replace
from xml.etree import ElementTree

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


def test_pictures_are_written_as_files_that_open_by_themselves(run, stored, tmp_path):
    folder = tmp_path / "pictures"
    status, out, _ = run(
        "inspect", "loud", "--prompt", "Hi", "--max-new-tokens", 3, "--svg", folder,
        "--language", "ru",
    )  # fmt: skip
    assert status == 0
    names = {path.stem for path in folder.iterdir()}
    assert names == {"place", "sites", "lens", "heads", "looks"}
    for path in folder.iterdir():
        drawn = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
        assert drawn.get("lang") == "ru"
        told = drawn.find("{http://www.w3.org/2000/svg}desc").text
        assert re.search("[а-я]{4}", told)
        assert str(path) in out


def test_words_are_followed_and_what_is_not_looked_at_is_null(run, stored):
    status, out, _ = run(
        "inspect", "loud", "--prompt", "Hi", "--max-new-tokens", 3, "--look", "weights",
        "--keywords", "sea, море", "--json",
    )  # fmt: skip
    assert status == 0
    document = json.loads(out)
    assert [word["word"] for word in document["keywords"]] == ["sea", "море"]
    assert document["attention"] is document["lens"] is document["sites"] is None
    assert len(document["weights"]["sites"]) == 4


def test_many_prompts_and_two_adapters(run, stored, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Why?\n\nКто там?\n", encoding="utf-8")
    status, out, _ = run("inspect", "loud", "--prompts", path, "--before", "silent", "--json")
    assert status == 0
    document = json.loads(out)
    assert (len(document["texts"]), document["before"]) == (2, "silent")
    assert document["kl"] > 0
    status, out, _ = run("inspect", "loud", "--prompts", path)
    assert status == 0
    assert "Over 2 texts" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give one of --prompt, --prompts and --corpus"),
        (("--prompt", "a", "--corpus", "b"), "Give one of --prompt, --prompts and --corpus"),
        (("--prompt", "a", "--look", "atention"), "attention"),
        (("--prompt", "a", "--language", "de"), "It is en or ru"),
        (("--prompts", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--corpus", "c", "--html", "x.html"), "--html is for another kind of reading"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(run, stored, arguments, said):
    status, _, err = run("inspect", "loud", *arguments)
    assert status == 2
    assert said in " ".join(err.split())
