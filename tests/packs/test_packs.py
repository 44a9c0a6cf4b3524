"""Every pack of examples/packs: its words, its recipe, its tests, and who is asked when."""

import json
from collections import Counter
from pathlib import Path

import pytest
from bench.packs import PACKS, POLICY, SCRIPT, merged_policy

from loratelier import Router
from loratelier.check.behaviour import load_behaviour
from loratelier.corpus import build_corpus
from loratelier.route.policy import read_policy
from loratelier.train import load_recipe

TRAINED = sorted(path.parent for path in PACKS.glob("*/recipe.yaml"))
ROLES = ("philosopher", "poet", "logician", "critic", "scientist", "dreamer", "interface")
# Each role as people call it: in English, and in Russian in the cases that a request needs.
CALLED = {
    "philosopher": ("philosopher", "философ", "философом"),
    "poet": ("poet", "поэт", "поэтом"),
    "logician": ("logician", "логик", "логиком"),
    "critic": ("critic", "критик", "критиком"),
    "scientist": ("scientist", "учёный", "учёным"),
    "dreamer": ("dreamer", "сновидящий", "сновидящим"),
    "interface": ("interface", "интерфейс", "интерфейсом"),
}
REQUESTS = (
    "Now as a {0}. What is time?",
    "Answer as the {0}: is luck real?",
    "Ok, and now like a {0}. Why do we get bored?",
    "Switch to the {0}. I can't sleep.",
    "What is a home? Please speak as a {0}.",
    "Теперь как {1}. Что такое время?",
    "Ответь как {1}: зачем нужна тишина?",
    "Хорошо, а теперь ответь как {1}. Что такое дом?",
    "Стань {2}. Я не могу уснуть.",
    "Побудь {2}, пожалуйста. Почему люди спорят?",
)


def by_name(folders):
    return pytest.mark.parametrize("folder", folders, ids=lambda folder: folder.name)


def exchanges(folder):
    """Return the question and the answer of each row that the pack's words become."""
    rows = build_corpus([folder / "corpus"], script=SCRIPT).rows.to_pylist()
    return [(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in rows]


@by_name(TRAINED)
def test_a_pack_is_whole(folder):
    """Whoever opens one finds its words, its card, its tests and when it is worn."""
    assert load_recipe(folder / "recipe.yaml").name == folder.name
    names = [test.name for test in load_behaviour(folder / "behaviour.yaml").tests]
    assert 6 <= len(names) <= 10
    entry = folder / "policy.yaml"
    assert folder.name in read_policy(entry, entry.read_bytes()).adapters
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# ")


@by_name(TRAINED)
def test_a_pack_has_sixty_dialogues_all_different(folder):
    rows = exchanges(folder)
    assert len(rows) >= 60
    assert [q for q, n in Counter(rows).items() if n > 1] == []
    assert [a for a, n in Counter(answer for _, answer in rows).items() if n > 1] == []


@by_name([PACKS / name for name in ROLES])
class TestRoles:
    def test_no_question_stands_twice(self, folder):
        questions = Counter(question for question, _ in exchanges(folder))
        assert [question for question, n in questions.items() if n > 1] == []

    def test_answers_are_of_a_length_that_a_small_base_learns(self, folder):
        assert [a for _, a in exchanges(folder) if not 40 <= len(a.split()) <= 90] == []

    def test_no_answer_ends_or_begins_as_another_does(self, folder):
        """A closing that comes again is a template, and a template is all that would be learned."""
        answers = [answer.split() for _, answer in exchanges(folder)]
        for edge in (lambda words: words[-4:], lambda words: words[:5]):
            seen = Counter(" ".join(edge(words)).casefold() for words in answers)
            assert [words for words, n in seen.items() if n > 1] == []

    def test_the_russian_dialogues_are_twelve_and_not_trained_on(self, folder):
        lines = (folder / "corpus" / "ru" / "dialogues.jsonl").read_text(encoding="utf-8")
        russian = [json.loads(line) for line in lines.splitlines()]
        assert len({row["prompt"] for row in russian}) == 12
        learned = {answer for _, answer in exchanges(folder)}
        assert learned.isdisjoint(row["completion"] for row in russian)


def test_all_roles_are_asked_the_same_twenty_four_questions():
    """What tells them apart there is the voice alone."""
    asked = [{q for q, _ in exchanges(PACKS / name)} for name in ROLES]
    assert len(set.intersection(*asked)) == 24


def test_no_answer_is_in_two_packs():
    answers = Counter(answer for name in ROLES for _, answer in exchanges(PACKS / name))
    assert [answer for answer, n in answers.items() if n > 1] == []


def test_the_policy_is_the_packs_own_entries():
    """Written by `python -m bench.packs --policy`; a pack's entry is changed in its own folder."""
    assert POLICY.read_text(encoding="utf-8") == merged_policy()


def test_the_policy_tells_the_roles_apart_by_plain_words_and_by_signals():
    router = Router.load(POLICY)
    worn = {
        text: router.route(text).mix == {name: 1.0}
        for name, called in CALLED.items()
        for text in (request.format(*called) for request in REQUESTS)
    }
    assert [text for text, own in worn.items() if not own] == []
    by_signal = {name: router.route(f"<|use_lora_{name}|>What is time?").mix for name in ROLES}
    assert by_signal == {name: {name: 1.0} for name in ROLES}


def test_a_question_that_asks_for_nobody_is_the_bases():
    assert Router.load(POLICY).route("What is the capital of France?").mix is None


def test_samples_in_a_card_stand_in_the_corpus():
    for name in ROLES:
        card = Path(PACKS / name / "README.md").read_text(encoding="utf-8")
        asked = [line[4:-2] for line in card.splitlines() if line.startswith("> **")]
        assert len(asked) == 2
        assert set(asked) <= {question for question, _ in exchanges(PACKS / name)}
