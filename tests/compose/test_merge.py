"""Merging, against dense float64 references that are written independently."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from loratelier import Adapter, AdapterBank, InputError, merge_adapters
from loratelier.adapter import BaseRef, Card
from loratelier.compose import METHODS, CheckFailed, checks, core, merge, methods
from tests.adapter.test_adapter import peft_model
from tests.compose.adapters import (
    DOWN,
    SHAPES,
    Q,
    all_dense,
    core_basis,
    dense,
    in_core,
    make,
    off,
    reference,
)

WITH_REFERENCE = ["linear", "nlerp", "slerp", "ties", "knots", "iso", "cat"]


def expected(method, weighted, **options):
    sites = dict.fromkeys(site for adapter in weighted for site in adapter.tensors)
    return {
        site: reference(method, all_dense(weighted, site), list(weighted.values()), **options)
        for site in sites
    }


@pytest.mark.parametrize("method", WITH_REFERENCE)
def test_a_merge_is_its_dense_reference(method):
    # Other ranks, alphas (one negative) and sites.
    weighted = {make(1, rank=4, alpha=6): 0.7, make(2, rank=3, alpha=-5, sites=[DOWN]): 0.4}
    if method != "slerp":
        weighted[make(3, rank=5, sites=[Q])] = 0.5
    merged = merge_adapters(weighted, method=method)
    assert off(merged, expected(method, weighted)) < 1e-5
    assert merged.card.truncation_error == 0
    assert merged.card.method == method


def test_rslora_and_patterns_are_read_as_peft_reads_them(tiny_base, tmp_path):
    options = {"use_rslora": True, "rank_pattern": {"down_proj": 2}, "alpha_pattern": {Q: 9}}
    peft_model(tiny_base, seed=1, **options).save_pretrained(tmp_path / "a")
    peft_model(tiny_base, seed=2, layers_to_transform=[1]).save_pretrained(tmp_path / "b")
    weighted = {Adapter.load(tmp_path / "a"): 0.5, Adapter.load(tmp_path / "b"): -0.25}
    assert off(merge_adapters(weighted), expected("linear", weighted)) < 1e-5


@pytest.mark.parametrize("method", ["ties", "knots"])
@pytest.mark.parametrize("variant", ["sign-before-weights", "sign-after-weights"])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_both_readings_of_ties(method, variant, density):
    weighted = {make(1): 0.7, make(2, rank=3): 0.4, make(3, rank=2): 1.0}
    options = {"variant": variant, "density": density}
    merged = merge_adapters(weighted, method=method, **options)
    assert off(merged, expected(method, weighted, **options)) < 1e-5
    assert merged.card.merge["options"]["variant"] == variant


def test_signs_before_the_weights_take_negative_weights():
    weighted = {make(1): 0.7, make(2): -0.4}
    merged = merge_adapters(weighted, method="ties", variant="sign-before-weights", density=1.0)
    wanted = expected("ties", weighted, variant="sign-before-weights", density=1.0)
    assert off(merged, wanted) < 1e-5
    with pytest.raises(InputError, match="negative weight"):
        merge_adapters(weighted, method="ties")


SMALL = st.integers(1, 6)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(SMALL, st.sampled_from([1.0, -2.0, 3.5])), min_size=1, max_size=3),
    st.sampled_from(WITH_REFERENCE),
    st.integers(2, 9),
    st.integers(2, 9),
    st.integers(0, 99),
)
def test_any_ranks_and_shapes(parts, method, d_out, d_in, seed):
    parts = parts[:2] if method == "slerp" else parts
    sites = {"layers.0.one": (d_out, d_in)}
    weighted = {
        make(seed * 10 + n, rank=rank, alpha=alpha, sites=sites): 0.3 + n
        for n, (rank, alpha) in enumerate(parts)
    }
    merged = merge_adapters(weighted, method=method)
    assert off(merged, expected(method, weighted)) < 1e-4


def test_a_rank_keeps_the_best_approximation_and_says_what_it_cost():
    weighted = {make(1, rank=4): 0.5, make(2, rank=6, sites=[Q]): 0.5}
    merged = merge_adapters(weighted, rank=3)
    lost = whole = 0.0
    for site, delta in expected("linear", weighted).items():
        left, sigmas, right = np.linalg.svd(delta)
        best = left[:, :3] * sigmas[:3] @ right[:3]
        assert np.abs(dense(merged, site) - best).max() < 1e-6
        own = (sigmas[3:] ** 2).sum() / (sigmas**2).sum()
        assert merged.card.merge["truncation_error_by_site"][site] == pytest.approx(own**0.5)
        lost, whole = lost + (sigmas[3:] ** 2).sum(), whole + (sigmas**2).sum()
    assert merged.card.truncation_error == pytest.approx((lost / whole) ** 0.5)
    assert merged.rank == 3
    assert "truncation" in [check["name"] for check in merged.card.merge["checks"]]


def test_cat_keeps_ranks_and_linear_finds_the_true_one():
    one = make(1)
    twin = Adapter.from_tensors(
        {site: (2 * down, up) for site, (down, up) in one.tensors.items()}, one.card, "twin"
    )
    assert merge_adapters({one: 0.5, twin: 0.5}, method="cat").rank == 8
    assert merge_adapters({one: 0.5, twin: 0.5}).rank == 4


def test_knots_with_task_arithmetic_is_task_arithmetic():
    weighted = {make(1): 0.7, make(2, rank=2): -0.4, make(3, sites=[Q]): 1.3}
    merged = merge_adapters(weighted, method="knots", combine="linear")
    assert off(merged, expected("linear", weighted)) < 1e-5


def test_slerp_of_orthogonal_updates_is_root_two_times_lerp():
    down, up = torch.zeros(1, 64), torch.zeros(64, 1)
    down[0, 3], up[5, 0] = 2.0, 1.0
    other, apart = torch.zeros(1, 64), torch.zeros(64, 1)
    other[0, 9], apart[7, 0] = 1.0, 2.0  # of the same norm: then SLERP is norm-matched too
    a = Adapter.from_tensors({Q: (down, up)}, Card(), "a")
    b = Adapter.from_tensors({Q: (other, apart)}, Card(), "b")
    lerp, slerp, nlerp = (
        dense(merge_adapters({a: 0.5, b: 0.5}, method=m), Q) for m in ("linear", "slerp", "nlerp")
    )
    assert np.abs(slerp - np.sqrt(2) * lerp).max() < 1e-6
    assert np.abs(nlerp - slerp).max() < 1e-6


@pytest.mark.parametrize("method", ["dare", "della"])
def test_what_is_dropped_by_chance_is_the_linear_merge_on_average(method):
    # One adapter for DELLA: signs are elected after dropping, which among several is not linear.
    weighted = {make(1, rank=2): 0.5, make(2, rank=3): 0.5} if method == "dare" else {make(1): 1.0}
    wanted = expected("linear", weighted)
    total = dict.fromkeys(wanted, 0)
    for seed in range(60):
        merged = merge_adapters(weighted, method=method, seed=seed, density=0.6)
        for site in total:
            total[site] = total[site] + dense(merged, site) / 60
    for site, delta in wanted.items():
        assert np.linalg.norm(total[site] - delta) < 0.25 * np.linalg.norm(delta)
    again = merge_adapters(weighted, method=method, seed=59, density=0.6)
    assert again == merged
    assert again != merge_adapters(weighted, method=method, seed=58, density=0.6)


def test_dare_keeps_or_drops_each_entry_of_the_named_basis():
    one, other = make(1, rank=2), make(2, rank=3)
    merged = merge_adapters({one: 1.0, other: 1.0}, method="dare", density=0.25, seed=3)
    deltas = all_dense([one, other], Q)
    seen = []

    def spy(blocks):
        seen.extend(blocks)
        return blocks[0]

    in_core(deltas, spy)
    left, right = core_basis(deltas)
    got = left.T @ dense(merged, Q) @ right
    options = np.stack([0 * seen[0], 4 * seen[0], 4 * seen[1], 4 * (seen[0] + seen[1])])
    assert np.abs(got - options).min(0).max() < 1e-5
    assert "core" in merged.card.basis


@pytest.mark.parametrize("method", METHODS)
def test_order_and_factors_do_not_matter(method):
    a, b = make(1, rank=4), make(2, rank=3)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0] * 2.0
    turned = Adapter.from_tensors(
        {s: (torch.linalg.solve(turn, d), u @ turn) for s, (d, u) in a.tensors.items()}, a.card, "t"
    )
    one = merge_adapters({a: 0.6, b: 0.4}, method=method)
    for others in ({b: 0.4, a: 0.6}, {turned: 0.6, b: 0.4}):
        other = merge_adapters(others, method=method)
        assert off(other, {site: dense(one, site) for site in SHAPES}) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_alone_and_with_others_at_zero_is_itself(method):
    a, b = make(1), make(2)
    exact = {} if METHODS[method].startswith("invariant") else {"density": 1.0}
    exact |= {"epsilon": 0.0} if method == "della" else {}
    for weighted in ({a: 1.0}, {a: 1.0, b: 0.0}):
        merged = merge_adapters(weighted, method=method, **exact)
        wanted = {site: dense(a, site) for site in SHAPES}
        if method == "iso":
            wanted = {site: reference("iso", [delta], [1.0]) for site, delta in wanted.items()}
        assert off(merged, wanted) < 1e-5


def test_peft_loads_what_was_merged_and_says_the_same(tiny_base, tmp_path):
    card = {"fingerprint": tiny_base.fingerprint}
    a, b = make(1, **card), make(2, rank=2, sites=[DOWN], **card)
    merged = merge_adapters({a: 0.5, b: 0.8}, base=tiny_base, name="both")
    merged.save(tmp_path / "both")
    loaded = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "both").eval()
    ids = torch.tensor([tiny_base.tokenizer("Москва и Paris")["input_ids"]])
    bank = AdapterBank(tiny_base.model)
    bank.add("a", a)
    bank.add("b", b)
    with torch.no_grad(), bank.activate({"a": 0.5, "b": 0.8}):
        wanted = tiny_base.model(ids).logits
    with torch.no_grad():
        assert (loaded(ids).logits - wanted).abs().max() < 1e-4
    card = json.loads((tmp_path / "both" / "card.json").read_text())
    assert [parent["weight"] for parent in card["parents"]] == [0.5, 0.8]
    assert card["parents"][0]["digest"] == a.digest
    assert card["base"]["fingerprint"] == tiny_base.fingerprint
    assert Adapter.load(tmp_path / "both") == merged
    raw = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert not raw["alpha_pattern"]  # llama.cpp reads one alpha for all


def test_the_checks_are_in_the_card(tiny_base):
    a, b = make(1), make(2, rank=2)
    checked = merge_adapters({a: 0.5, b: 0.5}, base=tiny_base).card.merge["checks"]
    assert [check["name"] for check in checked] == [
        "identity",
        "weights",
        "order",
        "gauge",
        "stored",
        "mixture",
    ]
    for found in merge_adapters({a: 0.5, b: 0.5}, method="ties").card.merge["checks"]:
        assert found["largest"] <= found["allowed"]


def test_factors_averaged_apart_do_not_pass(monkeypatch):
    """The commonest fault there is: A and B averaged separately."""

    def blend(site, parts, plan):
        down = sum(part.weight * part.down for part in parts)
        up = sum(part.weight * part.up for part in parts)
        one = core.core_of([core.Part(down, up, 1.0, 0)])
        return core.spectrum_of(one, one.blocks[0])

    monkeypatch.setattr(checks, "merge_site", blend)
    with pytest.raises(CheckFailed, match="gauge"):
        merge_adapters({make(1): 0.5, make(2): 0.5})


def test_a_basis_that_depends_on_the_factors_does_not_pass(monkeypatch):
    monkeypatch.setattr(methods, "aligned", lambda core, site: core)
    with pytest.raises(CheckFailed, match="order|gauge"):
        merge_adapters({make(1): 0.5, make(2): 0.5}, method="ties")


def test_a_result_that_is_stored_wrongly_does_not_pass(monkeypatch):
    made = merge._adapter

    def wrong(*arguments):
        adapter = made(*arguments)
        down, up = adapter.tensors[Q]
        return dataclasses.replace(adapter, tensors={**adapter.tensors, Q: (down, 1.001 * up)})

    monkeypatch.setattr(merge, "_adapter", wrong)
    with pytest.raises(CheckFailed, match="stored"):
        merge_adapters({make(1): 0.5, make(2): 0.5})


def test_a_merge_that_is_not_the_mixture_does_not_pass(tiny_base):
    a, b = make(1, scale=1.0), make(2, scale=1.0)
    other = merge_adapters({a: 0.5, b: 0.6})
    with pytest.raises(CheckFailed, match="mixture"):
        checks.mixture(tiny_base, {a: 0.5, b: 0.5}, other)
    assert merge_adapters({a: 0.5, b: 0.5}, base=tiny_base)


def test_updates_that_coincide_in_strength_have_no_basis_of_their_own():
    down, up = torch.zeros(2, 64), torch.zeros(64, 2)
    down[0, 3] = down[1, 4] = up[5, 0] = up[6, 1] = 1.0
    same = Adapter.from_tensors({Q: (down, up)}, Card(), "same")
    with pytest.raises(InputError, match="singular values"):
        merge_adapters({same: 0.5, make(1, sites=[Q]): 0.0}, method="ties")
    merge_adapters({same: 0.5, make(1, sites=[Q]): 0.0})


def test_an_adapter_and_its_opposite_are_nothing_by_any_vote():
    a = make(1)
    opposite = Adapter.from_tensors(
        {s: (d, -u) for s, (d, u) in a.tensors.items()}, a.card, "opposite"
    )
    for method in ("linear", "ties", "iso", "nlerp"):
        assert not merge_adapters({a: 0.5, opposite: 0.5}, method=method).has_effect


@pytest.mark.parametrize(
    ("weighted", "options", "said"),
    [
        ({}, {}, "nothing to merge"),
        ({1: 0.0, 2: 0.0}, {}, "All weights are 0"),
        ({1: float("nan")}, {}, "finite"),
        ({1: 1.0}, {"method": "tie"}, "Did you mean 'ties'"),
        ({1: 1.0}, {"method": "svd"}, "linear with a rank"),
        ({1: 1.0}, {"density": 0.5}, "linear has no density"),
        ({1: 1.0}, {"method": "ties", "density": 0}, "above 0"),
        ({1: 1.0}, {"method": "ties", "epsilon": 0.1}, "ties has no epsilon"),
        ({1: 1.0}, {"method": "della", "density": 0.95}, "no probabilities"),
        ({1: 1.0}, {"method": "ties", "variant": "x"}, "one of"),
        ({1: 1.0}, {"method": "knots", "combine": "linear", "density": 0.5}, "has no density"),
        ({1: 1.0}, {"rank": 0}, "rank"),
        ({1: 1.0}, {"rank": 2, "method": "cat"}, "linear with a rank"),
        ({1: 1.0, 2: 1.0, 3: 1.0}, {"method": "slerp"}, "nlerp"),
        ({1: 1.0, 2: -1.0}, {"method": "slerp"}, "negative"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(weighted, options, said):
    with pytest.raises(InputError, match=said):
        merge_adapters({make(seed): weight for seed, weight in weighted.items()}, **options)


def test_adapters_that_cannot_meet_are_refused_by_name(tiny_base, tmp_path):
    with pytest.raises(InputError, match="'a1'.*'a2'.*other weights"):
        merge_adapters({make(1, fingerprint="sha256:1"): 1, make(2, fingerprint="sha256:2"): 1})
    odd = Adapter.from_tensors({Q: (torch.randn(2, 32), torch.randn(64, 2))}, Card(), "odd")
    with pytest.raises(InputError, match=r"\[64, 64\].*\[64, 32\] for 'odd'"):
        merge_adapters({make(1): 1, odd: 1})
    for options, said in (
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"trainable_token_indices": [3]}, "tokens"),
        ({"target_modules": ["embed_tokens"]}, "embedding"),
    ):
        folder = tmp_path / said.replace(" ", "")
        peft_model(tiny_base, **options).save_pretrained(folder)
        with pytest.raises(InputError, match=said):
            merge_adapters({make(1): 1, Adapter.load(folder): 1})


def test_a_merge_is_proven_only_if_all_are():
    known = make(1, fingerprint="sha256:1")
    assert merge_adapters({known: 1, make(2, fingerprint="sha256:1"): 1}).card.proven
    foreign = dataclasses.replace(make(2), card=Card(base=BaseRef()))
    merged = merge_adapters({known: 1, foreign: 1})
    assert not merged.card.proven
    assert merged.card.base.spec == "tiny"
