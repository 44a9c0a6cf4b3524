"""Chains of thought: problems, answers, the draws of both sides, batches, verdicts."""

import json
import random
import re

import numpy as np
import pytest
import torch

from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.decode import aligned, columns, decode, decode_each, likeliest
from loratelier.scope.reasoning import look_at_chains, problems, prompts
from loratelier.scope.reasoning.answers import cue, parted, read
from loratelier.scope.reasoning.curves import area_over
from loratelier.scope.reasoning.draws import Draws
from loratelier.scope.reasoning.problems import Problem
from loratelier.scope.reasoning.sentences import make_mistake, mistaken, reworded, sentences
from loratelier.scope.reasoning.structure import shipped, shown_in
from loratelier.scope.reasoning.verdict import differences
from loratelier.scope.reasoning.writing import Job, Writer

KINDS = ("arithmetic", "order", "transitive", "if-then")

# --- problems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["en", "ru"])
def test_problems_are_drawn_from_a_seed_and_all_differ(kind, language):
    one, again, other = (problems(kind, 20, seed, language) for seed in (1, 1, 2))
    assert one == again and one != other
    assert len({problem.text for problem in one}) == 20
    assert len({problem.id for problem in (*one, *other)}) == 40
    cyrillic = re.compile("[а-яё]")
    assert all(bool(cyrillic.search(problem.text)) == (language == "ru") for problem in one)


@pytest.mark.parametrize("kind", ["transitive", "if-then"])
def test_neither_yes_nor_no_wins_by_being_said_always(kind):
    golds = [problem.gold for problem in problems(kind, 200, 3)]
    assert 70 < golds.count("yes") < 130


def test_arithmetic_is_right_when_it_is_counted_by_hand():
    for problem in problems("arithmetic", 50, 5):
        have = int(re.search(r"has (\d+)", problem.text)[1])
        for step in re.findall(r"Then [^.]+\.", problem.text):
            number = re.search(r"\d+", step)
            if "double" in step:
                have *= 2
            else:
                have += int(number[0]) * (1 if "found" in step else -1)
        assert problem.gold == str(have) and have >= 1


def test_the_queue_stands_as_its_sentences_say():
    for problem in problems("order", 50, 6):
        before = {}
        for one, word, other in re.findall(
            r"(\w+) stands right (in front of|behind) (\w+)", problem.text
        ):
            first, second = (one, other) if word == "in front of" else (other, one)
            before[first] = second
        (first,) = set(before) - set(before.values())
        queue = [first]
        while queue[-1] in before:
            queue.append(before[queue[-1]])
        place = ["first", "second", "third", "last"].index(
            re.search(r"is (\w+) in", problem.text)[1]
        )
        assert problem.gold == queue[place]


def test_comparisons_follow_from_the_sentences():
    less = {"shorter", "younger", "slower", "lighter"}
    for problem in problems("transitive", 50, 7):
        *told, asked = re.findall(r"(\w+)? ?(?:is|Is (\w+)) (\w+) than (\w+)", problem.text)
        above = {}
        for one, _, word, other in told:
            high, low = (other, one) if word in less else (one, other)
            above[high] = low
        _, first, _, second = asked
        while first in above and first != second:
            first = above[first]
        assert problem.gold == ("yes" if first == second else "no")


def test_russian_numbers_have_their_nouns():
    said = " ".join(problem.text for problem in problems("arithmetic", 200, 8, "ru"))
    assert re.search(r"\b[2-4] (яблока|монеты|пуговицы|карандаша)\b", said)
    assert re.search(r"\b1[1-4] (яблок|монет|пуговиц|карандашей)\b", said)
    assert not re.search(r"\b1[1-4] (яблока|монеты|пуговицы|карандаша)\b", said)
    assert not re.search(r"\b[5-9] (яблока|монеты|пуговицы|карандаша)\b", said)


def test_own_prompts_have_no_right_answer_and_a_language():
    one, other = prompts(["Is it better to be right or kind?", "Что такое время?"])
    assert (one.gold, one.language, other.language) == (None, "en", "ru")
    with pytest.raises(InputError, match="empty"):
        prompts([" "])
    with pytest.raises(InputError, match="arithmetic"):
        problems("arithmetics", 1)


# --- answers ----------------------------------------------------------------------------------

