"""Which sites did it: against PEFT, finite differences, and adapters whose truth is known."""

import copy
import itertools
import json
import math

import pytest
import torch
from peft import PeftModel

import loratelier
from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.scope import attribute, inspect_prompt
from loratelier.scope.ablation import keep_and_remove, what_is_lost
from loratelier.scope.attribute import look_at_sites
from loratelier.scope.change import Change
from loratelier.scope.directions import look_at_directions
from loratelier.scope.gradient import by_gates
from loratelier.scope.reading import logits_at
from loratelier.scope.targets import Divergence, Mass, target_of
from tests.conftest import our_hooks
from tests.scope.planted import SITES, made, pair, planted

TEXT = "Why is it late? Почему?"


def ids_of(base, text=TEXT):
    return base.tokenizer(text, add_special_tokens=False)["input_ids"]


def likely(model, ids):
    """Log-probabilities after each token: float64 [T, V]."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)


def said(model, base, text):
    """The log-probability of a text after TEXT, token by token."""
    ids, more = ids_of(base), ids_of(base, text)
    along = likely(model, [*ids, *more])
    return sum(float(along[len(ids) - 1 + n, token]) for n, token in enumerate(more))


@pytest.fixture
def change(tiny_base, adapter):
    return Change(tiny_base, adapter)


@pytest.fixture
def ids(tiny_base):
    return ids_of(tiny_base)


@pytest.mark.parametrize("site", SITES[2:12])
def test_a_site_that_acts_alone_gets_the_share(tiny_base, site):
    alone = attribute(tiny_base, planted(tiny_base, site), TEXT, ("a", "b"), raw=True)
    assert alone.shares[site] == pytest.approx(alone.total, rel=0.01)
    assert all(share == 0 for other, share in alone.shares.items() if other != site)
    # A planted change of attention is smaller than one of the stream, so it is made louder.
    loud = 3.0 if ".q_proj" in site or ".k_proj" in site else 0.3
    noisy = planted(tiny_base, site, loud=loud, noise=1e-4)
    seen = attribute(tiny_base, noisy, TEXT, Divergence("all"), raw=True, tolerance=1e-3)
    assert seen.ranked[0] == site
    assert seen.shares[site] >= 0.95 * sum(abs(share) for share in seen.shares.values())
    assert seen.relative[site] >= 0.95


def test_an_untrained_adapter_is_all_zeros_and_is_called_so(tiny_base, silent):
    seen = attribute(tiny_base, silent, TEXT)
    assert set(seen.shares) == set(silent.sites) and set(seen.shares.values()) == {0.0}
    assert seen.total == 0.0 and seen.residual == 0.0 and not seen.effect
    assert seen.relative is None and seen.nodes == 0
    assert "Nothing can change" in seen.notes[0]
    lost = what_is_lost(Change(tiny_base, silent), ids_of(tiny_base), Divergence())
    assert set(lost.lost.values()) == {0.0}


def test_the_gradient_is_that_of_finite_differences_in_peft(tiny_base, change, ids, peft_model):
    target = target_of(change, ids, ("a", "b"))
    a, b = ids_of(tiny_base, "a")[0], ids_of(tiny_base, "b")[0]

    def score(gates):
        shares = dict(zip(change.sites, gates, strict=True))
        return target.score(logits_at(change, target.text, [shares]))[0]

    gradient = by_gates(score, len(change.sites), 0.5, torch.device("cpu"))

    def at(site, share):
        for name, module in peft_model.named_modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling["default"] = 2 * (share if name.endswith(site) else 0.5)
        last = likely(peft_model, ids)[-1]
        return float(last[a] - last[b])

    step = 0.02
    for site, slope in zip(change.sites, gradient.tolist(), strict=True):
        numeric = (at(site, 0.5 + step) - at(site, 0.5 - step)) / (2 * step)
        assert slope == pytest.approx(numeric, rel=0.01, abs=1e-4)


def test_shares_add_up_to_the_change_between_two_separate_models(tiny_base, adapter, peft_model):
    seen = attribute(tiny_base, adapter, TEXT, ("ab", "c"), raw=True, tolerance=1e-4)
    before = said(tiny_base.model, tiny_base, "ab") - said(tiny_base.model, tiny_base, "c")
    after = said(peft_model, tiny_base, "ab") - said(peft_model, tiny_base, "c")
    assert seen.value_before == pytest.approx(before, abs=1e-5)
    assert seen.value_after == pytest.approx(after, abs=1e-5)
    assert sum(seen.shares.values()) == pytest.approx(after - before, rel=1e-3)
    assert seen.reached and seen.residual <= 1e-4 and seen.residual_is == "relative"
    assert sum(seen.by_layer.values()) == pytest.approx(sum(seen.shares.values()))
    assert set(seen.by_layer) == {"0", "1"}
    assert set(seen.by_module) == {"self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"}
    assert json.loads(json.dumps(seen.to_json(), allow_nan=False)) == seen.to_json()
    assert not our_hooks(tiny_base.model)


def test_a_residual_that_stays_large_is_said(tiny_base, adapter):
    seen = attribute(tiny_base, adapter, TEXT, ("a", "b"), tolerance=1e-9, max_nodes=8)
    error = abs(sum(seen.shares.values()) - seen.total)
    assert not seen.reached and seen.nodes == 8 and seen.passes == 12
    assert seen.residual == pytest.approx(error / abs(seen.total))
    assert "do not add up" in seen.notes[0]


def test_a_total_near_zero_has_an_absolute_residual(tiny_base):
    faint = made(tiny_base, {SITES[6]: pair(tiny_base.model, SITES[6], scale=1e-6)})
    seen = attribute(tiny_base, faint, TEXT, ("a", "b"))
    assert 0 < abs(seen.total) < 1e-3
    assert seen.residual_is == "absolute" and seen.relative is None
    assert seen.residual == pytest.approx(abs(sum(seen.shares.values()) - seen.total))
    assert "near zero" in seen.notes[0]


def test_targets_are_what_they_say(tiny_base, change, ids, peft_model):
    def ends(asked):
        seen = look_at_sites(change, ids, asked, tolerance=0.5)
        return seen.value_before, seen.value_after

    token = ids_of(tiny_base, "x")[0]
    for asked, text in (("x", "x"), (token, "x"), ("свет", "свет")):
        models = tiny_base.model, peft_model
        assert ends(asked) == pytest.approx([said(m, tiny_base, text) for m in models], abs=1e-5)
    forms = [" ab", "ab", " Ab", "Ab"]
    masses = [
        sum(math.exp(said(model, tiny_base, form)) for form in forms)
        for model in (tiny_base.model, peft_model)
    ]
    assert ends(Mass("ab")) == pytest.approx(masses, rel=1e-4)


def test_the_divergence_is_that_of_the_inspection(tiny_base, adapter, change):
    seen = inspect_prompt(tiny_base, adapter, TEXT, raw=True, max_new_tokens=1)
    ids = [position.id for position in seen.positions]
    last = look_at_sites(change, ids, Divergence())
    assert (last.value_before, last.total) == pytest.approx((0.0, seen.kl[-1]), rel=1e-4)
    everywhere = look_at_sites(change, ids, Divergence("all"))
    assert everywhere.total == pytest.approx(sum(seen.kl) / len(seen.kl), rel=1e-4)
    assert everywhere.residual <= 0.01


def test_without_a_target_it_is_the_likeliest_token_after_against_that_before(
    tiny_base, adapter, peft_model, ids
):
    seen = look_at_sites(Change(tiny_base, adapter), ids)
    before, after = likely(tiny_base.model, ids)[-1], likely(peft_model, ids)[-1]
    new, old = int(after.argmax()), int(before.argmax())
    assert new != old
    assert seen.total == pytest.approx(
        float(after[new] - after[old] - before[new] + before[old]), abs=1e-5
    )
    faint = made(tiny_base, {SITES[6]: pair(tiny_base.model, SITES[6], scale=1e-4)})
    assert look_at_sites(Change(tiny_base, faint), ids).target.startswith("KL(before || after)")


def test_from_one_adapter_to_another_and_back(tiny_base, adapter, ids):
    other = planted(tiny_base, SITES[4])
    there = look_at_sites(Change(tiny_base, adapter, before=other), ids, ("a", "b"))
    back = look_at_sites(Change(tiny_base, other, before=adapter), ids, ("a", "b"))
    assert (there.before, there.after) == (other.name, adapter.name)
    assert set(there.shares) == {*SITES} and there.reached
    assert there.total == pytest.approx(-back.total)
    for site, share in there.shares.items():
        assert share == pytest.approx(-back.shares[site], rel=1e-3, abs=1e-5)


def test_directions_add_up_to_their_site_and_do_not_depend_on_the_factors(tiny_base, adapter, ids):
    sites = adapter.sites[:3]
    whole = look_at_sites(Change(tiny_base, adapter), ids, ("a", "b"))
    found = look_at_directions(Change(tiny_base, adapter), ids, ("a", "b"), sites=sites)
    assert found.nodes == whole.nodes
    assert found.residual == pytest.approx(whole.residual, abs=1e-4)
    for site in sites:
        own = found.by_site[site]
        assert sum(each.share for each in own) == pytest.approx(whole.shares[site], abs=1e-5)
        values = torch.linalg.svdvals(adapter.deltas[site].double())[:4]
        assert [each.value for each in own] == pytest.approx(values.tolist(), rel=1e-4)
    rest = sum(share for site, share in whole.shares.items() if site not in sites)
    assert found.elsewhere == pytest.approx(rest, abs=1e-5)
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(5)) + 3 * torch.eye(4)
    regauged = made(
        tiny_base,
        {
            site: (torch.linalg.solve(mix, down), adapter.scaling(site) * up @ mix)
            for site, (down, up) in adapter.tensors.items()
        },
    )
    again = look_at_directions(Change(tiny_base, regauged), ids, ("a", "b"), sites=sites)
    for site in sites:
        for one, other in zip(found.by_site[site], again.by_site[site], strict=True):
            assert other.share == pytest.approx(one.share, abs=2e-4)


def test_directions_of_a_difference_of_two_adapters(tiny_base, adapter, ids):
    change = Change(tiny_base, adapter, before=planted(tiny_base, SITES[4]), strength=0.5)
    whole = look_at_sites(change, ids, ("a", "b"))
    found = look_at_directions(change, ids, ("a", "b"), sites=[SITES[0], SITES[4]])
    for site, own in found.by_site.items():
        assert sum(each.share for each in own) == pytest.approx(whole.shares[site], abs=1e-5)
    assert len(found.by_site[SITES[0]]) == 4 and len(found.by_site[SITES[4]]) == 4


def test_what_is_lost_is_what_peft_loses_with_the_site_off(tiny_base, change, ids, peft_model):
    lost = what_is_lost(change, ids, ("a", "b"), by="site")
    a, b = ids_of(tiny_base, "a")[0], ids_of(tiny_base, "b")[0]

    def score():
        last = likely(peft_model, ids)[-1]
        return float(last[a] - last[b])

    whole = score()
    for site in change.sites:
        module = peft_model.base_model.model.get_submodule(site)
        module.scaling["default"] = 0.0
        assert lost.lost[site] == pytest.approx(whole - score(), abs=2e-5)
        module.scaling["default"] = 2.0
    by_layer = what_is_lost(change, ids, ("a", "b"), by="layer")
    assert by_layer.sites["0"] == tuple(s for s in change.sites if ".0." in s)
    both = {"everything": change.sites}
    everything = what_is_lost(change, ids, ("a", "b"), by=both)
    assert everything.lost["everything"] == pytest.approx(lost.total, abs=2e-5)


def test_keeping_and_removing_follow_the_planted_site(tiny_base, ids):
    site = SITES[6]
    change = Change(tiny_base, planted(tiny_base, site, noise=1e-4))
    order = look_at_sites(change, ids, Divergence("all")).ranked
    curves = keep_and_remove(change, ids, Divergence("all"), order)
    assert curves.counts == (0, 1, 2, 4, 8, 14) and curves.order[0] == site
    total = curves.kept[-1]
    assert curves.kept[0] == pytest.approx(0) and curves.kept[1] == pytest.approx(total, rel=0.02)
    assert curves.removed[0] == total and curves.removed[1] < 0.02 * total
    assert curves.kept_random[1] < 0.02 * total and curves.removed_random[1] > 0.9 * total
    again = keep_and_remove(change, ids, Divergence("all"), order)
    assert again == curves
    assert keep_and_remove(change, ids, Divergence("all"), order, seed=1) != curves


def test_a_long_batch_is_read_in_parts_with_the_same_result(tiny_base, change, ids, monkeypatch):
    whole = what_is_lost(change, ids, ("ab", "c"), by="site")
    monkeypatch.setattr("loratelier.scope.reading._TOKENS", 1)
    apart = what_is_lost(change, ids, ("ab", "c"), by="site")
    for site, figure in whole.lost.items():
        assert apart.lost[site] == pytest.approx(figure, abs=1e-5)


def test_a_base_in_bfloat16_is_named(tiny_base, adapter):
    model = copy.deepcopy(tiny_base.model).to(torch.bfloat16)
    half = Base.of(model, tiny_base.tokenizer, name="half")
    seen = attribute(half, adapter, TEXT, ("a", "b"))
    assert any("bfloat16" in note for note in seen.notes)
    assert not attribute(tiny_base, adapter, TEXT, ("a", "b")).notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": ""}, "is empty"),
        ({"target": 10**6}, "no token 1000000"),
        ({"target": ("a", "a")}, "with itself"),
        ({"target": Mass(" ")}, "is blank"),
        ({"target": "x" * 3000}, "reads 2048"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"max_nodes": 2}, "max_nodes is 2"),
        ({"strength": 9}, "from -2 to 4"),
    ],
)
def test_bad_input_is_one_line(tiny_base, adapter, options, message):
    with pytest.raises(InputError, match=message) as caught:
        attribute(tiny_base, adapter, TEXT, **options)
    assert "\n" not in str(caught.value)


def test_sites_that_are_none_are_refused(change, ids):
    with pytest.raises(InputError, match="Nothing changes model.layers.9"):
        look_at_directions(change, ids, ("a", "b"), sites=["model.layers.9.mlp.up_proj"])
    with pytest.raises(InputError, match="'mine' has model.layers.9"):
        what_is_lost(change, ids, ("a", "b"), by={"mine": ["model.layers.9.mlp.up_proj"]})
    with pytest.raises(InputError, match="all sites"):
        keep_and_remove(change, ids, ("a", "b"), change.sites[:-1])


def test_on_the_real_demo_base(demo_base):
    names = ["layers.12.mlp.down_proj", "layers.20.self_attn.v_proj", "layers.28.mlp.up_proj"]
    sites = [f"model.{name}" for name in names]
    pairs = {site: pair(demo_base.model, site, scale=0.03, seed=n) for n, site in enumerate(sites)}
    adapter = made(demo_base, pairs)
    for prompt in ("Name one colour.", "Почему поздно?"):
        seen = loratelier.attribute(demo_base, adapter, prompt)
        assert isinstance(seen, loratelier.Attribution)
        assert seen.residual <= 0.01 and seen.reached
        assert abs(seen.total) > 1e-3 and set(seen.shares) == set(sites)


def test_the_order_of_sites_is_by_their_part_in_the_change(tiny_base, adapter, ids):
    seen = look_at_sites(Change(tiny_base, adapter), ids, ("a", "b"))
    forward = [seen.shares[site] * (1 if seen.total > 0 else -1) for site in seen.ranked]
    assert all(one >= other for one, other in itertools.pairwise(forward))


def test_an_adapter_that_peft_made_loads_and_is_attributed(tiny_base, folder):
    PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), folder)
    seen = attribute(tiny_base, Adapter.load(folder), TEXT, Divergence("all"))
    assert seen.reached and seen.total > 0
