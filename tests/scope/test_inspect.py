"""inspect_prompt against plain forward passes of the base and of PEFT's model."""

import copy
import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.scope import inspect_prompt
from loratelier.scope.compare import divergence
from tests.conftest import our_hooks

QUESTION = "Why is it late?"


def probabilities(model, ids):
    """float64 [T, V], from a pass of one row."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0].double().softmax(-1)


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


def chat_ids(base, question=QUESTION):
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return base.tokenizer(text, add_special_tokens=False)["input_ids"]


def greedy(model, ids, count):
    given = torch.tensor([ids])
    with torch.no_grad():
        done = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=count,
        )
    return tuple(done[0, len(ids) :].tolist())


@pytest.fixture
def seen(tiny_base, adapter):
    return inspect_prompt(tiny_base, adapter, QUESTION, max_new_tokens=20)


def test_kl_is_that_of_two_separate_models(tiny_base, peft_model, seen):
    ids = chat_ids(tiny_base)
    expected = kl(probabilities(tiny_base.model, ids), probabilities(peft_model, ids))
    assert [position.id for position in seen.positions] == ids
    assert seen.kl == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
    assert min(seen.kl) > 0


def test_moves_are_the_largest_changes_with_probabilities_and_ranks(tiny_base, peft_model, seen):
    ids = chat_ids(tiny_base)
    before, after = probabilities(tiny_base.model, ids), probabilities(peft_model, ids)
    for place in (0, 7, len(ids) - 1):
        rose, fell = seen.moves[place]
        change = (after - before)[place]
        order = change.argsort(descending=True).tolist()
        assert [move.id for move in rose] == order[:8]
        assert [move.id for move in fell] == order[::-1][:8]
        for move in (*rose, *fell):
            assert move.before == pytest.approx(float(before[place, move.id]), abs=1e-6)
            assert move.after == pytest.approx(float(after[place, move.id]), abs=1e-6)
            likelier = before[place] > before[place, move.id]
            assert move.rank_before == 1 + int(likelier.sum())
            assert move.rank_after == 1 + int((after[place] > after[place, move.id]).sum())


def test_the_token_that_stands_next_is_followed(tiny_base, peft_model, seen):
    ids = chat_ids(tiny_base)
    before, after = probabilities(tiny_base.model, ids), probabilities(peft_model, ids)
    for place, position in enumerate(seen.positions[:-1]):
        assert position.next.id == ids[place + 1]
        assert position.next.before == pytest.approx(float(before[place, ids[place + 1]]), abs=1e-6)
        assert position.next.after == pytest.approx(float(after[place, ids[place + 1]]), abs=1e-6)
    assert seen.positions[-1].next is None


def test_the_answers_are_those_of_generate(tiny_base, peft_model, seen):
    ids = chat_ids(tiny_base)
    assert seen.continuations["base"].ids == greedy(tiny_base.model, ids, 20)
    assert seen.continuations["adapter"].ids == greedy(peft_model, ids, 20)


def test_both_answers_are_read_by_both_models(tiny_base, peft_model, seen):
    ids = chat_ids(tiny_base)
    for answer in seen.continuations.values():
        whole = [*ids, *answer.ids]
        before, after = probabilities(tiny_base.model, whole), probabilities(peft_model, whole)
        expected = kl(before, after)[len(ids) - 1 : -1]
        assert answer.kl == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
        assert tuple(position.next.id for position in answer.positions) == answer.ids


def test_the_parting_is_the_first_difference(tiny_base, peft_model, seen):
    ids = chat_ids(tiny_base)
    one, other = greedy(tiny_base.model, ids, 20), greedy(peft_model, ids, 20)
    index = next(n for n in range(20) if one[n] != other[n])
    parted = seen.parts_at
    assert (parted.index, parted.base.id, parted.adapter.id) == (index, one[index], other[index])
    before = probabilities(tiny_base.model, [*ids, *one[:index]])[-1]
    after = probabilities(peft_model, [*ids, *one[:index]])[-1]
    assert parted.base.rank_before == 1 and parted.adapter.rank_after == 1
    assert parted.base.after == pytest.approx(float(after[one[index]]), abs=1e-6)
    assert parted.adapter.before == pytest.approx(float(before[other[index]]), abs=1e-6)
    for side, written in (("base", one), ("adapter", other)):
        answer = seen.continuations[side]
        marked = answer.text[slice(*answer.parting)]
        assert marked == tiny_base.tokenizer.decode([written[index]])


def test_half_strength_is_peft_with_half_the_scaling(tiny_base, peft_model, adapter):
    for module in peft_model.modules():
        if isinstance(module, LoraLayer):
            module.scaling = {name: value / 2 for name, value in module.scaling.items()}
    ids = chat_ids(tiny_base)
    expected = kl(probabilities(tiny_base.model, ids), probabilities(peft_model, ids))
    half = inspect_prompt(tiny_base, adapter, QUESTION, strength=0.5, max_new_tokens=1)
    assert half.kl == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)


def test_a_given_text_is_scored_as_well(tiny_base, peft_model, adapter):
    seen = inspect_prompt(tiny_base, adapter, QUESTION, continuation="So it is.", max_new_tokens=2)
    ids = chat_ids(tiny_base)
    text = tiny_base.tokenizer("So it is.", add_special_tokens=False)["input_ids"]
    after = probabilities(peft_model, [*ids, *text])
    given = seen.continuations["given"]
    assert given.text == "So it is." and given.ids == tuple(text)
    for n, position in enumerate(given.positions):
        assert position.next.after == pytest.approx(
            float(after[len(ids) - 1 + n, text[n]]), abs=1e-6
        )
    assert set(seen.continuations) == {"base", "adapter", "given"}


def test_raw_text_and_messages(tiny_base, adapter):
    raw = inspect_prompt(tiny_base, adapter, "Once", raw=True, max_new_tokens=1)
    assert [position.token for position in raw.positions] == list("Once")
    talk = [
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C"},
    ]
    several = inspect_prompt(tiny_base, adapter, talk, system="S", max_new_tokens=1)
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in talk)
    assert several.text == f"<|im_start|>system\nS<|im_end|>\n{said}<|im_start|>assistant\n"
    assert several.question == "C"


def test_an_adapter_without_effect_is_all_zeros_and_says_so(tiny_base, silent):
    seen = inspect_prompt(tiny_base, silent, QUESTION, max_new_tokens=5)
    assert seen.kl == [0.0] * len(seen.kl)
    assert all(answer.kl == (0.0,) * 5 for answer in seen.continuations.values())
    assert all(not rose and not fell for rose, fell in seen.moves)
    assert seen.parts_at is None and not seen.effect
    assert seen.base_text == seen.adapter_text
    document = seen.to_json()
    assert document["effect"] is False
    said = "This adapter has no effect: its update is zero everywhere"
    assert said in document["summary"]["sentences"][0] and said in seen.to_html()


def test_strength_zero_changes_nothing_and_is_named_otherwise(tiny_base, adapter):
    seen = inspect_prompt(tiny_base, adapter, QUESTION, strength=0, max_new_tokens=3)
    assert set(seen.kl) == {0.0} and not seen.effect
    assert "strength 0" in seen.summary.sentences[0]


def test_the_smallest_change_is_seen_and_never_negative():
    torch.manual_seed(0)
    logits = torch.randn(5, 40_000, dtype=torch.float64)
    nudge = 1e-6 * torch.randn(5, 40_000, dtype=torch.float64)
    old, new = logits.log_softmax(-1), (logits + nudge).log_softmax(-1)
    # To second order KL is half the variance of the nudge under the old probabilities.
    p = old.exp()
    half_variance = ((p * nudge**2).sum(-1) - (p * nudge).sum(-1) ** 2) / 2
    torch.testing.assert_close(divergence(old, new), half_variance, rtol=1e-4, atol=0)
    assert divergence(old, old).eq(0).all()
    masked = torch.tensor([-math.inf, 0.0])
    assert divergence(masked, torch.tensor([0.5, 0.5]).log()) == pytest.approx(math.log(2))


def test_the_summary_adds_up(seen):
    along = seen.continuations["adapter"].kl
    assert seen.summary.mean_kl == pytest.approx(sum(seen.kl) / len(seen.kl))
    assert seen.summary.largest.kl == max(seen.kl)
    assert seen.summary.answer_kl == pytest.approx(sum(along) / len(along))
    assert seen.summary.rose[0].change > 0 > seen.summary.fell[0].change
    assert len(seen.summary.sentences) > 3 and "loud" in seen.summary.sentences[0]


def test_totals_count_the_border_once(tiny_base, peft_model, adapter):
    seen = inspect_prompt(tiny_base, adapter, QUESTION, max_new_tokens=6)
    whole = [*chat_ids(tiny_base), *seen.continuations["adapter"].ids][:-1]
    change = probabilities(peft_model, whole) - probabilities(tiny_base.model, whole)
    best = change.sum(0).argmax()
    assert seen.summary.rose[0].id == int(best)
    assert seen.summary.rose[0].change == pytest.approx(float(change.sum(0)[best]), abs=1e-5)


def test_the_document_is_json_and_says_the_direction(seen):
    document = json.loads(json.dumps(seen.to_json(), allow_nan=False))
    assert document == seen.to_json()
    assert document["kl_direction"] == "KL(base || adapter), nats"
    assert document["kl"] == [position["kl"] for position in document["positions"]]
    assert document["effect"] is True
    assert document["continuations"]["base"]["text"] == seen.base_text


def test_the_model_is_left_as_it_was(tiny_base, seen):
    assert not our_hooks(tiny_base.model)


def test_a_base_in_bfloat16(tiny_base, adapter):
    base = Base.of(
        copy.deepcopy(tiny_base.model).to(torch.bfloat16), tiny_base.tokenizer, name="half"
    )
    exact = inspect_prompt(tiny_base, adapter, QUESTION, max_new_tokens=2)
    rough = inspect_prompt(base, adapter, QUESTION, max_new_tokens=2)
    assert rough.kl == pytest.approx(exact.kl, rel=0.15, abs=5e-3)


def test_an_adapter_for_another_base_is_refused(tiny_base, folder, adapter):
    other = copy.deepcopy(tiny_base.model)
    other.model.layers[0].self_attn.q_proj = torch.nn.Linear(64, 32)
    with pytest.raises(InputError, match="does not fit"):
        inspect_prompt(Base.of(other, tiny_base.tokenizer, name="other"), adapter, QUESTION)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt is empty"),
        ("  \n", {}, "prompt is empty"),
        ("", {"raw": True}, "prompt is empty"),
        ([], {}, "prompt is empty"),
        ("x" * 3000, {}, "reads 2048"),
        ("hi", {"continuation": "y" * 2040}, "continuation has 2040 tokens"),
        ("hi", {"continuation": ""}, "continuation is empty"),
        ("hi", {"raw": True, "system": "s"}, "no system message"),
        ([{"role": "user", "content": "hi"}], {"raw": True}, "never raw"),
        ([{"role": "assistant", "content": "hi"}], {}, "is the assistant's"),
        ("hi", {"strength": 9}, "from -2 to 4"),
        ("hi", {"strength": float("nan")}, "strength"),
        ("hi", {"top": 0}, "top is 0"),
        ("hi", {"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_bad_input_is_one_line(tiny_base, adapter, prompt, options, message):
    with pytest.raises(InputError, match=message) as caught:
        inspect_prompt(tiny_base, adapter, prompt, **options)
    assert "\n" not in str(caught.value)


def test_on_the_real_demo_base(demo_base, tmp_path):
    """A real vocabulary, a real template, an answer that ends by itself or is cut."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["v_proj"], layers_to_transform=[10, 20])
    model = get_peft_model(copy.deepcopy(demo_base.model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(tmp_path / "real")
    model.eval()
    seen = inspect_prompt(
        demo_base, Adapter.load(tmp_path / "real"), "Name one colour.", max_new_tokens=8
    )
    ids = [position.id for position in seen.positions]
    given = demo_base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Name one colour."}],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert ids == list(given)
    expected = kl(probabilities(demo_base.model, ids), probabilities(model, ids))
    assert seen.kl == pytest.approx(expected.tolist(), rel=1e-2, abs=1e-6)
    assert seen.continuations["base"].ids == greedy(demo_base.model, ids, 8)
    assert seen.continuations["adapter"].ids == greedy(model, ids, 8)


def test_two_adapters_are_compared_with_each_other(tiny_base, adapter, silent):
    alone = inspect_prompt(tiny_base, adapter, "Why?", max_new_tokens=6)
    seen = inspect_prompt(tiny_base, adapter, "Why?", before=silent, max_new_tokens=6)
    # Against an adapter that does nothing it is what it is against the base.
    assert seen.kl == pytest.approx(alone.kl, abs=1e-9)
    assert (seen.before, alone.before, seen.to_json()["before"]) == ("silent", None, "silent")
    assert "instead of “silent”" in seen.summary.sentences[0]
    back = inspect_prompt(tiny_base, silent, "Why?", before=adapter, max_new_tokens=6)
    assert back.adapter_text == alone.base_text
    assert back.base_text == alone.adapter_text
    page = seen.to_html()
    assert "Wearing “silent”" in page
    assert "С адаптером «silent»" in page


def test_an_adapter_beside_itself_changes_nothing_and_this_is_said(tiny_base, adapter):
    seen = inspect_prompt(tiny_base, adapter, "Why?", before=adapter, max_new_tokens=4)
    assert not seen.effect
    assert set(seen.kl) == {0.0}
    assert seen.summary.sentences == (
        "“loud” and “loud” hold the same weights, so nothing changes.",
    )
