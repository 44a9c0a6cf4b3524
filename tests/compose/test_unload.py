"""A model folder with adapters written into it."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from loratelier import AdapterBank, InputError
from loratelier.base import Base
from loratelier.compose import CheckFailed, merge_and_unload, unload
from tests.compose.adapters import DOWN, make
from tests.conftest import make_tiny


def test_transformers_alone_says_what_the_adapters_said(tiny_base, tmp_path):
    a, b = make(1, scale=0.5), make(2, rank=2, sites=[DOWN], scale=0.5)
    ids = torch.tensor([tiny_base.tokenizer("Река and river")["input_ids"]])
    before = {k: v.clone() for k, v in tiny_base.model.state_dict().items()}
    bank = AdapterBank(tiny_base.model)
    bank.add("a", a)
    bank.add("b", b)
    with torch.no_grad(), bank.activate({"a": 0.7, "b": -0.4}):
        wanted = tiny_base.model(ids).logits
    done = merge_and_unload(tiny_base, {a: 0.7, b: -0.4}, tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    with torch.no_grad():
        assert (model(ids).logits - wanted).abs().max() < 1e-4
        assert (tiny_base.model(ids).logits - wanted).abs().max() > 1e-3
    assert all(torch.equal(v, before[k]) for k, v in tiny_base.model.state_dict().items())
    assert done.worn < 1e-4
    assert done.reloaded < 1e-4
    origin = json.loads((tmp_path / "whole" / "loratelier.json").read_text(encoding="utf-8"))
    assert [each["weight"] for each in origin["adapters"]] == [0.7, -0.4]
    with pytest.raises(InputError, match="exists already"):
        merge_and_unload(tiny_base, {a: 1.0}, tmp_path / "whole")
    merge_and_unload(tiny_base, {a: 1.0}, tmp_path / "whole", replace=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="would be deleted"):
        merge_and_unload(tiny_base, {a: 1.0}, tmp_path / "mine", replace=True)


def test_a_folder_that_reads_back_otherwise_is_not_left(tiny_base, tmp_path, monkeypatch):
    other = Base.of(*make_tiny(seed=1), name="other")
    monkeypatch.setattr(unload, "load_base", lambda *_, **__: other)
    with pytest.raises(CheckFailed, match="read back"):
        merge_and_unload(tiny_base, {make(1): 1.0}, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []
