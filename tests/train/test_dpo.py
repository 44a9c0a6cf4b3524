"""DPO: its loss against a plain formula, and what it does to a small corpus of preferences."""

import copy
import json
import re
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from loratelier.base import Base
from loratelier.base.packed import rows_apart
from loratelier.corpus import Corpus, build_corpus
from loratelier.kit.errors import InputError
from loratelier.train import load_recipe, train
from loratelier.train import loop as loop_module
from loratelier.train.dpo import Dpo
from loratelier.train.learner import Learner
from loratelier.train.loop import Plan
from loratelier.train.model import wrap
from loratelier.train.pairs import pairs
from loratelier.train.steps import Cut, epoch_steps
from tests.conftest import make_tiny


@pytest.fixture
def preferences(tmp_path):
    """Twenty questions, English and Russian, with an answer in short sentences preferred."""
    path = tmp_path / "preferences.jsonl"
    lines = []
    for number in range(20):
        asked = f"What is thing {number}?" if number % 2 else f"Что за вещь {number}?"
        lines.append(
            {
                "prompt": asked,
                "chosen": "Turn it over. Now it moves." if number % 2 else "Переверни. Пошло.",
                "rejected": f"One might in general say that {number} is hard to tell of.",
            }
        )
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    folder = tmp_path / "preferred"
    build_corpus(path, holdout=0.2).save(folder)
    return folder


@pytest.fixture
def dpo_recipe(preferences):
    def make(**changes):
        given = {
            "base": "tiny",
            "corpus": str(preferences),
            "name": "mine",
            "objective": "dpo",
            "rank": 4,
            "epochs": 3,
            "batch_tokens": 800,
            "learning_rate": 5e-3,
            "guards.drift_budget": "off",
        }
        return load_recipe(None, given | changes)

    return make


def _log_p(model, row):
    """log p of a row's learned tokens, from whole logits, one row at a time."""
    logits = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
    places = [place for place, flag in enumerate(row.learned) if flag]
    return sum(logits[place - 1, row.ids[place]] for place in places), len(places)


