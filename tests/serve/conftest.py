"""Two adapters that PEFT made for the tiny base."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.adapter import Adapter


def make(base, path, seed):
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(copy.deepcopy(base.model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name and seed:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def folders(tiny_base, tmp_path_factory):
    """loud and odd change much; silent is fresh, so it changes nothing."""
    root = tmp_path_factory.mktemp("worn")
    seeds = {"loud": 1, "odd": 2, "silent": 0}
    return {name: make(tiny_base, root / name, seed) for name, seed in seeds.items()}


@pytest.fixture
def stored(folders, home):
    """The same in the store."""
    for name, folder in folders.items():
        Adapter.load(folder).save(home / "adapters" / name)
    return home