NUMBER = Problem("n", "en", "?", "number", "12")
OPTION = Problem("o", "ru", "?", "option", "Анна", ("Анна", "Борис"))


@pytest.mark.parametrize(
    ("text", "problem", "chain", "answer"),
    [
        ("3 + 9 = 12.\nAnswer: 12 apples", NUMBER, "3 + 9 = 12.", "12"),
        ("So it is 12. Answer: −4.0", NUMBER, "So it is 12.", "-4"),
        ("Answer: 3\nNo, wait.\n**Answer:** 12", NUMBER, "Answer: 3\nNo, wait.", "12"),
        ("It has twelve.", NUMBER, "It has twelve.", None),
        ("Answer: twelve", NUMBER, "", None),
        ("Борис за ней.\nОтвет: это Анна, а не Борис", OPTION, "Борис за ней.", "Анна"),
        ("Ответ:\nБорис", OPTION, "", "Борис"),
        ("The Answer: a song", NUMBER, "The Answer: a song", None),
        ("Hm.\nAnswer: “To be  kind.”", prompts(["?"])[0], "Hm.", "to be kind"),
    ],
)
def test_one_rule_reads_every_answer(text, problem, chain, answer):
    said = parted(text)
    assert (said.chain, read(said.answer, problem)) == (chain, answer)


def test_the_cue_is_what_the_rule_looks_for():
    assert parted(cue("Two and two.", "en") + " 4").chain == "Two and two."
    assert parted(cue("", "ru") + " да").answer == " да"


# --- draws ------------------------------------------------------------------------------------


def test_equal_distributions_give_equal_tokens_and_a_stream_is_its_own():
    scores = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    scores[1] = scores[0]
    many, alone = Draws(["a", "a", "b", "a"], 0.7).chooser(), Draws(["b"], 0.7).chooser()
    for _ in range(50):
        drawn = many(scores, scores)
        assert drawn[0] == drawn[1]
        assert alone(scores[2:3], scores) == drawn[2]


def test_draws_follow_the_distribution_and_part_as_rarely_as_is_said():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05]).double()
    q = torch.tensor([0.4, 0.35, 0.15, 0.1]).double()
    choose = Draws(["one", "one"], 1.0).chooser()
    drawn = torch.stack([choose(torch.stack([p, q]).log(), p) for _ in range(20000)])
    for side, wanted in ((0, p), (1, q)):
        share = torch.bincount(drawn[:, side], minlength=4) / len(drawn)
        assert torch.allclose(share.double(), wanted, atol=0.015)
    same = sum(1 / float(torch.maximum(p / p[x], q / q[x]).sum()) for x in range(4))
    parted_share = float((drawn[:, 0] != drawn[:, 1]).double().mean())
    assert parted_share == pytest.approx(1 - same, abs=0.01)
    variation = float((p - q).abs().sum() / 2)
    assert 1 - same <= 2 * variation / (1 + variation)


# --- batches ----------------------------------------------------------------------------------


def test_rows_of_unlike_prompts_write_what_each_writes_alone(tiny_base):
    rng = random.Random(0)
    rows = [[rng.randrange(3, 250) for _ in range(n)] for n in (3, 17, 9, 17, 1)]
    batch = columns(decode_each(tiny_base.model, rows, likeliest, ends=[2], limit=12), len(rows))
    for row, written in zip(rows, batch, strict=True):
        alone = decode(tiny_base.model, row, likeliest, rows=1, ends=[2], limit=12)
        assert columns(alone, 1)[0] == written


def test_padding_on_the_left_changes_no_logit(tiny_base):
    rows = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 9, 30]]
    both = tiny_base.model(**aligned(tiny_base.model, rows)).logits
    alone = tiny_base.model(input_ids=torch.tensor([rows[0]])).logits
    assert torch.allclose(both[0, -3:], alone[0], atol=1e-5)


def test_a_writer_writes_both_sides_as_each_would_alone(tiny_base, adapter):
    change = Change(tiny_base, adapter)
    jobs = [Job((5, 6, 7, n), (5, 6, 7, 8, 9, n), f"s{n}") for n in range(10, 15)]
    many = Writer(change, 10).write(jobs, limit=10, temperature=0.8, what="")
    single = Writer(change, 2)
    for job, written in zip(jobs, many, strict=True):
        assert single.write([job], limit=10, temperature=0.8, what="") == [written]
    choose = Draws(["s12"], 0.8).chooser()
    with change.at(0.0):
        bare = decode(tiny_base.model, jobs[2].before, choose, rows=1, ends=[2], limit=10)
        assert columns(bare, 1)[0] == many[2][0]


