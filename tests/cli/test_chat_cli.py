"""``loratelier chat`` as a person runs it."""

import copy
import io
import json
import sys
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.adapter import Adapter, BaseRef, Card
from loratelier.cli import main


@pytest.fixture
def stored(home, tiny_base, tiny_base_dir, tmp_path):
    """loud fits the tiny base, stranger was made for other weights."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["v_proj", "down_proj"])
    model = get_peft_model(copy.deepcopy(tiny_base.model), config)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "made")
    made = Adapter.load(tmp_path / "made")
    bases = {
        "loud": BaseRef(spec=str(tiny_base_dir), name="tiny", fingerprint=tiny_base.fingerprint),
        "stranger": BaseRef(spec="elsewhere", name="elsewhere", fingerprint="sha256:" + "0" * 64),
    }
    for name, base in bases.items():
        replace(made, card=Card(base=base)).save(home / "adapters" / name)
    return home


@pytest.fixture
def chat(monkeypatch, capsys, tiny_base_dir):
    def call(*arguments, typed=""):
        monkeypatch.setattr(sys, "argv", ["loratelier", "chat", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call


SHORT = ["--max-new-tokens", 8]


def test_messages_make_one_document(chat, stored):
    said = ["--message", "A", "--message", "/off", "--message", "B", "--message", "/both"]
    status, out, err = chat("loud", "--strength", 0.5, "--greedy", *SHORT, *said, "--json")
    assert status == 0
    document = json.loads(out)
    roles = [(turn["role"], turn["adapter"], turn["strength"]) for turn in document["turns"]]
    assert roles == [
        ("user", None, None), ("assistant", "loud", 0.5),
        ("user", None, None), ("assistant", None, None),
    ]  # fmt: skip
    for turn in document["turns"][1::2]:
        assert 1 <= turn["tokens"] <= 8 and turn["seconds"] > 0
    assert document["both"][0]["question"] == "B"
    assert document["both"][0]["base"]["content"] == document["turns"][3]["content"]
    assert document["sampling"]["repetition_penalty"] == 1
    assert "Wearing 'loud' at strength 0.5." in err


def test_piped_lines_are_said_one_by_one_and_errors_do_not_end_it(chat, stored, tiny_base_dir):
    status, out, err = chat(
        "loud", "--greedy", *SHORT, "--json", typed="A\n\n/wear stranger\n/of\nB\n"
    )
    assert status == 0
    document = json.loads(out)
    assert [t["content"] for t in document["turns"] if t["role"] == "user"] == ["A", "B"]
    assert {t["adapter"] for t in document["turns"] if t["role"] == "assistant"} == {"loud"}
    assert "made for the base elsewhere" in err and "Did you mean '/off'?" in err


def test_quit_ends_it_and_a_cut_reply_is_said(chat, stored, tiny_base_dir):
    status, out, _ = chat("--base", tiny_base_dir, "--greedy", *SHORT, typed="A\n/quit\nB\n")
    assert status == 0
    assert out.count("--max-new-tokens") == 1


def test_the_base_alone_with_a_seed(chat, stored, tiny_base_dir):
    given = ["--base", tiny_base_dir, "--seed", 5, *SHORT, "--message", "A", "--json"]
    first, second = (json.loads(chat(*given)[1]) for _ in range(2))
    assert first["turns"][1]["content"] == second["turns"][1]["content"]
    assert first["turns"][1]["adapter"] is None
    assert first["sampling"] == {
        "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lowd"], "Did you mean 'loud'?"),
        (["loud", "--strength", "7"], "from -2 to 4"),
        (["--strength", "1"], "none is named"),
        (["loud", "--greedy", "--seed", "1"], "--seed means nothing"),
        (["loud", "--temperature", "-1"], "temperature"),
        (["loud", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["loud", "--message", "/of"], "Did you mean '/off'?"),
    ],
)
def test_bad_input_is_one_line_and_status_two(chat, stored, arguments, message):
    status, _, err = chat(*arguments)
    assert status == 2
    lines = [line for line in err.splitlines() if "loratelier:" in line]
    assert len(lines) == 1 and message in lines[0]


def test_an_adapter_for_another_base_is_refused_at_the_start(chat, stored, tiny_base_dir):
    status, _, err = chat("stranger", "--base", tiny_base_dir)
    assert status == 2 and "made for the base elsewhere" in err
