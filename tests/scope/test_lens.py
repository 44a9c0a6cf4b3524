"""The lens, against the model's own logits and against a lens worked by hand."""

import pytest
import torch

from loratelier.base.inside import look_inside, read_out
from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.lens import look_at_lens
from tests.conftest import our_hooks
from tests.scope.changes import build, by_hand, on, random_pair

TEXT = "Где решается слово? Here."
SITES = {
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc"],
    "llama": ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"],
}
ARCHS = ["llama", "gpt2", "gemma2", "gemma3", "mixtral"]


def ids_of(base, text=TEXT):
    return base.tokenizer(text)["input_ids"]


def change_of(arch):
    base = build(arch)
    return Change(base, on(base, *SITES.get(arch, SITES["llama"][:1])))


def own_logits(change, ids):
    """The logits of a plain forward pass, before and after: [2, T, V]."""
    batch = torch.tensor([ids] * change.rows)
    with torch.no_grad(), change.together():
        return change.base.model(input_ids=batch, use_cache=False).logits


@pytest.mark.parametrize("arch", ARCHS)
def test_the_last_row_is_the_models_own_logits(arch):
    change, ids = change_of(arch), None
    ids = ids_of(change.base)
    logits = own_logits(change, ids)
    batch = change.batch(ids)
    with torch.no_grad(), change.together():
        inside = look_inside(change.base.model, batch)
        last = read_out(change.base.model, inside, inside.states[-1], range(len(ids)), normed=True)
    assert torch.equal(last, logits)
    assert len(inside.states) == 3
    assert len(inside.tail) == 1  # the final norm

    lens = look_at_lens(change, ids, track=[40])
    shares = logits.softmax(-1)
    for side, row in ((lens.before, 0), (lens.after, 1)):
        assert torch.equal(side.ids[:, -1], logits[row].argmax(-1))
        torch.testing.assert_close(side.probability[:, -1], shares[row].amax(-1))
    torch.testing.assert_close(lens.tracked[0].after[:, -1], shares[1, :, 40])
    ranks = (logits[1] > logits[1, :, 40:41]).sum(-1) + 1
    assert torch.equal(lens.tracked[0].rank_after[:, -1], ranks)
    kl = torch.nn.functional.kl_div(
        logits[1].double().log_softmax(-1),
        logits[0].double().log_softmax(-1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    torch.testing.assert_close(lens.kl[:, -1].double(), kl, atol=1e-5, rtol=1e-4)
    assert kl.max() > 1e-3


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma2"])
def test_inner_rows_are_norm_and_head_of_what_each_layer_hands_on(arch):
    change = change_of(arch)
    ids, model = ids_of(change.base), change.base.model
    batch = change.batch(ids)
    with torch.no_grad(), change.together():
        states = model(input_ids=batch, use_cache=False, output_hidden_states=True).hidden_states
        norm = model.transformer.ln_f if arch == "gpt2" else model.model.norm
        by_hand = [model.lm_head(norm(state)) for state in states[:-1]]
    cap = 2.0 if arch == "gemma2" else None
    lens = look_at_lens(change, ids)
    for depth, logits in enumerate(by_hand):
        capped = torch.tanh(logits / cap) * cap if cap else logits
        shares = capped.softmax(-1)
        torch.testing.assert_close(lens.before.probability[:, depth], shares[0].amax(-1))
        torch.testing.assert_close(lens.after.probability[:, depth], shares[1].amax(-1))
        final = lens.final_after
        torch.testing.assert_close(
            final.before[:, depth], shares[0].gather(-1, final.ids[:, None])[:, 0]
        )


def test_nothing_differs_below_the_layer_that_is_changed():
    base = build("llama", num_hidden_layers=3)
    change = Change(base, on(base, "model.layers.1.mlp.down_proj"))
    lens = look_at_lens(change, ids_of(base))
    # Depth 0 is the embedding, depth 1 the first layer's; the second layer's is depth 2.
    assert lens.kl[:, :2].max() < 1e-9
    assert lens.kl[:, 2].min() > 1e-6
    assert lens.depth == 3
    assert lens.summary["first_moved"] == 2


def test_where_it_is_decided_is_the_first_depth_from_which_it_stays():
    change = change_of("llama")
    lens = look_at_lens(change, ids_of(change.base))
    for side in (lens.before, lens.after):
        for row, decided in zip(side.ids.tolist(), side.decided.tolist(), strict=True):
            assert all(token == row[-1] for token in row[decided:])
            assert decided == 0 or row[decided - 1] != row[-1]
    last = lens.decisions[-1]
    assert last.token == lens.tokens[-1]
    assert last.token_after == lens.after.tokens[-1][-1]
    summary = lens.summary
    assert summary["earlier"] + summary["later"] + summary["same_depth"] == len(lens.positions)
    assert summary["decided_after"] == pytest.approx(lens.after.decided.double().mean())
    assert f"'{last.token_after}'" in lens.sentences[0]


def test_a_head_that_an_adapter_changes_is_changed_at_every_depth():
    base = build("gpt2")
    adapter = by_hand(base, {"lm_head": random_pair(base, "lm_head")})
    change = Change(base, adapter)
    ids = ids_of(base)
    lens = look_at_lens(change, ids)
    assert lens.kl.min() > 1e-6
    logits = own_logits(change, ids)
    assert torch.equal(lens.after.ids[:, -1], logits[1].argmax(-1))


def test_some_positions_in_small_blocks_are_those_of_the_whole(monkeypatch):
    change = change_of("llama")
    ids = ids_of(change.base)
    whole = look_at_lens(change, ids, track=[50, 7])
    monkeypatch.setattr("loratelier.scope.lens._BLOCK", 2 * 259 * 2)
    some = look_at_lens(change, ids, positions=[-1, 4, 9], track=[50, 7])
    places = [4, 9, len(ids) - 1]
    assert some.positions == tuple(places)
    torch.testing.assert_close(some.kl, whole.kl[places], atol=1e-6, rtol=1e-4)
    assert torch.equal(some.before.ids, whole.before.ids[places])
    torch.testing.assert_close(some.tracked[1].before, whole.tracked[1].before[places])


def test_an_adapter_without_effect_differs_nowhere(tiny_base, silent):
    lens = look_at_lens(Change(tiny_base, silent), ids_of(tiny_base))
    assert not lens.effect
    assert not bool(lens.kl.any())
    assert torch.equal(lens.before.probability, lens.after.probability)
    assert lens.summary["first_moved"] is None
    assert "the same" in lens.sentences[0]


def test_the_document_is_plain_and_the_model_as_it_was():
    import json

    change = change_of("llama")
    ids = ids_of(change.base)
    document = json.loads(json.dumps(look_at_lens(change, ids).to_json(), allow_nan=False))
    assert len(document["kl"]) == len(ids)
    assert len(document["before"]["tokens"][0]) == document["depth"] + 1
    assert "forward" not in change.base.model.model.__dict__
    assert our_hooks(change.base.model) == []


def test_what_cannot_be_looked_at_is_said():
    change = change_of("llama")
    ids = ids_of(change.base)
    with pytest.raises(InputError, match="Position 77"):
        look_at_lens(change, ids, positions=[77])
    with pytest.raises(InputError, match="no positions"):
        look_at_lens(change, ids, positions=[])
    with pytest.raises(InputError, match="no token 300"):
        look_at_lens(change, ids, track=[300])


def test_the_demo_bases_last_row_is_its_own_output(demo_base):
    change = Change(demo_base, on(demo_base, "model.layers.15.mlp.down_proj"))
    ids = ids_of(demo_base, "Столица Франции: Paris. The capital of Italy is")
    lens = look_at_lens(change, ids, positions=[-2, -1])
    shares = own_logits(change, ids)[:, -2:].softmax(-1)
    torch.testing.assert_close(lens.before.probability[:, -1], shares[0].amax(-1))
    torch.testing.assert_close(lens.after.probability[:, -1], shares[1].amax(-1))
    assert lens.kl[:, :16].max() < 1e-6 < lens.kl[:, 16:].min()
    assert lens.before.tokens[-1][-1] == demo_base.tokenizer.decode(shares[0, -1].argmax())
