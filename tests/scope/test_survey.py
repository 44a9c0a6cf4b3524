"""A survey against single inspections and against transformers' own loss."""

import json

import pytest
import torch

from loratelier.bank import AdapterBank
from loratelier.corpus import build_corpus
from loratelier.kit.errors import InputError
from loratelier.scope import inspect_prompt, survey

PROMPTS = ["Why does the sea breathe?", "Кто сказал, что дверь закрыта?", "12 + 7 ="]
TALK = [
    {"role": "user", "content": "Where does the river begin?"},
    {"role": "assistant", "content": "Where somebody first calls it a river."},
]


def test_prompts_together_are_what_they_are_alone(tiny_base, adapter):
    seen = survey(tiny_base, adapter, PROMPTS, top=5)
    alone = [inspect_prompt(tiny_base, adapter, prompt, max_new_tokens=1) for prompt in PROMPTS]
    values = [kl for one in alone for kl in one.kl]
    assert seen.tokens == len(values)
    assert seen.kl == pytest.approx(sum(values) / len(values), abs=1e-9)
    means = {str(n): sum(one.kl) / len(one.kl) for n, one in enumerate(alone, start=1)}
    assert [text.name for text in seen.texts] == sorted(means, key=means.__getitem__, reverse=True)
    assert seen.nll_before is None
    assert len(seen.rose) == len(seen.fell) == 5
    assert [total.change for total in seen.rose] == sorted(
        (total.change for total in seen.rose), reverse=True
    )


def test_an_answer_is_weighed_as_transformers_weighs_it(tiny_base, adapter):
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The wind."}]
    seen = survey(tiny_base, adapter, [talk])
    head = tiny_base.tokenizer.apply_chat_template(
        talk[:-1], tokenize=False, add_generation_prompt=True
    )
    ask, answer = (
        tiny_base.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (head, "The wind.")
    )
    ids = torch.tensor([ask + answer])
    labels = torch.tensor([[-100] * len(ask) + answer])
    bank = AdapterBank(tiny_base.model)
    bank.add("a", adapter)
    with torch.no_grad():
        before = tiny_base.model(input_ids=ids, labels=labels).loss.item()
        with bank.activate("a"):
            after = tiny_base.model(input_ids=ids, labels=labels).loss.item()
    assert seen.tokens == len(answer)
    assert (seen.nll_before, seen.nll_after) == pytest.approx((before, after), abs=1e-5)


def test_rows_of_a_corpus_are_read_by_their_names(tiny_base, adapter, tmp_path):
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": TALK}), encoding="utf-8")
    corpus = build_corpus(tmp_path, holdout=0)
    seen = survey(tiny_base, adapter, corpus)
    assert [text.name for text in seen.texts] == corpus.rows.column("id").to_pylist()
    assert seen.texts[0].excerpt == "Where somebody first calls it a river."
    with pytest.raises(InputError, match="no texts"):
        survey(tiny_base, adapter, corpus, split="held_out")


def test_two_versions_of_an_adapter_are_compared(tiny_base, adapter, silent):
    from_base = survey(tiny_base, adapter, PROMPTS)
    from_silent = survey(tiny_base, adapter, PROMPTS, before=silent)
    assert from_silent.kl == pytest.approx(from_base.kl, abs=1e-9)
    assert survey(tiny_base, adapter, PROMPTS, before=adapter).kl == 0
    assert not survey(tiny_base, silent, PROMPTS).effect
