"""Every kind of LoRA: it learns, it lands as PEFT reads it, and the base is as it was."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.base import load_base, with_tokens
from loratelier.corpus import Corpus
from loratelier.train import load_recipe, train
from loratelier.train import loop as loop_module
from loratelier.train.invocation import invoked
from loratelier.train.rows import examples, split
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


QUANTISED = {
    "plain": {},
    "dora": {"dora": True},
    "eva": {"init": "eva"},
    "dropout": {"dropout": 0.1},
    "invocation": {"invocation": "<|im_start|>assistant"},
    "new token": {"new_tokens": "moves"},
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_over_four_bits_a_kind_learns_and_is_worn_by_the_base_as_it_is(
    kind, tiny_base_dir, recipe, home
):
    """The card says what the adapter does on the unquantised base, where it was never trained."""
    given = recipe(base=str(tiny_base_dir), quantization="nf4", dtype="float32", **QUANTISED[kind])
    made = train(given)
    figures = made.card.metrics
    assert figures["held_out_nll"] < figures["held_out_nll_base"] * 0.97
    whole = load_base(tiny_base_dir)
    assert made.fits(with_tokens(again(whole), made.card.tokens))
    stated = figures["unquantised"]
    assert stated["held_out_nll"] < stated["held_out_nll_base"] * 0.97
    assert stated["held_out_nll"] == pytest.approx(figures["held_out_nll"], rel=0.1)
    if kind == "invocation":
        assert stated["general_bpb"] == stated["general_bpb_base"]
        assert figures["general_bpb_change"] == 0

    # The same figures by PEFT alone, on the unquantised base.
    knowing = with_tokens(whole, made.card.tokens)
    model = read_by_peft(knowing, store.path_of("mine"))
    corpus = Corpus.load(given.corpus)
    rows = examples(knowing, corpus, given)
    if kind == "invocation":
        rows = invoked(rows, tuple(made.settings.invocation), given.invocation)
    _, withheld = split(corpus, rows, given)
    nats = [nll_of(model, row) for row in withheld]
    assert stated["held_out_nll"] == pytest.approx(torch.cat(nats).mean().item(), rel=1e-4)


def test_a_new_token_is_said_by_a_base_in_four_bits(tiny_base_dir, recipe, home):
    given = {"base": str(tiny_base_dir), "quantization": "nf4", "dtype": "float32"}
    made = train(recipe(**given, new_tokens="moves", epochs=6, holdout=0))
    base = with_tokens(load_base(tiny_base_dir, quantization="nf4"), made.card.tokens)
    prompt = spoken(
        base, "<|im_start|>user\nThing 3?<|im_end|>\n<|im_start|>assistant\nTurn it over. Now it "
    )
    with AdapterBank(base.model) as bank:
        bank.add("it", made)
        with bank.activate("it"):
            out = base.model.generate(input_ids=prompt, max_new_tokens=1, do_sample=False)
    assert base.tokenizer.decode(out[0, prompt.shape[1] :]) == "moves"


@torch.no_grad()
def nll_of(model, row):
    """-log p of a row's targets, by a model that reads it alone."""
    ids = torch.tensor([row.ids])
    likely = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    nats = -likely.gather(1, ids[0, 1:, None])[:, 0]
    return nats[torch.tensor(row.learned[1:])]


def test_a_base_in_four_bits_takes_a_quarter_at_most(demo_base, home_with_demo):
    from loratelier.train.run import _load

    full = demo_base.model.get_memory_footprint()
    assert demo_base.dtype == torch.float32
    given = load_recipe(None, {"base": "demo", "corpus": "x", "name": "x", "quantization": "nf4"})
    held = _load(given)
    assert held.model.get_memory_footprint() <= full / 4
    assert held.fingerprint == demo_base.fingerprint