def test_likelihoods_are_those_of_a_plain_forward(tiny_base, adapter):
    change = Change(tiny_base, adapter)
    texts = [((5, 6, 7), (8, 9), (10, 11)), ((5,), (6, 7, 8, 9), (12,))]
    found = Writer(change, 8).likelihoods(texts, what="")
    for (before, after, text), sides in zip(texts, found, strict=True):
        for share, prompt, value in zip((0.0, 1.0), (before, after), sides, strict=True):
            with change.at(share):
                logits = tiny_base.model(input_ids=torch.tensor([[*prompt, *text]])).logits[0]
            logp = logits.double().log_softmax(-1)
            wanted = sum(float(logp[len(prompt) - 1 + n, t]) for n, t in enumerate(text))
            assert value == pytest.approx(wanted, abs=1e-4)


# --- sentences --------------------------------------------------------------------------------


def test_sentences_are_the_text_and_numbers_of_a_list_stay_with_theirs():
    text = "Ann has 3.5 apples. She eats one!\n1. Count them.\n2. Stop… Так ли? Да."
    pieces = sentences(text)
    assert "".join(pieces) == text
    assert [piece.strip() for piece in pieces] == [
        "Ann has 3.5 apples.", "She eats one!", "1. Count them.", "2. Stop…", "Так ли?", "Да.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "language", "wrong"),
    [
        ("The lamp is not on.", "en", "The lamp is on."),
        ("More is needed.", "en", "More is not needed."),
        ("Лампа не горит.", "ru", "Лампа горит."),
        ("Анна выше Бориса.", "ru", "Анна ниже Бориса."),
        ("Hm.", "en", None),
    ],
)
def test_a_sentence_without_numbers_is_denied(sentence, language, wrong):
    assert mistaken(sentence, language, "0") == wrong


def test_a_mistake_changes_one_number_by_its_seed_alone():
    made = {mistaken("She has 12 and 5.", "en", str(seed)) for seed in range(40)}
    assert len(made) > 3
    for wrong in made:
        old, new = re.findall(r"\d+", "She has 12 and 5."), re.findall(r"\d+", wrong)
        assert sum(one != other for one, other in zip(old, new, strict=True)) == 1
    assert mistaken("She has 12.", "en", "7") == mistaken("She has 12.", "en", "7")


def test_a_mistake_is_made_in_the_nearest_sentence_that_can_have_one():
    pieces = ("Hm. ", "Well. ", "It is 4. ", "So.")
    at, wrong = make_mistake(pieces, 0.0, "en", "0")
    assert at == 2 and wrong != pieces[2]
    assert make_mistake(("Hm.", "Oh."), 0.5, "en", "0") is None


def test_rewording_keeps_numbers_and_order():
    assert reworded("If it rains, then 2 + 3 = 5.", "en") == "Whenever it rains, 2 plus 3 equals 5."
    assert reworded("Значит, 4 - 1 = 3.", "ru") == "Следовательно, 4 минус 1 равно 3."
    assert reworded("Birds sing.", "en") == "Birds sing."


# --- structures -------------------------------------------------------------------------------


def test_structures_are_those_of_the_corpus_templates():
    names = {each.id for each in shipped()}
    assert {"if-then", "paradox", "restart", "error-noticed"} <= names
    english = "If the door is shut, then I knock. Wait, my mistake: it is open instead."
    found = shown_in(english, "en", shipped())
    assert found["if-then"].whole and found["error-noticed"].whole
    assert not found["restart"].whole
    russian = shown_in(
        "Если дверь закрыта, то я стучу. Так не выйдет, начну с окна.", "ru", shipped()
    )
    assert russian["if-then"].whole and russian["restart"].whole


def test_every_written_row_of_a_template_shows_its_structure():
    for structure in shipped():
        for language, _, row in structure.numbered():
            text = structure.reply(language, row)
            assert shown_in(text, language, [structure])[structure.id].whole


# --- verdicts ---------------------------------------------------------------------------------


