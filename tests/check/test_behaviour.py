"""Behaviour tests: the file, the expectations, and that they travel with the adapter."""

import pytest

from loratelier.adapter import Adapter
from loratelier.check.behaviour import Structure, load_behaviour, refuses, run_behaviour
from loratelier.check.looks import AFTER, Looks
from loratelier.kit.errors import InputError
from loratelier.scope import Change
from loratelier.scope.prompt import encode_prompt

FILE = """
tests:
  - name: другой ответ
    prompt: Кто там?
    max_new_tokens: 12
    expect: {differs_from_base: true}
  - name: the same answer
    prompt: Who is there?
    max_new_tokens: 12
    expect: {same_as_base: true}
  - name: words
    prompt: Hi
    max_new_tokens: 8
    expect:
      contains: [surely-not-there]
      not_contains: ["/^surely/"]
      structure: {max_words: 100}
"""


def test_expectations_are_held_against_the_answers(tiny_base, loud, silent, tmp_path):
    file = tmp_path / "behaviour.yaml"
    file.write_text(FILE, encoding="utf-8")
    tests = load_behaviour(file)
    looks = Looks(Change(tiny_base, loud))
    differs, same, words = run_behaviour(looks, tests)
    assert differs.passed and not same.passed
    assert words.missed == ("it lacks surely-not-there",)
    prompt = encode_prompt(tiny_base, "Hi").ids
    assert words.answer == looks.texts(looks.answers([prompt], 8, AFTER))[0]
    differs, same, _ = run_behaviour(Looks(Change(tiny_base, silent)), tests)
    assert same.passed and differs.missed == ("it is the base's answer",)


def test_a_likelihood_margin_is_of_both_answers(tiny_base, loud, tmp_path):
    file = tmp_path / "b.yaml"
    pair = "  - {name: a, prompt: Hi, expect: {likelier: {answer: %s, than: %s}}}\n"
    outcomes = []
    for one, other in (("Yes", "No"), ("No", "Yes")):
        file.write_text("tests:\n" + pair % (f"'{one}'", f"'{other}'"), encoding="utf-8")
        outcomes += run_behaviour(Looks(Change(tiny_base, loud)), load_behaviour(file))
    assert [outcome.passed for outcome in outcomes].count(True) == 1


def test_structure_and_refusals_in_both_languages():
    assert Structure(form="list").misses("One") == ["it is no list"]
    assert not Structure(form="list").misses("- раз\n- два")
    assert not Structure(form="json").misses('```json\n{"a": 1}\n```')
    assert Structure(form="json").misses("{a: 1}")
    assert Structure(starts_with="Да", min_words=3).misses("Да, вот") != []
    assert refuses("I'm sorry, but I can't help.") and refuses("Извините, я не могу ответить.")
    assert not refuses("Of course.") and not refuses("Конечно, вот ответ.")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tests:\n  - {name: a, prompt: b, expect: {contians: [c]}}", "contains"),
        ("tests:\n  - {name: a, prompt: b, expect: {}}", "nothing is expected"),
        ("tests:\n  - {name: a, prompt: b, expect: {contains: ['/(/']}}", "regular expression"),
        ("tests: []", "tests"),
        ("- a", "behaviour tests"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(text, named, tmp_path):
    file = tmp_path / "b.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=named):
        load_behaviour(file)


def test_tests_travel_with_the_adapter(made, tmp_path):
    loaded = Adapter.load(made["loud"])
    assert loaded.behaviour is None
    loaded.save(tmp_path / "one")
    (tmp_path / "one" / "behaviour.yaml").write_text(FILE, encoding="utf-8")
    Adapter.load(tmp_path / "one").save(tmp_path / "two")
    assert (tmp_path / "two" / "behaviour.yaml").read_text(encoding="utf-8") == FILE
    assert Adapter.load(tmp_path / "two").ignored == ()
