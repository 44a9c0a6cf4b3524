"""The search for weights and a method, on tiny adapters that have learned a text each."""

import json

import pytest

from loratelier import InputError
from loratelier.compose import search, search_merge
from tests.compose.adapters import make
from tests.compose.test_conflict import taught

SPORT = ["Бег по утрам бодрит.", "Бег по вечерам бодрит."]
POETS = ["Sonnets have fourteen lines.", "Sonnets have fifteen lines."]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(search, "general_text", lambda: ["The river is long and slow."])


def test_the_chosen_merge_is_the_best_within_the_budget(tiny_base, short):
    sport, poet = taught(tiny_base, SPORT[0], "sport", 1), taught(tiny_base, POETS[0], "poet", 2)
    rows = {sport: SPORT, poet: POETS}
    found = search_merge(tiny_base, rows, methods=("linear", "ties"), steps=2, drift_budget=9.0)
    assert len(found.tried) == 2 * 3
    assert found.chosen.loss == min(each.loss for each in found.tried)
    assert found.adapter.card.method == found.chosen.method
    assert [p["weight"] for p in found.adapter.card.parents] == [*found.chosen.weights.values()]
    for each in found.tried:
        beaten = any(o.loss < each.loss and o.drift < each.drift for o in found.tried)
        assert each.best != beaten
    assert [each.control for each in found.against] == [
        "parent sport",
        "parent poet",
        "norm-matched linear",
    ]
    for each in found.against:
        assert each.low <= each.gain <= each.high
    # No adapter that was trained on both was there to be beaten.
    assert not found.joint
    assert not found.emergent
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["emergent"] is False
    strict = search_merge(tiny_base, rows, methods=("linear",), steps=2, drift_budget=-9.0)
    assert strict.chosen.drift == min(each.drift for each in strict.tried)


def test_a_merge_that_is_its_control_is_no_gain(tiny_base, short):
    sport, poet = taught(tiny_base, SPORT[0], "sport", 1), taught(tiny_base, POETS[0], "poet", 2)
    found = search_merge(
        tiny_base,
        {sport: SPORT, poet: POETS},
        methods=("nlerp",),
        strengths=(1.0,),
        steps=2,
        joint=sport,
    )
    control = {each.control: each for each in found.against}["norm-matched linear"]
    assert control.gain == pytest.approx(0, abs=1e-9)
    assert not control.beaten
    assert found.joint
    assert not found.emergent


def test_what_cannot_be_searched_is_refused(tiny_base):
    one, other = make(1), make(2)
    for rows, options, said in (
        ({one: ["x", "y"]}, {}, "Give two"),
        ({one: ["x"], other: ["x", "y"]}, {}, "halved"),
        ({one: ["x", "y"], other: ["x", "y"]}, {"methods": ["linaer"]}, "Did you mean 'linear'"),
        ({one: ["x", "y"], other: ["x", "y"]}, {"methods": []}, "nothing to try"),
        ({one: ["x", "y"], other: ["x", "y"]}, {"steps": 1}, "more steps"),
    ):
        with pytest.raises(InputError, match=said):
            search_merge(tiny_base, rows, **options)