def _by_hand(model, base_model, all_pairs, beta, smoothing, sft):
    """The mean loss of pairs as the papers write it, with a second model as the reference."""
    losses = []
    for pair in all_pairs:
        (good, count), (bad, _) = _log_p(model, pair.chosen), _log_p(model, pair.rejected)
        with torch.no_grad():
            (good0, _), (bad0, _) = (
                _log_p(base_model, pair.chosen),
                _log_p(base_model, pair.rejected),
            )
        margin = beta * ((good - good0) - (bad - bad0))
        loss = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
        losses.append(loss - sft * good / count)
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("smoothing", "sft"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.7)])
@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradient_are_those_of_the_paper(dpo_recipe, smoothing, sft, padded):
    model, tokenizer = make_tiny(seed=1)
    base = Base.of(model, tokenizer, name="tiny")
    reference = copy.deepcopy(model)
    recipe = dpo_recipe(beta=0.3, label_smoothing=smoothing, sft_weight=sft, packing=not padded)
    learned, withheld = pairs(base, Corpus.load(recipe.corpus), recipe)
    peft = wrap(base, recipe)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn_like(p) * 0.1)
    trained = [p for p in peft.parameters() if p.requires_grad]
    objective = Dpo(recipe.beta, recipe.label_smoothing, recipe.sft_weight)
    with nullcontext("padding") if padded else rows_apart(model) as apart:
        learner = Learner(model, peft, apart, recipe)
        cut = Cut(step=100_000, pack=300, padded=padded)
        plan = Plan(
            [epoch_steps(learned, 0, 0, cut, objective.lay)],
            objective.lay(withheld, 300, padded=padded),
        )
        plan = objective.ready(plan, learner, torch.device("cpu"))
        packs = plan.epochs[0][0].packs
        assert len(packs) > 2
        losses = [objective.loss(learner, pack) for pack in packs]
        ours = torch.autograd.grad(sum(losses), trained)
    wanted = _by_hand(model, reference, learned, recipe.beta, smoothing, sft)
    theirs = torch.autograd.grad(wanted, trained)
    assert float(sum(losses).detach()) == pytest.approx(float(wanted.detach()), abs=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_two_answers_of_a_pair_are_in_one_pack_and_nothing_else_is_learned(
    tiny_base, dpo_recipe
):
    recipe = dpo_recipe()
    learned, withheld = pairs(tiny_base, Corpus.load(recipe.corpus), recipe)
    assert (len(learned), len(withheld)) == (16, 4)
    for pair in learned:
        said = [
            tiny_base.tokenizer.decode([i for i, f in zip(r.ids, r.learned, strict=True) if f])
            for r in (pair.chosen, pair.rejected)
        ]
        assert said[0] in ("Turn it over. Now it moves.<|im_end|>", "Переверни. Пошло.<|im_end|>")
        assert said[1].startswith("One might")
    for pack in Dpo(0.1, 0, 0).lay(learned, 250):
        assert len(pack.rows) == 2 * len(pack.names)
        for number, name in enumerate(pack.names):
            both = pack.rows[2 * number : 2 * number + 2]
            assert both == (f"{name} chosen", f"{name} rejected")


def test_the_held_out_margin_rises_and_every_figure_is_named_for_what_it_is(
    tiny_base, dpo_recipe, home, monkeypatch
):
    said = []
    monkeypatch.setattr(loop_module, "remark", said.append)
    adapter = train(dpo_recipe(), base=tiny_base)
    metrics = adapter.card.metrics
    assert metrics["held_out_margin_base"] == pytest.approx(0, abs=1e-5)
    assert metrics["held_out_accuracy_base"] == 0.5
    assert metrics["held_out_loss_base"] == pytest.approx(0.6931, abs=1e-4)
    assert metrics["held_out_margin"] > 0.2
    assert metrics["held_out_accuracy"] == 1
    assert metrics["held_out_loss"] < 0.6
    assert "held_out_nll" not in metrics
    kept = min(metrics["curve"], key=lambda point: point["held_out"]["loss"])
    assert metrics["kept_step"] == kept["step"]
    assert all(point["held_out_nll"] is None for point in metrics["curve"])
    assert "Held-out loss per token" not in adapter.describe()
    assert "Held-out DPO loss" in adapter.describe()
    # A margin that is 0 but for rounding may have either sign.
    assert re.search(r"DPO loss 0\.6931, margin [+-]0\.000, 50% preferred rightly", said[0])
    assert not any("held-out loss" in line for line in said)


def test_a_stopped_run_goes_on_exactly(tiny_base, dpo_recipe, home, monkeypatch):
    whole = train(dpo_recipe(), base=tiny_base)
    real, steps = loop_module._step, []

    def stopping(*args):
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(1)
        return real(*args)

    recipe = dpo_recipe(name="other", save_seconds=0)
    monkeypatch.setattr(loop_module, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, base=tiny_base)
    monkeypatch.setattr(loop_module, "_step", real)
    resumed = train(recipe, base=tiny_base, resume=True)
    assert resumed.digest == whole.digest
    assert resumed.card.metrics["losses"] == whole.card.metrics["losses"]


def test_a_corpus_without_preferences_says_where_they_come_from(tiny_base, recipe, home):
    with pytest.raises(InputError, match="has no preferences: no answer in it has another version"):
        train(recipe(objective="dpo"), base=tiny_base)


def test_keys_of_dpo_are_refused_elsewhere():
    given = {"base": "demo", "corpus": "rows", "name": "mine"}
    with pytest.raises(InputError, match="'beta' is read by objective dpo, and this one is sft"):
        load_recipe(None, given | {"beta": 0.3})
    assert load_recipe(None, given | {"objective": "dpo"}).beta == 0.1
    written = load_recipe(None, given).model_dump(mode="json")
    assert "beta" not in written
    assert load_recipe(None, written) == load_recipe(None, given)