def test_noise_alone_is_hardly_ever_claimed():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(60):
        figures = {str(n): [tuple(pair) for pair in rng.normal(size=(12, 2))] for n in range(15)}
        found = differences(figures)
        wrong += any(one.claim in ("rose", "fell") for one in found.values())
    assert wrong <= 8  # 3 are expected of 60, 8 or fewer in 99.5% of such runs


def test_a_plain_difference_is_claimed_beside_many_that_are_none():
    rng = np.random.default_rng(1)
    figures = {str(n): [tuple(pair) for pair in rng.normal(size=(14, 2))] for n in range(15)}
    figures["longer"] = [(100 + x, 140 + y) for x, y in rng.normal(0, 5, size=(14, 2))]
    figures["alike"] = [(1.0, 1.0)] * 14
    found = differences(figures)
    longer = found["longer"]
    assert longer.claim == "rose" and longer.low < 40 < longer.high + 5
    assert longer.change == pytest.approx(longer.after - longer.before)
    assert found["alike"].claim == "same"
    few = differences({"longer": [(1.0, 9.0)] * 4})["longer"]
    assert (few.claim, few.low, few.p) == ("few", None, 1.0)


def test_the_area_is_that_of_a_hand_worked_curve():
    assert area_over((0.0, 0.5, 1.0), (0.0, 0.5, 1.0)) == pytest.approx(0.5)
    assert area_over((0.0, 0.5, 1.0), (1.0, 1.0, 1.0)) == 0.0
    assert area_over((0.0, 0.25, 1.0), (0.0, 1.0, 1.0)) == pytest.approx(0.125)


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked():
    return (*problems("arithmetic", 2, 1), *problems("if-then", 2, 1, "ru"), *prompts(["Why?"]))


def test_chains_are_looked_at_whole(tiny_base, adapter, asked):
    change = Change(tiny_base, adapter)
    seen = look_at_chains(change, asked, seeds=(0, 1), max_new_tokens=24, at_once=16)
    assert len(seen.pairs) == 10
    for pair in seen.pairs:
        assert pair.before.tokens <= 24
        if pair.parts_at is not None:
            assert 0 <= pair.common < 1
    document = json.loads(json.dumps(seen.to_json(), allow_nan=False))
    assert document["figures"]["tokens"]["problems"] == 5
    assert document["figures"]["answer right"]["problems"] == 4
    assert all(curve["points"][0]["share"] == 0 for curve in document["curves"])
    for curve in seen.curves:
        if curve.test == "early":
            assert (curve.points[-1].before, curve.points[-1].after) == (1.0, 1.0)


def test_the_batch_makes_no_difference(tiny_base, adapter, asked):
    change = Change(tiny_base, adapter)
    many, few = (
        look_at_chains(change, asked[:3], max_new_tokens=16, tests=("early",), at_once=n)
        for n in (32, 2)
    )
    for one, other in zip(many.pairs, few.pairs, strict=True):
        assert one.before.text == other.before.text and one.after.text == other.after.text
        assert one.after.answer == other.after.answer
        if one.after.gold_alone is not None:
            assert one.after.gold_alone == pytest.approx(other.after.gold_alone, abs=1e-4)


def test_an_adapter_without_effect_changes_nothing_at_all(tiny_base, silent, asked):
    seen = look_at_chains(Change(tiny_base, silent), asked, max_new_tokens=16, tests=("early",))
    assert not seen.effect and not seen.claims
    assert all(pair.before == pair.after and pair.parts_at is None for pair in seen.pairs)
    for one in seen.figures.values():
        assert one.change == 0 and one.claim == ("same" if one.problems >= 5 else "few")


def test_what_cannot_be_done_is_said(tiny_base, adapter, asked):
    change = Change(tiny_base, adapter)
    for given, says in (
        ({"seeds": (0, 0)}, "each once"),
        ({"seeds": (0, 1), "temperature": 0}, "all seeds think alike"),
        ({"tests": ("erly",)}, "early"),
        ({"shares": (0.5, 2)}, "from 0 to 1"),
        ({"max_new_tokens": 5000}, "do not fit"),
    ):
        with pytest.raises(InputError, match=says):
            look_at_chains(change, asked, **given)
    with pytest.raises(InputError, match="no problems"):
        look_at_chains(change, ())
    with pytest.raises(InputError, match="one id"):
        look_at_chains(change, [asked[0], asked[0]])
