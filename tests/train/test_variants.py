"""Every kind of LoRA: it learns, it lands as PEFT reads it, and the base is as it was."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.base import with_tokens
from loratelier.kit.errors import InputError
from loratelier.train import load_recipe, train
from loratelier.train import loop as loop_module
from tests.conftest import our_hooks

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = {
    "patterns": {
        "rank_pattern": {"q": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"o_proj": 3},
    },
    "rslora": {"scaling": "rslora"},
    "dora": {"dora": True},
    "pissa": {"init": "pissa", "learning_rate": 5e-3},
    "pissa with patterns and rslora": {
        "init": "pissa",
        "scaling": "rslora",
        "rank_pattern": {"q": 2},
        "alpha_pattern": {"down": 5},
        "layers": "1",
        "learning_rate": 5e-3,
    },
    "olora": {"init": "olora", "learning_rate": 5e-3},
    "olora with dropout": {"init": "olora", "learning_rate": 5e-3, "dropout": 0.1},
    "orthogonal": {"init": "orthogonal"},
    "eva": {"init": "eva"},
    "dropout": {"dropout": 0.2},
    "dora with dropout": {"dora": True, "dropout": 0.1},
    "lora plus": {"lora_plus": 8, "learning_rate": 4e-3},
    "embedding": {"targets": "q,embed"},
    "head": {"targets": "q,head"},
    "ends and one layer": {"targets": "all,embed,head", "layers": "1"},
    "head from pissa": {"targets": "v,head", "init": "pissa", "learning_rate": 5e-3},
    "head from olora": {"targets": "v,head", "init": "olora", "learning_rate": 5e-3},
    "invocation": {"invocation": "<|im_start|>assistant"},
    "invocation from pissa with dropout": {
        "invocation": "<|im_start|>assistant",
        "init": "pissa",
        "learning_rate": 5e-3,
        "dropout": 0.1,
    },
    "new token": {"new_tokens": "moves"},
    "two new tokens, dora": {"new_tokens": ["moves", "thing"], "dora": True, "targets": "q,v"},
}


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)


def again(base):
    """The base as it is loaded anew."""
    return replace(base, model=copy.deepcopy(base.model))


def read_by_peft(base, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval()


def spoken(base, text="<|im_start|>user\nWhat is thing 3?<|im_end|>\n<|im_start|>assistant\nTurn"):
    return torch.tensor([base.tokenizer(text)["input_ids"]])


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_learns_and_is_read_alike_by_peft_and_by_the_bank(kind, tiny_base, recipe, home):
    before, words = snapshot(tiny_base.model), len(tiny_base.tokenizer)
    made = train(recipe(**KINDS[kind]), base=tiny_base)
    figures = made.card.metrics
    assert figures["held_out_nll"] < figures["held_out_nll_base"] * 0.97
    assert same(tiny_base.model, before)
    assert len(tiny_base.tokenizer) == words
    assert not our_hooks(tiny_base.model)

    loaded = Adapter.load(store.path_of("mine"))
    assert loaded == made
    base = with_tokens(again(tiny_base), loaded.card.tokens)
    ids = spoken(base)
    bank = AdapterBank(base.model)
    bank.add("it", store.path_of("mine"))
    bare = logits(base.model, ids)
    with bank.activate("it"):
        ours = logits(base.model, ids)
    theirs = logits(read_by_peft(base, store.path_of("mine")), ids)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - bare).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_of_a_kind_goes_on_exactly(kind, tiny_base, recipe, home, monkeypatch):
    whole = train(recipe(name="whole", **KINDS[kind]), base=tiny_base)
    real, steps = loop_module._step, 0

    def stopping(*args):
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop_module, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(name="halves", save_seconds=0, **KINDS[kind]), base=tiny_base)
    monkeypatch.setattr(loop_module, "_step", real)
    resumed = train(
        recipe(name="halves", save_seconds=0, **KINDS[kind]), base=tiny_base, resume=True
    )
    assert resumed.card.metrics["losses"] == whole.card.metrics["losses"]
    assert resumed.digest == whole.digest
