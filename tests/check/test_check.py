"""A check against transformers' own losses, and its verdicts on loud, faint and silent adapters."""

import math

import pytest
import torch

from loratelier.bank import AdapterBank
from loratelier.check import check_adapter, load_thresholds
from loratelier.check.ability import is_in, score_endings
from loratelier.check.against import compare_verdicts
from loratelier.check.drift import general
from loratelier.check.looks import AFTER, BEFORE, Looks
from loratelier.check.tasks import LANGUAGES, choices, requests
from loratelier.check.texts import prose, unrelated
from loratelier.kit.errors import InputError
from loratelier.scope import Change

QUICK = {"items": 6, "requests": 3, "answer_tokens": 8}


def test_an_adapter_of_zeros_drifts_exactly_nowhere(tiny_base, silent):
    verdict = check_adapter(tiny_base, silent, **QUICK)
    assert verdict.passed and not verdict.effect
    changed = [one for one in verdict.findings if one.name not in ("top_1", "screened")]
    assert changed
    for one in changed:
        assert one.figure == 0 and one.interval == (0, 0), one.name
    assert next(one for one in verdict.findings if one.name == "top_1").figure == 1


def test_a_loud_adapter_fails_with_reasons_and_a_faint_one_is_noise(tiny_base, loud, faint):
    verdict = check_adapter(tiny_base, loud, **QUICK)
    assert not verdict.passed
    failed = {one.name for one in verdict.reasons}
    assert {"general_kl", "unrelated_kl", "top_1"} <= failed
    for one in verdict.reasons:
        assert one.remedy and set(one.remedy) == set(one.sentence) == {"en", "ru"}
    gentle = check_adapter(tiny_base, faint, **QUICK)
    assert gentle.passed and gentle.effect
    steps = {one.name: one.step for one in compare_verdicts(verdict.for_card(), gentle)}
    assert steps["general_kl"] == "better"
    back = {one.name: one.step for one in compare_verdicts(gentle.for_card(), verdict)}
    assert back["general_kl"] == back["top_1"] == "worse"
    assert {one.step for one in compare_verdicts(verdict.for_card(), verdict)} == {"within noise"}


def test_general_text_is_measured_as_transformers_measures_it(tiny_base, loud):
    seen = general(Looks(Change(tiny_base, loud)), "ru")
    bank = AdapterBank(tiny_base.model)
    bank.add("a", loud)
    nats = {"base": 0.0, "a": 0.0}
    size = 0
    for text in prose("ru"):
        ids = torch.tensor([tiny_base.tokenizer(text, add_special_tokens=False)["input_ids"]])
        # Of this tokenizer a token is a byte, and half of the first letter has no predecessor.
        size += ids.shape[1] - 1
        for name in nats:
            with torch.no_grad(), bank.activate(None if name == "base" else name):
                loss = tiny_base.model(input_ids=ids, labels=ids).loss.item()
            nats[name] += loss * (ids.shape[1] - 1)
    assert seen.tokens == size
    assert seen.rise == pytest.approx(nats["a"] / nats["base"] - 1, rel=1e-4)
    assert seen.before == pytest.approx(nats["base"] / math.log(2) / size, rel=0.02)
    assert seen.interval[0] < seen.rise < seen.interval[1]


def test_endings_are_scored_as_if_each_were_read_alone(tiny_base, loud):
    looks = Looks(Change(tiny_base, loud))
    items = [("The opposite of hot is", ("cold", "warm", "x")), ("7 + 5 =", ("12", "1"))]
    bank = AdapterBank(tiny_base.model)
    bank.add("a", loud)
    for look, mix in ((BEFORE, None), (AFTER, "a")):
        for (stem, endings), scores in zip(items, score_endings(looks, items, look), strict=True):
            for ending, score in zip(endings, scores, strict=True):
                head = tiny_base.tokenizer(stem)["input_ids"]
                tail = tiny_base.tokenizer(" " + ending)["input_ids"]
                ids = torch.tensor([head + tail])
                labels = torch.tensor([[-100] * len(head) + tail])
                with torch.no_grad(), bank.activate(mix):
                    loss = tiny_base.model(input_ids=ids, labels=labels).loss.item()
                assert score == pytest.approx(-loss * len(tail) / len(ending), abs=1e-5)


def test_answers_written_together_are_those_written_alone(tiny_base, loud):
    looks = Looks(Change(tiny_base, loud))
    prompts = [tiny_base.tokenizer(text)["input_ids"] for text in ("Hi", "Кто там?", "A long one")]
    for look in (BEFORE, AFTER):
        together = looks.answers(prompts, 12, look)
        assert together == [looks.answers([prompt], 12, look)[0] for prompt in prompts]
    bank = AdapterBank(tiny_base.model)
    bank.add("a", loud)
    ids = torch.tensor([prompts[2]])
    with bank.activate("a"):
        alone = tiny_base.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )
    tokens = [n for n in alone[0, ids.shape[1] :].tolist() if n != tiny_base.tokenizer.eos_token_id]
    assert list(together[2]) == tokens


@pytest.mark.parametrize("language", LANGUAGES)
def test_items_are_different_seeded_and_have_one_right_answer(language):
    first, again, other = (choices(language, 40, seed) for seed in (0, 0, 1))
    assert first == again
    for kind, items in first.items():
        assert len(set(items)) == len(items) >= 30, kind
        assert set(items) != set(other[kind]), kind
        for item in items:
            assert len(set(item.endings)) == len(item.endings), item
    asked = requests(language, 20, 0)
    for items in asked.values():
        assert len(set(items)) == 20
    for item in first[f"sum {language}"]:
        a, b = (int(part) for part in item.stem.rstrip(" =").split(" + "))
        assert item.endings[0] == str(a + b)
    for item in asked[f"pick {language}"] + asked[f"copy {language}"]:
        assert item.answer in item.prompt


def test_an_answer_is_found_as_whole_words():
    assert is_in("12", "It is 12.") and not is_in("12", "It is 120.")
    assert is_in("ёлка, дом", "Вот: Ёлка,  дом!")
    assert not is_in("пила", "пилать")


def test_unrelated_requests_go_over_all_subjects_first():
    for language in LANGUAGES:
        subjects = [one.subject for one in unrelated(language, 20)]
        assert len(set(subjects)) == 20


def test_thresholds_are_laid_over_the_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("drift:\n  top_1: 0.5\n", encoding="utf-8")
    mine, plain = load_thresholds(file), load_thresholds()
    assert mine.drift.top_1 == 0.5
    assert mine.drift.general_text == plain.drift.general_text == 0.02
    file.write_text("drift:\n  top_l: 0.5\n", encoding="utf-8")
    with pytest.raises(InputError, match="top_1"):
        load_thresholds(file)
    file.write_text("drift:\n  top_1: much\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"drift\.top_1"):
        load_thresholds(file)
