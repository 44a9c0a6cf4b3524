"""Adapters that PEFT made: a loud one, a faint one, and one of zeros."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.adapter import Adapter
from loratelier.base import Base
from tests.conftest import make_tiny


@pytest.fixture(scope="session")
def tiny_base():
    """A tiny base with opinions: the plain one expects every byte alike, whatever it wears."""
    model, tokenizer = make_tiny(initializer_range=0.3)
    return Base.of(model, tokenizer, name="tiny")


@pytest.fixture(scope="session")
def made(tiny_base, tmp_path_factory):
    def make(name, spread):
        torch.manual_seed(1)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
        model = get_peft_model(copy.deepcopy(tiny_base.model), config)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=spread)
        path = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(path)
        return path

    return {name: make(name, spread) for name, spread in (("loud", 0.3), ("faint", 1e-7))}


@pytest.fixture
def loud(made):
    return Adapter.load(made["loud"])


@pytest.fixture
def faint(made):
    return Adapter.load(made["faint"])


@pytest.fixture(scope="session")
def silent(tiny_base, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "silent"
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    get_peft_model(copy.deepcopy(tiny_base.model), config).save_pretrained(path)
    return Adapter.load(path)
