"""The conflict report, against dense figures and cases worked out by hand."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from loratelier import Adapter, AdapterBank, InputError, compare_adapters, merge_adapters
from loratelier.adapter import Card
from loratelier.compose.picture import by_site, matrix
from tests.compose.adapters import DOWN, SHAPES, Q, dense, make


def changed(adapter, name, factor=1.0, sites=None):
    pairs = {
        site: (down, factor * adapter.scaling(site) * up)
        for site, (down, up) in adapter.tensors.items()
        if sites is None or site in sites
    }
    return Adapter.from_tensors(pairs, adapter.card, name)


def sparse(entries, name, shape=(64, 64), site=Q):
    """An update of a few entries, as {(row, column): value}."""
    down, up = torch.zeros(len(entries), shape[1]), torch.zeros(shape[0], len(entries))
    for number, ((row, column), value) in enumerate(entries.items()):
        down[number, column], up[row, number] = 1.0, value
    return Adapter.from_tensors({site: (down, up)}, Card(), name)


def test_cosines_are_those_of_the_dense_updates():
    adapters = [make(1, alpha=-3), make(2, rank=2, sites=[DOWN]), make(3, rank=5, scale=0.4)]
    adapters.append(merge_adapters({adapters[0]: 1.0, adapters[2]: 0.5}, name="both"))
    found = compare_adapters(adapters)
    assert found.names == ("a1", "a2", "a3", "both")
    wholes = [
        np.concatenate(
            [
                (dense(a, s) if s in a.tensors else np.zeros(shape)).ravel()
                for s, shape in SHAPES.items()
            ]
        )
        for a in adapters
    ]
    for i, one in enumerate(wholes):
        for j, other in enumerate(wholes):
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert found.cosine[i][j] == pytest.approx(cosine, abs=1e-6)
    for each in found.sites:
        one, other = (dense(adapters[place], each.site) for place in each.pair)
        cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
        assert each.cosine == pytest.approx(cosine, abs=1e-6)
        assert each.norms == pytest.approx((np.linalg.norm(one), np.linalg.norm(other)))


def test_overlap_is_the_mean_squared_cosine_of_principal_angles():
    one, other = make(1, rank=4), make(2, rank=3)
    found = compare_adapters([one, other])
    for each in found.sites:
        (down, up), (down2, up2) = one.tensors[each.site], other.tensors[each.site]
        for overlap, spans in (
            (each.overlap_out, (up, up2)),
            (each.overlap_in, (down.T, down2.T)),
        ):
            # The trace of two projectors is the sum of the squared cosines of the angles.
            onto = [s.double().numpy() @ np.linalg.pinv(s.double().numpy()) for s in spans]
            assert overlap == pytest.approx(np.trace(onto[0] @ onto[1]) / 3, abs=1e-9)
    assert found.overlap[0][1] < 3 * found.sites[0].chance


def test_sign_conflict_by_hand():
    """D1 = diag(3, 1), D2 = diag(-1, 2): along the first axis the second takes 1 of the first's 3,
    along the other nothing, so 1 of 4; the first takes all of the second's 1 there, so 1 of 3.
    """
    one = sparse({(0, 0): 3.0, (1, 1): 1.0}, "one")
    other = sparse({(0, 0): -1.0, (1, 1): 2.0}, "other")
    found = compare_adapters([one, other])
    assert found.sign_conflict[0][1] == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert found.sign_conflict[0][0] == 0.0
    assert found.cosine[0][1] == pytest.approx(-1 / (10 * 5) ** 0.5)
    # On other axes they do not meet: no conflict, no overlap.
    apart = compare_adapters([one, sparse({(2, 2): -3.0, (3, 3): 1.0}, "apart")])
    assert (apart.cosine[0][1], apart.overlap[0][1], apart.sign_conflict[0][1]) == (0, 0, 0)
    assert apart.advice.way == "merge"


def test_an_adapter_with_itself_and_with_its_opposite():
    one = make(1)
    found = compare_adapters([one, changed(one, "twin"), changed(one, "opposite", -2.0)])
    assert found.cosine[0][1] == pytest.approx(1)
    assert found.overlap[0][1] == pytest.approx(1)
    assert found.sign_conflict[0][1] == pytest.approx(0)
    assert found.cosine[0][2] == pytest.approx(-1)
    # The stronger loses half of itself, the weaker all.
    assert found.sign_conflict[0][2] == pytest.approx((1 + 1 / 2) / 2)
    assert found.advice.way == "route"
    assert not found.advice.measured
    assert {each.pair for each in found.clashes} == {(0, 2), (1, 2)}
    assert compare_adapters([one, changed(one, "twin")]).advice.way == "merge"


def test_clashes_are_where_both_act_strongly():
    one = make(1)
    loud = {Q: 3.0, DOWN: 0.01}
    pairs = {s: (d, -loud[s] * u) for s, (d, u) in one.tensors.items()}
    other = Adapter.from_tensors(pairs, one.card, "other")
    base = {s: (d, loud[s] * u) for s, (d, u) in one.tensors.items()}
    found = compare_adapters([Adapter.from_tensors(base, one.card, "one"), other])
    assert [each.site for each in found.clashes] == [Q]
    assert len(found.sites) == 2


def test_adapters_of_other_sites_do_not_meet():
    found = compare_adapters([make(1, sites=[Q]), make(2, sites=[DOWN])])
    assert found.sites == ()
    assert (found.cosine[0][1], found.overlap[0][1], found.sign_conflict[0][1]) == (0, 0, 0)
    assert "merge" in found.advice.sentence.lower()


def taught(base, text, name, seed):
    """An adapter that has learned one text."""
    from peft import LoraConfig, get_peft_model

    from tests.conftest import make_tiny

    model, _ = make_tiny()
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    ids = torch.tensor([base.tokenizer(text)["input_ids"]])
    steps = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        steps.zero_grad()
        wrapped(input_ids=ids, labels=ids).loss.backward()
        steps.step()
    return Adapter.from_peft(wrapped, Card(), name)


TEXTS = ("Бег по утрам бодрит.", "Sonnets have fourteen lines.")


def test_interference_is_measured_on_each_ones_rows(tiny_base):
    sport, poet = taught(tiny_base, TEXTS[0], "sport", 1), taught(tiny_base, TEXTS[1], "poet", 2)
    held_out = {sport: [TEXTS[0]], poet: [TEXTS[1], "Sonnets have lines."]}
    merged = merge_adapters({sport: 1.0, poet: 1.0})
    found = compare_adapters([sport, poet], base=tiny_base, held_out=held_out, merged=merged)
    first, second = found.interference
    assert (first.adapter, first.rows, second.rows) == ("sport", 1, 2)
    ids = torch.tensor([[*tiny_base.tokenizer(TEXTS[0])["input_ids"], 2]])
    bank = AdapterBank(tiny_base.model)
    bank.add("sport", sport)
    bank.add("poet", poet)
    for way, mix in (
        ("base", None),
        ("alone", "sport"),
        ("soft", {"sport": 0.5, "poet": 0.5}),
        ("full", {"sport": 1.0, "poet": 1.0}),
    ):
        with torch.no_grad(), bank.activate(mix):
            loss = float(tiny_base.model(input_ids=ids, labels=ids).loss)
        assert first.nll[way] == pytest.approx(loss, abs=1e-4)
    # A linear merge is the mixture at full strength.
    assert first.nll["merged"] == pytest.approx(first.nll["full"], abs=1e-5)
    gain = first.nll["base"] - first.nll["alone"]
    assert gain > 0.1
    kept = first.kept["soft"]
    assert kept.share == pytest.approx((first.nll["base"] - first.nll["soft"]) / gain)
    assert kept.low is None  # of one row nothing can be resampled
    both = second.kept["full"]
    assert both.low <= both.share <= both.high
    assert found.advice.measured
    assert found.advice.way in ("merge", "mix softly", "route")
    worst = max(min(e.kept[w].share for e in found.interference) for w in first.kept)
    assert f"keeps {worst:.0%} of its gain" in found.advice.sentence


def test_what_an_opposite_undoes_is_measured(tiny_base):
    sport = taught(tiny_base, TEXTS[0], "sport", 1)
    opposite = changed(sport, "opposite", -1.0)
    rows = {sport: [TEXTS[0]], opposite: [TEXTS[0]]}
    found = compare_adapters([sport, opposite], base=tiny_base, held_out=rows)
    first, second = found.interference
    assert first.kept["full"].share == pytest.approx(0, abs=1e-4)
    assert second.kept == {}  # alone it harms: there is nothing to keep
    assert found.advice.way == "route"


def test_the_document_and_the_pictures_say_the_same():
    one, other = make(1, name="sport"), make(2, name="поэт")
    found = compare_adapters([one, other])
    document = json.loads(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False))
    assert document["names"] == ["sport", "поэт"]
    assert document["sites"][0]["pair"] == ["sport", "поэт"]
    assert document["advice"]["way"] == found.advice.way
    for language in ("en", "ru"):
        drawn = matrix(found).to_svg(language)
        ET.fromstring(drawn)
        assert f"{found.cosine[0][1]:+.2f}" in drawn
    sites = by_site(found).to_svg("ru")
    ET.fromstring(sites)
    assert "self_attn.q_proj" in sites


def test_what_cannot_be_compared_is_refused(tiny_base):
    one, other = make(1), make(2)
    for arguments, options, said in (
        ([one], {}, "Give two"),
        ([one, other], {"base": tiny_base}, "no held-out rows"),
        ([one, other], {"held_out": {one: ["x"]}}, "no base"),
        ([one, other], {"merged": one}, "held-out rows"),
        ([one, other], {"base": tiny_base, "held_out": {make(3): ["x"]}}, "'a3'"),
        ([one, other], {"base": tiny_base, "held_out": {one: []}}, "no held-out row for 'a1'"),
    ):
        with pytest.raises(InputError, match=said):
            compare_adapters(arguments, **options)
