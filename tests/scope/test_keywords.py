"""Keywords: every spelling, the first token never passed off as the word."""

import json
import math

import pytest
import torch

from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.keywords import track_keywords
from loratelier.scope.spellings import spellings

TEXTS = ["The river is", "Утром река"]


def encode(base, text):
    return base.tokenizer(text, add_special_tokens=False)["input_ids"]


def likely(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)


def whole(model, base, text, form):
    """The probability of a form after a text, token by token, from a pass of its own."""
    ids, more = encode(base, text), encode(base, form)
    along = likely(model, [*ids, *more])
    return math.exp(sum(float(along[len(ids) - 1 + n, t]) for n, t in enumerate(more)))


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("mind", [" mind", "mind", " Mind", "Mind"]),
        ("река", [" река", "река", " Река", "Река"]),
        (" Paris ", [" Paris", "Paris"]),
    ],
)
def test_a_word_is_sought_in_all_its_spellings(demo_base, word, forms):
    assert [each.text for each in spellings(demo_base, word)] == forms
    for each in spellings(demo_base, word):
        assert demo_base.tokenizer.decode(list(each.ids)) == each.text


def test_words_in_two_languages_are_those_of_plain_passes(tiny_base, adapter, peft_model):
    change = Change(tiny_base, adapter)
    words = ["it", "река"]
    texts = [encode(tiny_base, text) for text in TEXTS]
    tracked = track_keywords(change, texts, words)
    assert [each.word for each in tracked] == words and not tracked[0].one_token
    for each in tracked:
        forms = [f" {each.word}", each.word, f" {each.word.title()}", each.word.title()]
        assert [form.text for form in each.forms] == forms
        for number, text in enumerate(TEXTS):
            found = each.whole[number][0]
            assert found.index == len(texts[number]) - 1
            for model, value in ((tiny_base.model, found.before), (peft_model, found.after)):
                expected = sum(whole(model, tiny_base, text, form) for form in forms)
                assert value == pytest.approx(expected, rel=1e-4)
            firsts = sorted({encode(tiny_base, form)[0] for form in forms})
            old, new = likely(tiny_base.model, texts[number]), likely(peft_model, texts[number])
            for place, first in enumerate(each.first[number]):
                assert first.index == place
                assert first.before == pytest.approx(
                    float(old[place, firsts].exp().sum()), rel=1e-4
                )
                assert first.after == pytest.approx(float(new[place, firsts].exp().sum()), rel=1e-4)
                best = old[place, firsts].max()
                assert first.rank_before == 1 + int((old[place] > best).sum())
            assert each.first[number][-1].before > found.before
    document = [each.to_json() for each in tracked]
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_spelling_of_one_token_is_that_token_and_others_are_never_cut_to_their_first(
    tiny_base, adapter, demo_base
):
    """Cut to its first token " река" would be a bare blank, on an English vocabulary."""
    ids = encode(tiny_base, "So")
    (one,) = track_keywords(Change(tiny_base, adapter), [ids], ["a"], at=[0, 1])
    assert not one.one_token and [each.index for each in one.whole[0]] == [0, 1]
    (token,) = encode(tiny_base, "a")
    last = likely(tiny_base.model, ids)
    for each in one.whole[0]:
        assert each.forms["a"][0] == pytest.approx(float(last[each.index, token]), abs=1e-5)
    forms = {each.text: each.ids for each in spellings(demo_base, "река")}
    assert demo_base.tokenizer.decode([forms[" река"][0]]) == " "
    assert [each.whole for each in spellings(demo_base, "mind")][:2] == [True, True]


def test_an_untrained_adapter_changes_no_word(tiny_base, silent):
    change = Change(tiny_base, silent)
    each = track_keywords(change, [encode(tiny_base, TEXTS[1])], ["река"])[0]
    assert each.before == each.after > 0
    assert all(first.before == first.after for first in each.first[0])


@pytest.mark.parametrize(
    ("texts", "words", "at", "message"),
    [
        ([], ["a"], "last", "nothing to look for"),
        (["a"], [], "last", "nothing to look for"),
        (["a"], [" "], "last", "is blank"),
        (["a"], ["b"], [1], "no position 1"),
        (["a" * 3000], ["b"], "last", "reads 2048"),
    ],
)
def test_bad_input_is_one_line(tiny_base, adapter, texts, words, at, message):
    change = Change(tiny_base, adapter)
    with pytest.raises(InputError, match=message):
        track_keywords(change, [encode(tiny_base, text) for text in texts], words, at=at)
