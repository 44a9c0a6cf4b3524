"""Routing before and after, against the routers' own linear maps worked by hand."""

import pytest
import torch

from loratelier.scope.change import Change
from loratelier.scope.experts import look_at_experts
from tests.scope.changes import build, on

TEXT = "Какой эксперт читает? Which one."


def routers(base):
    """The router of each layer: what a token's states are multiplied with."""
    return [layer.mlp.gate for layer in base.model.model.layers]


def by_hand(change, ids):
    """Distributions over experts [L][rows, T, E], from the routers' inputs and weights."""
    taken = []
    gates = routers(change.base)
    hooks = [g.register_forward_pre_hook(lambda _, args: taken.append(args[0])) for g in gates]
    with torch.no_grad(), change.together():
        change.base.model(input_ids=change.batch(ids), use_cache=False)
    for hook in hooks:
        hook.remove()
    scores = [
        torch.nn.functional.linear(x.reshape(change.rows, len(ids), -1), gate.weight)
        for x, gate in zip(taken, gates, strict=True)
    ]
    return [score.softmax(-1) for score in scores]


@pytest.mark.parametrize("arch", ["qwen3_moe", "mixtral", "olmoe"])
def test_distributions_equal_the_routers_softmax_by_hand(arch):
    base = build(arch)
    change = Change(base, on(base, "model.layers.0.self_attn.v_proj"))
    ids = base.tokenizer(TEXT)["input_ids"]
    seen = look_at_experts(change, ids)
    assert seen.reason is None
    assert [layer.layer for layer in seen.layers] == [0, 1]
    for layer, shares in zip(seen.layers, by_hand(change, ids), strict=True):
        torch.testing.assert_close(layer.before, shares[0].mean(0))
        torch.testing.assert_close(layer.after, shares[1].mean(0))
        torch.testing.assert_close(layer.variation, 0.5 * (shares[1] - shares[0]).abs().sum(-1))
        kl = (shares[0] * (shares[0] / shares[1]).log()).sum(-1)
        torch.testing.assert_close(layer.kl, kl, atol=1e-5, rtol=1e-3)
        for token in range(len(ids)):
            one, other = (set(side[token].topk(2).indices.tolist()) for side in shares)
            assert layer.overlap[token] == pytest.approx(len(one & other) / 2)
        most = layer.gained[0]
        assert most.after - most.before == pytest.approx(float((layer.after - layer.before).max()))
        least = layer.lost[0]
        assert least.after - least.before == pytest.approx(
            float((layer.after - layer.before).min())
        )
    assert seen.chosen == 2
    assert max(float(layer.variation.mean()) for layer in seen.layers) > 0.01
    assert "stay chosen" in seen.sentences[0]
    assert seen.to_json()["layers"][1]["tokens"]["kl"] == seen.layers[1].kl.tolist()


def test_layers_without_experts_are_not_counted():
    base = build("qwen3_moe", num_hidden_layers=3, mlp_only_layers=[1])
    change = Change(base, on(base, "model.layers.0.self_attn.v_proj"))
    seen = look_at_experts(change, base.tokenizer(TEXT)["input_ids"])
    assert [layer.layer for layer in seen.layers] == [0, 2]


def test_a_dense_base_has_none_and_that_is_said():
    base = build("llama")
    change = Change(base, on(base, "model.layers.0.self_attn.v_proj"))
    seen = look_at_experts(change, base.tokenizer(TEXT)["input_ids"])
    assert seen.layers is None
    assert seen.sentences == (seen.reason,)
    assert seen.to_json()["layers"] is None


def test_without_effect_nothing_moves_at_all():
    base = build("mixtral")
    site = "model.layers.0.self_attn.v_proj"
    change = Change(base, on(base, site, scale=0.0))
    seen = look_at_experts(change, base.tokenizer(TEXT)["input_ids"])
    assert not seen.effect
    for layer in seen.layers:
        assert not bool(layer.variation.any())
        assert not bool(layer.kl.any())
        assert bool((layer.overlap == 1).all())
        assert layer.gained == layer.lost == ()


def test_routers_that_are_not_handed_out_are_said_to_be_so(monkeypatch):
    base = build("mixtral")
    change = Change(base, on(base, "model.layers.0.self_attn.v_proj"))
    monkeypatch.setattr("loratelier.scope.experts.router_scores", lambda *_: None)
    assert "does not hand out" in look_at_experts(change, [5, 6, 7]).reason
