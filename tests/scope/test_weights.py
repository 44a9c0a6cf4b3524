"""What an adapter is: small factors against dense matrices, and directions made by hand."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.adapter import Adapter
from loratelier.base.stream import residual_stream
from loratelier.scope.change import Change
from loratelier.scope.intruders import left_vectors, look_for_intruders
from loratelier.scope.weights import look_at_weights
from tests.bank.models import tiny
from tests.scope.planted import SITES, made, pair, planted

DOWN, OUT, GATE = SITES[6], SITES[3], SITES[4]
LATER = SITES[11]  # the second layer's gate_proj


def dense_svd(update):
    return torch.linalg.svd(update.double(), full_matrices=False)


def test_norms_and_spectra_are_those_of_the_dense_update(tiny_base, adapter):
    seen = look_at_weights(Change(tiny_base, adapter, strength=0.5))
    assert list(seen.sites) == list(adapter.sites) and not seen.not_covered
    for site, own in seen.sites.items():
        update = 0.5 * adapter.deltas[site]
        weight = tiny_base.model.get_submodule(site).weight
        values = dense_svd(update).S[:4]
        assert own.norm == pytest.approx(float(update.norm()), rel=1e-5)
        assert own.relative == pytest.approx(float(update.norm() / weight.norm()), rel=1e-5)
        assert own.base_norm == pytest.approx(float(weight.norm()), rel=1e-5)
        assert own.spectral == pytest.approx(float(values[0]), rel=1e-5)
        assert own.spectrum == pytest.approx(values.tolist(), rel=1e-4)
        assert own.stable_rank == pytest.approx(own.norm**2 / own.spectral**2)
        assert 1 <= own.stable_rank <= 4
    assert json.loads(json.dumps(seen.to_json(), allow_nan=False)) == seen.to_json()


def test_of_two_adapters_it_is_their_difference(tiny_base, adapter):
    other = planted(tiny_base, SITES[4])
    seen = look_at_weights(Change(tiny_base, adapter, before=other))
    update = adapter.deltas[DOWN] - other.deltas[DOWN]
    assert seen.sites[DOWN].norm == pytest.approx(float(update.norm()), rel=1e-5)
    gone = look_at_weights(Change(tiny_base, adapter, before=adapter))
    assert not gone.effect
    assert {own.norm for own in gone.sites.values()} <= {0.0} or max(
        own.relative for own in gone.sites.values()
    ) < 1e-6


def test_an_untrained_adapter_weighs_nothing(tiny_base, silent):
    seen = look_at_weights(Change(tiny_base, silent), intruders=True)
    for own in seen.sites.values():
        assert (own.norm, own.relative, own.spectral, own.stable_rank) == (0, 0, 0, 0)
        assert own.spectrum == ()
    assert not seen.effect and not any(seen.intruders.values())
    assert not any(seen.pointing.values()) and not seen.overlaps
    json.dumps(seen.to_json(), allow_nan=False)


def test_a_site_that_writes_a_token_points_at_it(tiny_base):
    stream = residual_stream(tiny_base.model)
    token = tiny_base.tokenizer.convert_tokens_to_ids("q")
    out = stream.unembedding[token] * stream.final
    into = torch.zeros(1, 128)
    into[0, 5] = 1
    adapter = made(tiny_base, {DOWN: (into, 3 * out[:, None] / out.norm())})
    (found,) = look_at_weights(Change(tiny_base, adapter)).pointing[DOWN]
    assert found.kind == "writes" and found.value == pytest.approx(3, rel=1e-4)
    ends = {found.top[0].token, found.bottom[0].token}
    assert "q" in ends
    scores = stream.unembedding @ (out / out.norm() * stream.final)
    highest = max(abs(found.top[0].score), abs(found.bottom[0].score))
    expected = float(scores[token] - scores[: len(tiny_base.tokenizer)].mean())
    assert highest == pytest.approx(expected, rel=1e-4)


def test_a_site_that_reads_a_token_points_at_it(tiny_base):
    stream = residual_stream(tiny_base.model)
    token = tiny_base.tokenizer.convert_tokens_to_ids("w")
    adapter = made(tiny_base, {GATE: (stream.embedding[token][None], torch.ones(128, 1))})
    (found,) = look_at_weights(Change(tiny_base, adapter)).pointing[GATE]
    assert found.kind == "reads"
    (end,) = [each for each in (found.top[0], found.bottom[0]) if each.token == "w"]
    assert abs(end.score) == pytest.approx(1, abs=1e-4)


def test_overlap_is_one_for_the_same_and_nothing_for_perpendicular_subspaces(tiny_base):
    model = tiny_base.model
    basis = torch.linalg.qr(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)))[0]
    pairs = {site: pair(model, site, scale=1, seed=n) for n, site in enumerate(SITES)}
    chosen = {OUT: basis[:, :4], DOWN: basis[:, [0, 1, 4, 5]], SITES[10]: basis[:, 4:]}
    writers = {site: (pairs[site][0], columns) for site, columns in chosen.items()}
    reader = {LATER: (basis[:, :4].T, pairs[LATER][1])}
    seen = look_at_weights(Change(tiny_base, made(tiny_base, {**writers, **reader})))
    by_name = {each.between: each for each in seen.overlaps}
    assert set(by_name) == {"outputs", "outputs and later inputs"}  # one reader makes no pair
    outputs = by_name["outputs"]
    at = {site: n for n, site in enumerate(outputs.rows)}
    assert outputs.matrix[at[OUT]][at[DOWN]] == pytest.approx(0.5)
    assert outputs.matrix[at[OUT]][at[SITES[10]]] == pytest.approx(0, abs=1e-4)
    assert outputs.matrix[at[OUT]][at[OUT]] is None
    assert outputs.chance == pytest.approx(4 / 64)
    best = outputs.strongest[0]
    assert best.overlap == pytest.approx(0.5) and best.cosine == pytest.approx(1)
    handed = by_name["outputs and later inputs"]
    assert handed.rows == (OUT, DOWN, SITES[10]) and handed.columns == (LATER,)
    first = handed.strongest[0]
    assert (first.first, first.second) == (OUT, LATER)
    assert first.overlap == pytest.approx(1, abs=1e-5)  # its norm's scale is 1 in a fresh model
    assert handed.matrix[1][0] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_left_vectors_are_those_of_a_dense_svd(shape):
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    values, vectors = left_vectors(weight)
    dense = dense_svd(weight)
    torch.testing.assert_close(values, dense.S)
    torch.testing.assert_close((vectors.T @ dense.U).diagonal().abs(), torch.ones_like(values))


def intruders_of(weight, update, top=10, epsilon=0.5):
    """Straight from the paper, with dense SVDs."""
    old, new = dense_svd(weight).U, dense_svd(weight + update).U[:, :top]
    return [n + 1 for n, own in enumerate((old.T @ new).abs().amax(0).tolist()) if own < epsilon]


def test_intruders_are_those_of_dense_matrices(tiny_base, adapter):
    loud = planted(tiny_base, DOWN, loud=0.2, noise=0.05)
    for worn in (adapter, loud):
        change = Change(tiny_base, worn)
        found = look_for_intruders(change, change.sites)
        for site in change.sites:
            weight = tiny_base.model.get_submodule(site).weight.detach()
            expected = intruders_of(weight, worn.deltas[site])
            assert [each.rank for each in found[site]] == expected
            assert all(0 <= each.cosine < 0.5 for each in found[site])
        assert any(found.values())


def test_a_planted_intruder_is_found_and_a_strengthened_direction_is_none(tiny_base):
    weight = tiny_base.model.get_submodule(DOWN).weight.detach()
    dense = torch.linalg.svd(weight, full_matrices=False)
    even = dense.U @ torch.ones(64, 1) / 8  # as far from each of its directions as can be
    into = dense.Vh[3:4]
    new = made(tiny_base, {DOWN: (into, 200 * even * float(dense.S[0]))})
    found = look_at_weights(Change(tiny_base, new), intruders=True).intruders[DOWN]
    assert [each.rank for each in found] == [1]
    assert found[0].cosine == pytest.approx(1 / 8, abs=0.02)
    old = made(tiny_base, {DOWN: (into, 20 * dense.U[:, 3:4] * float(dense.S[0]))})
    assert look_for_intruders(Change(tiny_base, old), [DOWN]) == {DOWN: ()}


def test_what_is_no_low_rank_update_is_named(tiny_base, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["up_proj"], bias="none")
    model = get_peft_model(copy.deepcopy(tiny_base.model), config)
    model.save_pretrained(tmp_path / "mixed")
    seen = look_at_weights(Change(tiny_base, Adapter.load(tmp_path / "mixed")))
    assert set(seen.not_covered) == {f"model.layers.{n}.mlp.up_proj" for n in (0, 1)}
    assert "whole module" in seen.not_covered["model.layers.0.mlp.up_proj"]
    assert all("q_proj" in site for site in seen.sites)
    dora = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    get_peft_model(copy.deepcopy(tiny_base.model), dora).save_pretrained(tmp_path / "dora")
    seen = look_at_weights(Change(tiny_base, Adapter.load(tmp_path / "dora")))
    assert not seen.sites and all("DoRA" in what for what in seen.not_covered.values())


def test_a_model_of_another_kind_has_its_directions_too(tiny_base):
    from loratelier.base import Base

    base = Base.of(copy.deepcopy(tiny("gpt2")), tiny_base.tokenizer, name="gpt2")
    pairs = {
        "transformer.h.0.attn.c_attn": (torch.randn(2, 32), torch.randn(96, 2)),
        "transformer.h.1.mlp.c_proj": (torch.randn(2, 128), torch.randn(32, 2)),
    }
    seen = look_at_weights(Change(base, made(base, pairs)))
    kinds = {site: found[0].kind for site, found in seen.pointing.items()}
    assert kinds == dict(zip(pairs, ("reads", "writes"), strict=True))


def test_on_the_real_demo_base(demo_base):
    sites = ["model.layers.29.mlp.down_proj", "model.layers.3.self_attn.q_proj"]
    pairs = {site: pair(demo_base.model, site, scale=0.01, seed=n) for n, site in enumerate(sites)}
    seen = look_at_weights(Change(demo_base, made(demo_base, pairs)), intruders=True)
    for site in sites:
        down, up = pairs[site]
        weight = demo_base.model.get_submodule(site).weight
        update = (up.double() @ down.double()).norm()
        assert seen.sites[site].norm == pytest.approx(float(update), rel=1e-5)
        assert seen.sites[site].relative == pytest.approx(float(update / weight.norm()), rel=1e-4)
        assert all(math.isfinite(p.score) for each in seen.pointing[site] for p in each.top)
        expected = intruders_of(weight.detach(), up @ down)
        assert [each.rank for each in seen.intruders[site]] == expected
