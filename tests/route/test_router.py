"""What a policy decides, turn by turn."""

import json
import os

import pytest

from loratelier import InputError, Router
from loratelier.kit import progress
from loratelier.route import Policy

TEXT = """
adapters:
  sport: {keywords: [тренировка, football, личный рекорд], patterns: ['\\bVO2\\b']}
  poet: {strength: 0.8, keywords: [стих, poem]}
  logic:
roles:
  bard:
    mix: {poet: 0.7}
    words: [поэт, poet]
    system: You are a poet.
    sampling: {temperature: 1.0}
  logician: {mix: {logic: 1}, words: [логик]}
  plain: {words: [учёный]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def router(file):
    return Router.load(file)


@pytest.mark.parametrize(
    ("said", "worn"),
    [
        ("Сколько тренировок в неделю?", "sport"),
        ("Хочу побить личные рекорды", "sport"),
        ("footballs everywhere", "sport"),
        ("is my VO2 fine", "sport"),
        ("is my NOVO2X fine", None),
        ("Прочти два стиха", "poet"),
        ("Two poems, please", "poet"),
        ("Личный вопрос", None),
        ("Стихия воды", None),
    ],
)
def test_keywords_are_found_in_any_form_of_theirs(router, said, worn):
    decision = router.route(said)
    assert list(decision.mix or {None: 1}) == [worn]
    assert decision.stage == ("keywords" if worn else "base")


def test_a_draw_between_keywords_decides_nothing_and_one_more_does(router):
    assert router.route("A poem about football").mix is None
    decision = router.route("Стих: тренировка и football")
    assert decision.mix == {"sport": 1.0}
    assert decision.confidence == 0.5
    found = next(each for each in decision.considered if each.stage == "keywords")
    assert found.scores == {"sport": 2, "poet": 1}


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ("Теперь как поэт", "bard"),
        ("А теперь будь поэтом. Что такое снег?", "bard"),
        ("Ответь как настоящий поэт: что такое снег?", "bard"),
        ("now as a poet", "bard"),
        ("Please answer like a poet.", "bard"),
        ("Be a poet!", "bard"),
        ("Стань логиком", "logician"),
        ("Будь учёным", "plain"),
        ("Будь ученым", "plain"),
        ("Как поэту найти рифму?", None),
        ("As a poet, I suffer", None),
        ("What does a poet earn?", None),
        ("Я говорю с поэтом", None),
    ],
)
def test_a_role_is_put_on_by_an_instruction_and_not_by_a_mention(router, said, role):
    decision = router.route(said)
    assert decision.role == role
    assert decision.text == [{"role": "user", "content": said}]


def test_a_role_brings_its_words_and_its_sampling(router):
    decision = router.route("now as a poet")
    assert (decision.mix, decision.sampling) == ({"poet": 0.7}, {"temperature": 1.0})
    assert decision.messages[0] == {"role": "system", "content": "You are a poet."}
    assert router.route("Будь учёным").mix is None


def test_what_was_asked_for_stays_until_asked_otherwise(router):
    first = router.route("now as a poet")
    second = router.route("Сколько тренировок в неделю?", previous=first)
    assert (second.role, second.stage, second.turns) == ("bard", "sticky", 2)
    third = router.route("<|use_lora_sport|> and now?", previous=second)
    assert (third.mix, third.role, third.turns) == ({"sport": 1.0}, None, 1)
    fourth = router.route("Теперь будь собой", previous=second)
    assert (fourth.mix, fourth.role) == (None, None)
    fifth = router.route("Сколько тренировок?", previous=fourth)
    assert fifth.mix is None


def test_a_minimum_of_turns_and_a_margin(file):
    router = Router.load(file)
    first = router.route("football")
    assert router.route("a poem", previous=first).mix == {"poet": 0.8}
    assert router.route("go on", previous=first).mix == {"sport": 1.0}
    file.write_text(TEXT + "sticky: {turns: 3}\n", encoding="utf-8")
    second = router.route("a poem", previous=first)
    assert (second.mix, second.stage, second.turns) == ({"sport": 1.0}, "sticky", 2)
    third = router.route("a poem", previous=second)
    assert third.turns == 3
    assert router.route("a poem", previous=third).mix == {"poet": 0.8}
    file.write_text(TEXT + "sticky: {margin: 0.6}\n", encoding="utf-8")
    assert router.route("a poem", previous=first).stage == "sticky"
    assert router.route("two poems, three стиха", previous=first).mix == {"poet": 0.8}


def test_an_explicit_name_goes_before_all_and_is_for_one_turn(router):
    decision = router.route("<|use_lora_sport|> hi", name="logic")
    assert (decision.mix, decision.stage) == ({"logic": 1.0}, "name")
    assert decision.text[0]["content"] == "hi"
    assert router.route("hi", previous=decision).mix is None
    assert router.route("hi", name={"sport": 0.5, "poet": 0.5}).mix == {"sport": 0.5, "poet": 0.5}
    with pytest.raises(InputError, match="Did you mean 'sport'"):
        router.route("hi", name="sprt")


def test_kinds_of_questions_wear_different_sets(file):
    file.write_text(TEXT + "kinds: {field: bard, linear: logician}\n", encoding="utf-8")
    router = Router.load(file)
    open_, linear = router.route("Почему снег молчит?"), router.route("How many is 3 + 4?")
    assert (open_.role, open_.kind) == ("bard", "field")
    assert (linear.role, linear.kind) == ("logician", "linear")
    assert router.route("Снег.").role is None


def test_two_that_disagree_are_mixed_only_below_a_strength(file, tmp_path):
    report = {
        "names": ["sport", "poet", "logic"],
        "cosine": [[1, -0.4, 0.2], [-0.4, 1, 0], [0.2, 0, 1]],
        "sign_conflict": [[0, 0.02, 0.01], [0.02, 0, 0.3], [0.01, 0.3, 0]],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    file.write_text(TEXT + "conflicts: {report: report.json, below: 0.5}\n", encoding="utf-8")
    router = Router.load(file)
    soft = router.route("<|use_lora_sport:0.5|><|use_lora_poet:0.4|> hi")
    assert soft.mix == {"sport": 0.5, "poet": 0.4} and not soft.warnings
    hard = router.route("<|use_lora_sport:0.4|><|use_lora_poet:0.6|><|use_lora_logic:0.6|> hi")
    assert hard.mix == {"poet": 0.6} or hard.mix == {"poet": 0.6, "logic": 0.6}
    assert "sport" not in hard.mix and len(hard.warnings) == 2
    agreeing = router.route("<|use_lora_sport|><|use_lora_logic|> hi")
    assert agreeing.mix == {"sport": 1.0, "logic": 1.0}


def test_a_changed_policy_counts_at_once_and_a_broken_one_is_named_once(file, router):
    said = []

    class Reporter:
        def remark(self, text):
            said.append(text)

        task = None

    with progress.report_to(Reporter()):
        assert router.route("goalkeeper").mix is None
        file.write_text(TEXT.replace("football", "football, goalkeeper"), encoding="utf-8")
        assert router.route("goalkeeper").mix == {"sport": 1.0}
        file.write_text(TEXT.replace("strength", "strenght"), encoding="utf-8")
        for _ in range(3):
            assert router.route("goalkeeper").mix == {"sport": 1.0}
        assert len(said) == 1
        assert "strenght" in said[0] and "'strength'" in said[0] and "stays in force" in said[0]
        file.unlink()
        assert router.route("goalkeeper").mix == {"sport": 1.0}
        file.write_text(TEXT, encoding="utf-8")
        assert router.route("goalkeeper").mix is None
        assert len(said) == 2


def test_a_file_that_was_only_touched_is_not_read_anew(file, router):
    before = router.policy
    os.utime(file, (1, 1))
    assert router.policy is before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adaptors: {}", "unknown key 'adaptors'. Did you mean 'adapters'"),
        ("adapters: {a: {keyword: [x]}}", "Did you mean 'keywords'"),
        ("adapters: {../a: }", "is no name"),
        ("adapters: {spоrt: }", "another one"),
        ("adapters: {none: }", "takes everything off"),
        ("adapters: {a: {patterns: ['(']}}", "no regular expression"),
        ("adapters: {a: {strength: 9}}", "strength"),
        ("adapters: {a: {signals: [b]}, b: }", "stands for two things"),
        ("roles: {r: {mix: {a: 1}}}", "'a', which is not among the adapters"),
        ("kinds: {field: r}", "which is not there"),
        ("stages: [signals, signals]", "named twice"),
        ("conflicts: {report: nowhere.json}", "no report"),
        ("adapters: {a: {corpus: nowhere}}", "no corpus"),
        ("[1, 2]", "is no policy"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "p.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        Router.load(path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_policy_signals_are_known_and_nothing_else():
    router = Router.auto(["sport", "none", "../x", "spоrt"])
    assert router.route("<|use_lora_sport:0.6|> hi").mix == {"sport": 0.6}
    assert router.route("sport").mix is None
    assert set(router.policy.adapters) == {"sport"}


@pytest.mark.parametrize(
    "messages", [[{"content": "x"}], ["x"], [{"role": "user", "content": 3}], [{"role": 1}]]
)
def test_what_is_no_message_is_refused(messages):
    with pytest.raises(InputError, match="Message 0"):
        Router(Policy()).route(messages)


def test_no_messages_are_answered_by_the_base():
    assert Router(Policy()).route([]).mix is None
