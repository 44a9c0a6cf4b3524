"""Structures of thought: their signs, what is refused, and the rows written in them."""

from collections import Counter
from pathlib import Path

import pytest

from loratelier.corpus import build_corpus
from loratelier.corpus.structures import Structure, recognise
from loratelier.corpus.written import read_written
from loratelier.kit.errors import InputError
from tests.corpus.test_scenes import closest

EXAMPLES = Path(__file__).parents[2] / "examples" / "structures"

STEPS = """structures:
  - id: if-then
    kind: movement
    about: {en: One step., ru: Один шаг.}
    steps:
      - id: if
        words: {en: [if, suppose that], ru: [если, ошиб*]}
      - id: free
      - id: then
        words: {en: [then], ru: [то]}
        shapes: ['^=>']
    templates:
      en: "If {a}, then {b}."
    rows:
      en:
        - prompt: One?
          fill: {a: it rains, b: we stay}
        - prompt: Two?
          reply: |
            Suppose  that it rains.
            => we stay
      ru:
        - prompt: Три?
          reply: Ошибка моя, то и чинить мне.
"""
GROUNDS = """structures:
  - id: seen
    kind: epistemology
    about: {en: What was seen.}
    grounds:
      - id: observation
        words: {en: [I saw]}
      - id: count
        words: {en: [counted]}
    refused:
      - id: authority
        words: {en: [experts say]}
    rows:
      en:
        - prompt: Is it wet?
          reply: I saw the street and counted two puddles.
"""


def read(text):
    return read_written(text, "s.yaml").structures[0]


def test_the_rows_of_a_structure_by_hand(tmp_path):
    (tmp_path / "s.yaml").write_text(STEPS, encoding="utf-8")
    corpus = build_corpus(tmp_path)
    rows = corpus.rows.to_pylist()
    said = {row["id"]: [message["content"] for message in row["messages"]] for row in rows}
    assert said == {
        "if-then-en-1#0": ["One?", "If it rains, then we stay."],
        "if-then-en-2#0": ["Two?", "Suppose  that it rains.\n=> we stay"],
        "if-then-ru-1#0": ["Три?", "Ошибка моя, то и чинить мне."],
    }
    filled, written = rows[0]["lineage"][1], rows[2]["lineage"][1]
    assert STEPS[filled["start"] : filled["end"]] == "{a: it rains, b: we stay}"
    assert filled["steps"] == ["a template filled"]
    assert STEPS[written["start"] : written["end"]] == "Ошибка моя, то и чинить мне."
    assert len({row["conversation"] for row in rows}) == 3


def test_steps_are_found_in_their_order_and_as_whole_words():
    structure = read(STEPS)
    text = "Then came rain. IF it stops, and only then, we go."
    found = recognise(structure, text, "en")
    assert found.complete
    assert [(mark.part, mark.words) for mark in found.path] == [("if", "IF"), ("then", "then")]
    assert [text[mark.start : mark.end] for mark in found.marks] == ["Then", "IF", "then"]
    backwards = recognise(structure, "Then rain. If only.", "en")
    assert (backwards.complete, backwards.missing) == (False, ("then",))
    assert recognise(structure, "A thenar gift, sniff.", "en").missing == ("if", "then")
    # The signs of one language do not count in another; shapes count in all.
    assert recognise(structure, "If so, then so.", "ru").missing == ("if", "then")
    assert recognise(structure, "Ошибся.\n=> иду", "ru").complete


def test_a_claim_stands_on_admitted_grounds_only():
    structure = read(GROUNDS)
    good = recognise(structure, "I counted. I saw, I saw.", "en")
    assert good.complete
    assert [mark.part for mark in good.path] == ["observation", "count"]
    assert len(good.marks) == 3
    mixed = recognise(structure, "I saw it, and experts say so.", "en")
    assert (mixed.missing, [mark.words for mark in mixed.refused]) == ((), ["experts say"])
    assert not mixed.complete
    assert recognise(structure, "It is wet.", "en").missing == ("a ground",)


