"""Adapters that PEFT made, and PEFT itself as the reference."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from loratelier.adapter import Adapter


@pytest.fixture(scope="session")
def folder(tiny_base, tmp_path_factory):
    """An adapter whose B is not zero, saved by PEFT."""
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    model = get_peft_model(copy.deepcopy(tiny_base.model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("adapters") / "loud"
    model.save_pretrained(path)
    return path


@pytest.fixture
def adapter(folder):
    return Adapter.load(folder)


@pytest.fixture
def peft_model(tiny_base, folder):
    return PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), folder).eval()


@pytest.fixture
def silent(tiny_base, tmp_path):
    """A fresh adapter: B is zero."""
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    get_peft_model(copy.deepcopy(tiny_base.model), config).save_pretrained(tmp_path / "silent")
    return Adapter.load(tmp_path / "silent")
