"""Setting a distribution by hand, against plain forwards and PEFT."""

import copy
import json

import pytest
import torch
from peft import PeftModel

from loratelier import Adapter, InputError, set_distribution
from loratelier.adapter import store
from loratelier.base.likelihood import general_text
from loratelier.edit import edits_of, stack, unstack
from tests.conftest import our_hooks
from tests.edit.references import chain, kl, plain

PROMPT = "The capital of France is"


@pytest.fixture(autouse=True)
def _own_home(home):
    pass


@pytest.fixture(scope="module")
def simple(tiny_base, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORATELIER_HOME", str(tmp_path_factory.mktemp("home")))
        return set_distribution(tiny_base, None, PROMPT, {"Z": 0.3, "Y": 0.2}, budget=5, norm=5)


def worn_by_peft(base, edited, path):
    edited.save(path)
    return PeftModel.from_pretrained(copy.deepcopy(base.model), path).eval()


def test_what_is_reached_is_what_peft_computes(tiny_base, simple, tmp_path):
    assert simple.met, simple.why
    model = worn_by_peft(tiny_base, simple.adapter, tmp_path / "edited")
    for goal in simple.goals:
        assert chain(model, tiny_base.tokenizer, PROMPT, goal.text) == pytest.approx(
            goal.reached, abs=1e-5
        )
        assert goal.miss <= 0.02
        assert chain(tiny_base.model, tiny_base.tokenizer, PROMPT, goal.text) == pytest.approx(
            goal.before, abs=1e-6
        )
    assert simple.asked == {"Z": 0.3, "Y": 0.2}
    assert our_hooks(tiny_base.model) == []


def test_locality_is_that_of_the_texts_named(tiny_base, simple, tmp_path):
    """General text by hand: paragraphs 24 to 31, 24 tokens, every third place."""
    model = worn_by_peft(tiny_base, simple.adapter, tmp_path / "edited")
    found, flips = [], 0
    for text in general_text()[24:32]:
        ids = tiny_base.tokenizer(text)["input_ids"][:24]
        old, new = (plain(each, ids).log_softmax(-1)[2::3] for each in (tiny_base.model, model))
        found += kl(old, new).tolist()
        flips += int((old.argmax(-1) != new.argmax(-1)).sum())
    general = simple.locality.kinds["general"]
    assert general.places == len(found)
    assert general.mean == pytest.approx(sum(found) / len(found), rel=1e-3)
    assert general.max == pytest.approx(max(found), rel=1e-3)
    assert general.flips == flips
    kinds = simple.locality.kinds.values()
    assert simple.locality.mean == pytest.approx(sum(k.mean for k in kinds) / len(kinds))


def test_cost_in_rank_and_norm(tiny_base, simple):
    (site,) = simple.adapter.tensors
    assert site == simple.site == "model.layers.1.mlp.down_proj"
    weight = tiny_base.model.get_submodule(site).weight
    assert simple.norm == pytest.approx(
        float(simple.adapter.deltas[site].norm() / weight.norm()), rel=1e-4
    )
    assert simple.rank == simple.adapter.rank == 1
    json.dumps(simple.to_json(), allow_nan=False)


def test_a_string_of_several_tokens_has_the_probability_of_its_chain(tiny_base):
    wish = {"ab": 0.3, "ac": 0.2, "Q": 0.1}
    edit = set_distribution(tiny_base, None, PROMPT, wish, budget=9, norm=9)
    assert edit.met, edit.why
    assert edit.rank == 2  # after the prompt, and after its "a"
    assert edit.reached == pytest.approx(wish, abs=0.02)


def test_russian_and_several_prompts_at_once(tiny_base):
    """Each Cyrillic letter is two tokens here."""
    edit = set_distribution(
        tiny_base,
        None,
        "Столица Франции —",
        {"Л": 0.4},
        more=[("Небо сегодня", {"!": 0.5})],
        budget=9,
        norm=9,
    )
    assert edit.met, edit.why
    assert [goal.prompt for goal in edit.goals] == ["Столица Франции —", "Небо сегодня"]
    assert edit.rank == 3


def test_paraphrases_wished_or_not(tiny_base, simple):
    other = "France has the capital"
    wished = set_distribution(
        tiny_base, None, PROMPT, {"Z": 0.4}, paraphrases=[other], spread=True, budget=9, norm=9
    )
    assert wished.met and wished.rank == 2
    assert wished.paraphrases[0].after["Z"] == pytest.approx(0.4, abs=0.02)
    told = set_distribution(
        tiny_base, None, PROMPT, {"Z": 0.4}, paraphrases=[other], spread=False, budget=9, norm=9
    )
    assert abs(told.paraphrases[0].after["Z"] - told.paraphrases[0].before["Z"]) < 0.1
    assert told.paraphrases[0].wished is False


def test_a_wish_that_costs_too_much_is_said(tiny_base):
    edit = set_distribution(tiny_base, None, PROMPT, {"Z": 0.9}, budget=1e-6)
    assert not edit.met
    assert "cannot come to 0.9" in edit.why
    assert edit.locality.optimised <= 1e-6
    assert edit.sentences[0].startswith("Not met")
    small = set_distribution(tiny_base, None, PROMPT, {"Z": 0.9}, budget=9, norm=1e-3)
    assert not small.met and small.norm <= 1e-3
    assert small.goals[0].before < small.goals[0].reached < 0.9


def test_the_old_ranks_keep_their_bits(tiny_base, adapter):
    edit = set_distribution(tiny_base, adapter, PROMPT, {"Z": 0.5}, budget=9, norm=9, name="new")
    assert edit.met, edit.why
    assert edit.adapter.card.parents[0]["digest"] == adapter.digest
    assert edit.adapter != adapter
    back = unstack(edit.adapter, name="back")
    assert back.digest == adapter.digest
    assert back.settings.raw == adapter.settings.raw and back.card == adapter.card
    for site, pair in adapter.tensors.items():
        assert all(map(torch.equal, back.tensors[site], pair))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_are_stacked_and_undone_in_any_order(tiny_base, adapter, dtype, tmp_path):
    pairs = {s: (a.to(dtype), b.to(dtype)) for s, (a, b) in adapter.tensors.items()}
    old = Adapter.from_tensors(pairs, adapter.card, "old", alphas=3.0)
    parts = [
        set_distribution(tiny_base, old, prompt, {"Z": 0.5}, budget=9, norm=9, name=name).alone
        for name, prompt in (("one", PROMPT), ("two", "Water is"), ("three", "She said"))
    ]
    for number, part in enumerate(parts):
        part.save(tmp_path / str(number))
    parts = [Adapter.load(tmp_path / str(number)) for number in range(3)]
    full = stack(old, parts, "full")
    full.save(tmp_path / "full")
    full = Adapter.load(tmp_path / "full")
    assert [each["name"] for each in edits_of(full)] == ["one", "two", "three"]
    site = "model.layers.1.mlp.down_proj"
    whole = old.deltas[site] + sum(part.deltas[site] for part in parts)
    torch.testing.assert_close(full.deltas[site], whole, rtol=1e-4, atol=1e-5)
    for order in (["two", "one", "three"], ["three", "two", "one"], ["one", "three", "two"]):
        left = full
        for name in order:
            left = unstack(left, [name], name="left")
        assert left.digest == old.digest
    without = unstack(full, ["two"], name="x")
    torch.testing.assert_close(
        without.deltas[site], whole - parts[1].deltas[site], rtol=1e-4, atol=1e-5
    )
    bare = stack(None, parts, "bare")
    with pytest.raises(InputError, match="nothing is left"):
        unstack(bare, name="x")
    assert unstack(bare, ["one", "three"], name="x").digest == parts[1].digest


@pytest.mark.parametrize(
    ("prompt", "asked", "said"),
    [
        ("", {"Z": 0.5}, "The prompt is empty"),
        ("  ", {"Z": 0.5}, "The prompt is empty"),
        (PROMPT, {}, "Nothing is asked for"),
        (PROMPT, {"": 0.5}, "empty"),
        (PROMPT, {"Z": 0.0}, "between 0 and 1"),
        (PROMPT, {"Z": 1.0}, "between 0 and 1"),
        (PROMPT, {"Z": float("nan")}, "between 0 and 1"),
        (PROMPT, {"Z": True}, "between 0 and 1"),
        (PROMPT, {"Z": 0.6, "Y": 0.4}, "sum to 1"),
        (PROMPT, {"ab": 0.5, "a": 0.4}, "begins with 'a'"),
        (PROMPT, {999: 0.5}, "There is no token 999"),
        (PROMPT, {"Z": 0.1, 60: 0.1}, "asked for twice"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_base, prompt, asked, said):
    if 60 in asked:
        asked = {"Z": 0.1, tiny_base.tokenizer("Z")["input_ids"][0]: 0.1}
    with pytest.raises(InputError, match=said):
        set_distribution(tiny_base, None, prompt, asked)


def test_limits_and_layers_are_checked(tiny_base):
    for options in ({"budget": 0}, {"norm": -1}, {"within": float("nan")}, {"layers": [7]}):
        with pytest.raises(InputError):
            set_distribution(tiny_base, None, PROMPT, {"Z": 0.5}, **options)


def test_a_name_of_the_store_is_not_needed(tiny_base, simple):
    assert store.names() == []


def test_london_on_the_demo_base(home_with_demo, demo_base, tmp_path):
    edit = set_distribution(demo_base, None, PROMPT, {" London": 0.6})
    model = worn_by_peft(demo_base, edit.adapter, tmp_path / "london")
    reached = chain(model, demo_base.tokenizer, PROMPT, " London")
    assert reached == pytest.approx(0.6, abs=0.02)
    assert edit.locality.mean <= 0.01
    assert edit.met, edit.why
    ids = demo_base.tokenizer(PROMPT)["input_ids"]
    rest = torch.arange(len(demo_base.tokenizer)) != demo_base.tokenizer(" London")["input_ids"][0]
    old, new = (plain(each, ids)[-1][rest].log_softmax(-1) for each in (demo_base.model, model))
    assert float(kl(old, new)) < 0.1  # the others keep their proportions
