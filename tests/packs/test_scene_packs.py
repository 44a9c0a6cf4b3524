"""The packs of scenes, hyperlexemes, events and grounds of thought: what their rows promise."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from loratelier import Router
from loratelier.check.behaviour import load_behaviour
from loratelier.corpus import build_corpus
from loratelier.corpus.scenes import read_graph, write_graph
from loratelier.corpus.scenes.prompts import PROMPTS
from loratelier.route.policy import read_policy
from loratelier.train import load_recipe

PACKS = Path(__file__).parents[2] / "examples" / "packs"
SCENES = ("scene-reader", "scene-teller", "field-layer")
LABELS = {
    "thinking-events": r"First: .+\n\n(Wait|Oh|Again): .+\n\nSo: .+",
    "epistemology-empirical": r"Seen: .+\n\nCounted: .+\n\nOpen: .+",
    "epistemology-formal": r"Let: .+\n\nThen: .+\n\nHence: .+",
    "epistemology-dialectical": r"Thesis: .+\n\nAgainst: .+\n\nBoth: .+",
    "chief-expert": r"Ground: .+\n\nFlaw: .+\n\nDo: .+",
}
OURS = (*SCENES, *LABELS, "hyperlexemes")
ASKED = {
    "thinking-events": "Now as a thinker. Why is the lamp warm?",
    "epistemology-empirical": "Теперь как эмпирик. Почему скрипит дверь?",
    "epistemology-formal": "Answer as a formalist: is one a number?",
    "epistemology-dialectical": "Теперь как диалектик. Нужен ли спор?",
    "scene-reader": "Read this text as a scene.\n\nThe oven is on.",
    "scene-teller": "Tell this scene in words.\n\noven: thing",
    "field-layer": "Tell this scene in the field that is laid over it.\n\noven: thing",
    "hyperlexemes": "<|hx_doorway|> My son leaves school.",
}
TOKEN = re.compile(r"<\|hx_\w+\|>")


def rows(name, file="own.jsonl"):
    """Return the rows of a pack's file as lists of what was said, the user first."""
    lines = (PACKS / name / "corpus" / file).read_text(encoding="utf-8").splitlines()
    return [_said(json.loads(line)) for line in lines]


def _said(row):
    if "messages" in row:
        return [message["content"] for message in row["messages"]]
    return [row["prompt"], row["completion"]]


def scenes(name, file="own.jsonl"):
    """Return every scene of a pack as it is written in its rows."""
    if name == "scene-reader":
        return [f"{said[1]}\n{said[3]}" for said in rows(name, file)]
    return [said[0].partition("\n\n")[2] for said in rows(name, file)]


@pytest.mark.parametrize("file", ["own.jsonl", "ru/dialogues.jsonl"])
@pytest.mark.parametrize("name", SCENES)
def test_every_scene_can_be_read_and_is_written_the_same_again(name, file):
    written = scenes(name, file)
    graphs = [read_graph(text) for text in written]
    assert [write_graph(graph) for graph in graphs] == written
    assert all(graph.field and graph.relations for graph in graphs)


@pytest.mark.parametrize(("language", "file"), [("en", "own.jsonl"), ("ru", "ru/dialogues.jsonl")])
def test_scenes_are_asked_for_as_the_scene_files_ask(language, file):
    ask = PROMPTS[language]
    first = {name: {said[0].partition("\n\n")[0] for said in rows(name, file)} for name in SCENES}
    assert first == {
        "scene-reader": {ask.input},
        "scene-teller": {ask.output},
        "field-layer": {ask.context},
    }


def test_the_layer_tells_the_tellers_scenes_in_another_field():
    told, layered = (
        [read_graph(text) for text in scenes(name)] for name in ("scene-teller", "field-layer")
    )
    assert [graph.nodes for graph in told] == [graph.nodes for graph in layered]
    pairs = zip(told, layered, strict=True)
    assert all(one.field.emotion != other.field.emotion for one, other in pairs)


def test_hyperlexemes_are_the_tokens_that_the_recipe_brings():
    """Each stands in many rows, so that none is without one when rows are held out."""
    recipe = load_recipe(PACKS / "hyperlexemes" / "recipe.yaml")
    used = Counter(TOKEN.search(" ".join(said))[0] for said in rows("hyperlexemes"))
    assert set(used) == set(recipe.new_tokens)
    assert min(used.values()) >= 8
    assert all(len(set(TOKEN.findall(" ".join(said)))) == 1 for said in rows("hyperlexemes"))


@pytest.mark.parametrize("name", LABELS)
def test_answers_keep_their_form(name):
    form = re.compile(LABELS[name])
    assert [said[1] for said in rows(name) if not form.fullmatch(said[1])] == []


@pytest.mark.parametrize("name", OURS)
class TestPack:
    def test_sixty_four_dialogues_all_different(self, name):
        said = rows(name)
        assert len(said) >= 64
        assert len({one[0] for one in said}) == len(said)
        assert len({one[-1] for one in said}) == len(said)

    def test_what_is_learned_on_the_demo_base_is_english_alone(self, name):
        learned = build_corpus([PACKS / name / "corpus"], script="Latn", holdout=0.15)
        assert len(learned.rows) == len(rows(name))
        text = json.dumps(learned.rows.to_pylist(), ensure_ascii=False, default=str)
        assert not re.search("[а-яё]", text)

    def test_twelve_russian_dialogues_lie_apart(self, name):
        russian = rows(name, "ru/dialogues.jsonl")
        assert len({said[0] for said in russian}) == 12
        assert all(re.search("[а-яё]", said[-1]) for said in russian)

    def test_recipe_tests_and_policy_are_whole(self, name):
        folder = PACKS / name
        assert load_recipe(folder / "recipe.yaml").name == name
        tests = load_behaviour(folder / "behaviour.yaml").tests
        assert 6 <= len(tests) <= 10
        questions = {said[0] for said in rows(name)}
        assert questions.isdisjoint(test.prompt for test in tests)
        entry = folder / "policy.yaml"
        assert name in read_policy(entry, entry.read_bytes()).adapters


@pytest.mark.parametrize("name", ASKED)
def test_a_pack_is_worn_when_it_is_asked_for(name):
    router = Router.load(PACKS / name / "policy.yaml")
    assert router.route(ASKED[name]).mix == {name: 1.0}
    assert router.route(f"<|use_lora_{name}|>What is time?").mix == {name: 1.0}
    assert router.route("What is the capital of France?").mix is None


def test_the_chief_expert_wears_three_roles_under_its_own_form():
    worn = {"chief-expert": 0.7, "philosopher": 0.3, "critic": 0.3, "interface": 0.3}
    router = Router.load(PACKS / "chief-expert" / "policy.yaml")
    assert router.route("Теперь как главный эксперт. Строить ли мост?").mix == worn
    assert router.route("<|use_lora_chief|>Should we build it?").mix == worn
    assert router.route("<|use_lora_chief-expert|>Should we?").mix == {"chief-expert": 1.0}
