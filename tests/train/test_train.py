"""Training seen from outside: what it learns, what it keeps, how it stops and goes on."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.corpus import Corpus, build_corpus
from loratelier.kit.errors import InputError
from loratelier.train import loop as loop_module
from loratelier.train import train
from loratelier.train.rows import examples, split
from tests.conftest import our_hooks


def test_the_adapter_learns_lands_in_the_store_and_leaves_the_base_alone(tiny_base, recipe, home):
    before = {name: p.clone() for name, p in tiny_base.model.named_parameters()}
    adapter = train(recipe(epochs=4), base=tiny_base)
    assert adapter.has_effect
    assert adapter.card.metrics["held_out_nll"] < adapter.card.metrics["held_out_nll_base"] * 0.95
    after = dict(tiny_base.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert store.open("mine").digest == adapter.digest
    assert adapter.card.base.fingerprint == tiny_base.fingerprint
    assert adapter.card.corpus.hash == Corpus.load(recipe().corpus).hash


def test_rows_of_text_are_learned_whole(tiny_base, recipe, corpus, tmp_path, home):
    folder = tmp_path / "pages"
    build_corpus(tmp_path / "notes", format="markdown", holdout=0.2).save(folder)
    wanted = recipe(corpus=str(folder), epochs=4)
    rows = examples(tiny_base, Corpus.load(folder), wanted)
    texts = {row["id"]: row["text"] for row in Corpus.load(folder).rows.to_pylist()}
    assert len(rows) == 20
    for row in rows:
        assert tiny_base.tokenizer.decode(row.ids) == texts[row.row] + "<|im_end|>"
        assert row.targets == len(row) - 1
    adapter = train(wanted, base=tiny_base)
    assert adapter.card.metrics["held_out_nll"] < adapter.card.metrics["held_out_nll_base"] * 0.95


def test_plain_peft_gives_the_logits_that_the_bank_gives(tiny_base, recipe, home):
    train(recipe(), base=tiny_base)
    ids = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    theirs = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), store.path_of("mine")).eval()
    bank = AdapterBank(tiny_base.model)
    bank.add("mine", store.path_of("mine"))
    with torch.no_grad(), bank.activate("mine"):
        ours = tiny_base.model(input_ids=ids).logits
        torch.testing.assert_close(ours, theirs(input_ids=ids).logits, atol=1e-4, rtol=0)


def test_one_step_is_the_step_of_a_plain_peft_loop(tiny_base, recipe, home):
    """Packing and losses at learned positions only change nothing but the time."""
    given = recipe(learning_rate=5e-3, max_steps=1, batch_tokens=100_000, epochs=1, holdout=0)
    made = train(given, base=tiny_base)
    torch.manual_seed(0)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=16.0,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
    )
    model = get_peft_model(copy.deepcopy(tiny_base.model), config).train()
    rows = examples(tiny_base, Corpus.load(recipe().corpus), recipe())
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(row.ids)
        mask[n, : len(row)] = 1
        learned = torch.tensor(row.learned)
        labels[n, : len(row)][learned] = torch.tensor(row.ids)[learned]
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=5e-3, weight_decay=0
    )
    model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    state = {k: v for k, v in model.state_dict().items() if "lora_" in k}
    for site in made.sites:
        down, up = made.tensors[site]
        torch.testing.assert_close(
            down, state[f"base_model.model.{site}.lora_A.default.weight"], atol=1e-4, rtol=1e-3
        )
        # Adam's first step is the gradient's sign times the rate: where a gradient is nearly zero
        # rounding decides the sign, so nearly all entries are compared, not all.
        theirs = state[f"base_model.model.{site}.lora_B.default.weight"]
        assert ((up - theirs).abs() < 1e-4).float().mean() > 0.98


def test_a_stopped_run_goes_on_exactly(tiny_base, recipe, home, monkeypatch):
    whole = train(recipe(name="whole", epochs=3), base=tiny_base)
    steps = 0
    real = loop_module._step

    def stopping(*args):
        nonlocal steps
        steps += 1
        if steps == len(whole.card.metrics["curve"]) + 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop_module, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(name="halves", epochs=3), base=tiny_base)
    monkeypatch.setattr(loop_module, "_step", real)
    assert not store.path_of("halves").exists()
    resumed = train(recipe(name="halves", epochs=3), base=tiny_base, resume=True)
    for site in whole.sites:
        for ours, theirs in zip(resumed.tensors[site], whole.tensors[site], strict=True):
            assert torch.equal(ours, theirs)
    series = [[p["held_out_nll"] for p in a.card.metrics["curve"]] for a in (whole, resumed)]
    assert series[0] == series[1]


def test_resuming_with_another_recipe_is_refused(tiny_base, recipe, home, monkeypatch):
    real = loop_module._keep

    def stop_after(work, state, point):
        real(work, state, point)
        if point.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop_module, "_keep", stop_after)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(epochs=3), base=tiny_base)
    monkeypatch.setattr(loop_module, "_keep", real)
    with pytest.raises(InputError, match="The stopped run had learning_rate = 0.02"):
        train(recipe(epochs=3, learning_rate=1e-3), base=tiny_base, resume=True)
    begun = train(recipe(name="never-begun", max_steps=1), base=tiny_base, resume=True)
    assert begun.card.metrics["steps"] == 1


def test_the_kept_state_is_the_best_held_out_one(tiny_base, recipe, home):
    """Far too high a rate: the loss rises again, training stops early and keeps the best state."""
    adapter = train(recipe(learning_rate=0.08, epochs=12, patience=2), base=tiny_base)
    curve = adapter.card.metrics["curve"]
    best = min(curve[1:], key=lambda point: point["held_out_nll"])
    assert adapter.card.metrics["kept_step"] == best["step"]
    assert adapter.card.metrics["held_out_nll"] == pytest.approx(best["held_out_nll"], abs=1e-5)


def test_the_drift_budget_decides_what_is_kept(tiny_base, recipe, home, monkeypatch):
    """General text in another script: it drifts at once, so the least drift is kept and said."""
    adapter = train(recipe(**{"guards.drift_budget": 1e-6, "epochs": 4}), base=tiny_base)
    curve = adapter.card.metrics["curve"][1:]
    kept = next(p for p in curve if p["step"] == adapter.card.metrics["kept_step"])
    within = [p for p in curve if p["drift"] <= 1e-6]
    chosen = (
        min(within, key=lambda p: p["held_out_nll"])
        if within
        else min(curve, key=lambda p: p["drift"])
    )
    assert kept == chosen


def test_a_conversation_is_on_one_side_only(tiny_base, recipe, corpus):
    loaded = Corpus.load(corpus)
    for share in (None, 0, 0.25, 0.5):
        given = recipe() if share is None else recipe(holdout=share)
        learned, withheld = split(loaded, examples(tiny_base, loaded, given), given)
        assert not {r.conversation for r in learned} & {r.conversation for r in withheld}
        assert len(learned) + len(withheld) == loaded.rows.num_rows
        assert len(withheld) == {None: 4, 0: 0, 0.25: 5, 0.5: 10}[share]


@pytest.mark.parametrize(
    ("changes", "sites"),
    [
        ({"targets": "q,v"}, {"self_attn.q_proj", "self_attn.v_proj"}),
        ({"targets": "down"}, {"mlp.down_proj"}),
    ],
)
def test_targets_and_layers_are_where_the_adapter_sits(tiny_base, recipe, home, changes, sites):
    adapter = train(recipe(**changes, layers="1", max_steps=1), base=tiny_base)
    assert set(adapter.sites) == {f"model.layers.1.{site}" for site in sites}
    assert adapter.rank == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "qq"}, "no linear layer 'qq'"),
        ({"layers": "0-99"}, "has no layer"),
        ({"max_length": 8}, "No row of .* fits max_length = 8"),
        ({"corpus": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_line(tiny_base, recipe, home, changes, message):
    with pytest.raises(InputError, match=message):
        train(recipe(**changes), base=tiny_base)
    assert not our_hooks(tiny_base.model)


def test_a_taken_name_is_refused_before_anything_is_trained(tiny_base, recipe, home):
    train(recipe(max_steps=1), base=tiny_base)
    with pytest.raises(InputError, match="'mine' exists already"):
        train(recipe(max_steps=1), base=tiny_base)
    train(recipe(max_steps=2), base=tiny_base, replace=True)
    assert Adapter.load(store.path_of("mine")).card.metrics["steps"] == 2


def test_a_loss_that_is_no_number_ends_with_the_last_good_state(
    tiny_base, recipe, home, monkeypatch
):
    real, calls = loop_module._gradients, []

    def breaking(*args):
        calls.append(1)
        value = real(*args)
        return float("nan") if len(calls) > 6 else value

    monkeypatch.setattr(loop_module, "_gradients", breaking)
    adapter = train(recipe(epochs=50), base=tiny_base)
    assert adapter.card.metrics["steps"] == 6
    assert adapter.card.metrics["kept_step"] < 7
    assert all(torch.isfinite(t).all() for pair in adapter.tensors.values() for t in pair)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_goes_back_below_the_first_adapted_layer(
    tiny_base, recipe, home, monkeypatch, checkpointing
):
    reached = []
    real = loop_module._gradients

    def watching(work, *args):
        layers = tiny_base.model.model.layers
        hooks = [
            layer.register_forward_hook(
                lambda _, given, out, n=n: reached.append((n, out.requires_grad))
            )
            for n, layer in enumerate(layers)
        ]
        loss = real(work, *args)
        for hook in hooks:
            hook.remove()
        return loss

    monkeypatch.setattr(loop_module, "_gradients", watching)
    train(recipe(layers="1", max_steps=1, checkpointing=checkpointing), base=tiny_base)
    assert (0, False) in reached
    assert (1, True) in reached
    assert (0, True) not in reached


def test_how_a_step_is_cut_changes_nothing_but_time_and_memory(tiny_base, recipe, home):
    ways = [{}, {"pack_tokens": 60}, {"packing": False}, {"checkpointing": True}]
    made = [
        train(recipe(name=f"way-{n}", max_steps=3, batch_tokens=600, **way), base=tiny_base)
        for n, way in enumerate(ways)
    ]
    for other in made[1:]:
        losses = zip(made[0].card.metrics["losses"], other.card.metrics["losses"], strict=True)
        assert all(abs(a - b) < 1e-4 for a, b in losses)
    assert not tiny_base.model.is_gradient_checkpointing
