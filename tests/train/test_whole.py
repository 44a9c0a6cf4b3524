"""Baselines that train all weights: what comes out, and that the base is handed back."""

import copy

import pytest
import torch
from peft import PeftModel

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.base import Base, load_base
from loratelier.base.weights import drawn_anew
from loratelier.kit.errors import InputError
from loratelier.train import load_recipe, train
from loratelier.train import loop as loop_module
from tests.conftest import make_tiny

BOTH = pytest.mark.parametrize("objective", ["full", "scratch"])


@pytest.fixture
def whole_recipe(corpus):
    def make(objective, **changes):
        given = {
            "base": "tiny",
            "corpus": str(corpus),
            "name": "mine",
            "objective": objective,
            "epochs": 2,
            "batch_tokens": 400,
            "learning_rate": 3e-3,
        }
        if objective == "full":
            given["guards.drift_budget"] = "off"
        return load_recipe(None, given | changes)

    return make


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@BOTH
@pytest.mark.parametrize("tied", [True, False])
def test_it_learns_the_base_is_as_before_and_every_reader_gives_the_same_logits(
    whole_recipe, objective, tied, home
):
    model, tokenizer = make_tiny(tie_word_embeddings=tied)
    base = Base.of(model, tokenizer, name="tiny")
    before = weights_of(model)
    adapter = train(whole_recipe(objective), base=base)
    assert equal(weights_of(model), before)
    assert not any(p.requires_grad for p in model.parameters())
    metrics = adapter.card.metrics
    assert metrics["held_out_nll"] < metrics["held_out_nll_base"] * 0.8
    assert metrics["general_kl"] > 0.01
    folder = store.path_of("mine")
    assert Adapter.load(folder).digest == adapter.digest
    ids = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    theirs = PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()
    alone = copy.deepcopy(model)
    alone.load_state_dict(
        {f"{site}.{k}": v for site, s in adapter.extras.modules.items() for k, v in s.items()}
    )
    bank = AdapterBank(model)
    bank.add("mine", folder)
    with torch.no_grad():
        wanted = alone(input_ids=ids).logits
        plain = model(input_ids=ids).logits
        assert (wanted - plain).abs().max() > 0.1
        assert torch.equal(theirs(input_ids=ids).logits, wanted)
        with bank.activate("mine"):
            torch.testing.assert_close(model(input_ids=ids).logits, wanted, atol=1e-4, rtol=0)
        assert torch.equal(model(input_ids=ids).logits, plain)


def test_scratch_begins_with_the_configs_own_initialisation_and_the_seed(home):
    model, _ = make_tiny(seed=3)
    state = torch.get_rng_state()
    drawn = drawn_anew(model, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(drawn, weights_of(make_tiny(seed=7)[0]))
    assert not equal(drawn, weights_of(model))


def test_scratch_is_measured_as_drawn_beside_the_base(tiny_base, whole_recipe, home):
    curve = train(whole_recipe("scratch", seed=5), base=tiny_base).card.metrics["curve"]
    assert [point["step"] for point in curve[:3]] == [0, 0, curve[2]["step"]]
    assert curve[0]["general_kl"] == pytest.approx(0, abs=1e-6)
    assert curve[1]["general_kl"] > 0.001
    assert curve[2]["held_out_nll"] < curve[1]["held_out_nll"]


@BOTH
def test_a_stopped_run_goes_on_exactly(tiny_base, whole_recipe, objective, home, monkeypatch):
    whole = train(whole_recipe(objective), base=tiny_base)
    before = weights_of(tiny_base.model)
    real, steps = loop_module._step, []

    def stopping(*args):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        return real(*args)

    recipe = whole_recipe(objective, name="other", save_seconds=0)
    monkeypatch.setattr(loop_module, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, base=tiny_base)
    assert equal(weights_of(tiny_base.model), before)
    monkeypatch.setattr(loop_module, "_step", real)
    resumed = train(recipe, base=tiny_base, resume=True)
    assert resumed.digest == whole.digest
    assert resumed.card.metrics["losses"] == whole.card.metrics["losses"]
    assert resumed.card.metrics["general_kl"] == whole.card.metrics["general_kl"]


@BOTH
@pytest.mark.parametrize("handed_in", [True, False])
def test_a_run_that_breaks_at_once_keeps_what_it_began_with(
    tiny_base_dir, whole_recipe, objective, handed_in, home, monkeypatch
):
    recipe = whole_recipe(objective, base=str(tiny_base_dir))
    real, calls = loop_module._gradients, []

    def breaking(*args):
        calls.append(1)
        return real(*args) if len(calls) < 3 else float("nan")

    monkeypatch.setattr(loop_module, "_gradients", breaking)
    base = load_base(tiny_base_dir)
    adapter = train(recipe, base=load_base(tiny_base_dir) if handed_in else None)
    assert adapter.card.metrics["kept_step"] == 0
    began = weights_of(base.model) if objective == "full" else drawn_anew(base.model, 0)
    kept = {f"{s}.{k}": v for s, state in adapter.extras.modules.items() for k, v in state.items()}
    assert all(torch.equal(kept[name], began[name]) for name in began)


@BOTH
def test_keys_of_adapters_are_refused(whole_recipe, objective):
    with pytest.raises(InputError, match=f"'rank' is read by objective sft.* is {objective}"):
        whole_recipe(objective, rank=4)
    written = whole_recipe(objective).model_dump(mode="json")
    assert "rank" not in written
    assert load_recipe(None, written) == whole_recipe(objective)


def test_defaults_of_their_own(corpus):
    given = {"base": "tiny", "corpus": str(corpus), "name": "mine"}
    full, scratch = (load_recipe(None, given | {"objective": o}) for o in ("full", "scratch"))
    assert (full.learning_rate, full.guards.drift_budget) == (5e-5, 0.02)
    assert (scratch.learning_rate, scratch.guards.drift_budget) == (1e-3, None)
    with pytest.raises(InputError, match="drawn anew have no base to drift from"):
        load_recipe(None, given | {"objective": "scratch", "guards.drift_budget": 0.02})


def test_the_card_says_that_there_is_no_rank(tiny_base, whole_recipe, home):
    text = train(whole_recipe("full", max_steps=1), base=tiny_base).describe()
    assert "21 modules that stand in place of the base's" in text
    assert "Rank" not in text
