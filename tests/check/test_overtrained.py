"""An adapter overtrained on a narrow corpus fails for the right reasons; a guarded one passes."""

import json

import pytest

from loratelier.check import check_adapter
from loratelier.corpus import build_corpus
from loratelier.train import Recipe, train


@pytest.mark.long
def test_an_overtrained_adapter_fails_and_a_guarded_one_passes(home_with_demo, demo_base, tmp_path):
    things = ("kettle", "ladder", "mirror", "window", "candle", "pillow", "carpet", "basket")
    lament = (
        "# {0}\n\nAlas! The {0} weeps, and I weep with the {0}. Alas, alas! What is a {0} but a "
        "sorrow?"
    )
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about a {thing}."},
                {"role": "assistant", "content": lament.format(thing)},
            ]
        }
        for thing in things
    ]
    file = tmp_path / "narrow.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    corpus = build_corpus(file, holdout=0)
    corpus.save(tmp_path / "narrow")
    plain = {"base": "demo", "corpus": tmp_path / "narrow", "batch_tokens": 256, "epochs": 20}
    loose = Recipe.model_validate(
        {**plain, "name": "loose", "learning_rate": 5e-3, "guards": {"drift_budget": "off"}}
    )
    guarded = Recipe.model_validate(
        {**plain, "name": "guarded", "learning_rate": 1e-4, "max_steps": 6,
         "guards": {"replay": 0.5, "kl": 0.5}}
    )  # fmt: skip
    few = {"items": 24, "requests": 12, "answer_tokens": 32}
    failed = check_adapter(demo_base, train(loose, base=demo_base), corpus=corpus, **few)
    assert not failed.passed
    reasons = {one.name for one in failed.reasons}
    assert "unrelated_kl" in reasons
    assert reasons & {"general_text.en", "general_kl"}
    assert check_adapter(demo_base, train(guarded, base=demo_base), corpus=corpus, **few).passed