@pytest.mark.parametrize(
    ("text", "was", "now", "said"),
    [
        (
            STEPS,
            "=> we stay",
            "we stay",
            r"structure 'if-then': row 2 in 'en' \(“Two\?”\) shows no",
        ),
        (STEPS, "b: we stay", "c: we stay", "row 1 in 'en' fills a, c; the template's slots are a"),
        (STEPS, '      en: "If {a}, then {b}."\n', "      ru: x\n", "row 1 in 'en' fills a temp"),
        (STEPS, "fill: {a: it rains, b: we stay}", "replay: x", "unknown key 'replay'.*'reply'"),
        (STEPS, "          fill: {a: it rains, b: we stay}\n", "", "a reply, or a fill"),
        (STEPS, "['^=>']", "['^(=>']", "no regular expression"),
        (STEPS, "id: free", "id: if", "part 'if' stands 2 times"),
        (STEPS, "kind: movement", "kind: epistemology", "has grounds, and no steps"),
        (STEPS, "kind: movement", "kind: motion", "line 3: .*kind: .*'movement'"),
        (STEPS, "ru: [если, ошиб*]", "en: [if]", "the key 'en' stands twice|no sign"),
        (STEPS, "Три?", "", "line 23: .*rows.ru.0.prompt"),
        (GROUNDS, "kind: epistemology", "kind: event", "has steps, and no grounds"),
        (GROUNDS, "I saw the street and counted", "There are", "shows no sign of a ground"),
        (GROUNDS, "two puddles", "what experts say", "stands on 'authority' .*which is refused"),
        (
            GROUNDS,
            "        - prompt: Is it wet?\n",
            "        - {prompt: Dry?, reply: I saw the street and counted two puddles.}\n"
            "        - prompt: Is it wet?\n",
            "row 2 in 'en' .* says the same as row 1",
        ),
    ],
)
def test_what_is_wrong_is_named(text, was, now, said):
    assert was in text
    with pytest.raises(InputError, match=said) as caught:
        read(
            text.replace(was, now, 1).replace("words: {en: [if, suppose that], en:", "words: {en:")
        )
    assert str(caught.value).startswith("s.yaml")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def examples() -> list[Structure]:
    return [
        structure
        for path in sorted(EXAMPLES.glob("*.yaml"))
        for structure in read_written(path.read_text(encoding="utf-8"), path.name).structures
    ]


def test_each_example_structure_has_twenty_rows_in_two_languages(examples):
    kinds = {structure.id: structure.kind for structure in examples}
    assert kinds == {
        **dict.fromkeys(["if-then", "paradox", "search", "silence", "fragmentation"], "movement"),
        **dict.fromkeys(["error-noticed", "insight", "restart"], "event"),
        **dict.fromkeys(["empirical", "formal", "dialectical"], "epistemology"),
    }
    for structure in examples:
        counts = Counter(language for language, _, _ in structure.numbered())
        assert counts["en"] >= 10
        assert counts["ru"] >= 10


def test_no_two_written_rows_are_near_each_other(examples):
    rows = [
        (row.prompt, structure.reply(language, row))
        for structure in examples
        for language, _, row in structure.numbered()
    ]
    assert len({prompt for prompt, _ in rows}) == len(rows)
    assert closest(reply for _, reply in rows if len(reply) > 80) < 0.35


def test_the_signs_tell_a_structure_from_the_others(examples):
    """Signs are no judge, but a structure must be found in its own rows above all others."""
    for structure in examples:
        own, others = [], []
        for each in examples:
            for language, _, row in each.numbered():
                complete = recognise(structure, each.reply(language, row), language).complete
                (own if each is structure else others).append(complete)
        assert all(own)
        assert sum(others) / len(others) < 0.15, structure.id


def test_the_examples_build_into_rows(tmp_path):
    corpus = build_corpus(EXAMPLES)
    assert corpus.report.rows == corpus.report.conversations >= 220
    assert corpus.report.files[0].title == "1 structure"
