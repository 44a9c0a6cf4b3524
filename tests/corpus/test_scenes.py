"""Scenes: what is checked, how they are written down and read back, what rows they make."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loratelier.corpus import Corpus, build_corpus
from loratelier.corpus.scenes import (
    KINDS,
    RELATIONS,
    Graph,
    Scene,
    read_graph,
    read_scene,
    write_graph,
    write_scene,
)
from loratelier.corpus.written import is_written, read_written
from loratelier.kit.errors import InputError
from tests.corpus.test_build import note

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenes"

OVEN = """language: en
scenes:
  - id: oven
    text: |
      The oven is on.
      Nobody is home.
    nodes:
      oven: thing
      warmth: [state, "the warmth of the kitchen"]
      nobody: person
    relations:
      - [oven, cause, warmth]
      - [nobody, negation, warmth]
    field: {emotion: {calm: 0.8, unease: 0.25}, rhythm: slow, tension: 0.1, tone: plain}
    human: Did you turn it off?
    roles:
      poet: It bakes the dark.
    overlays:
      - field: {emotion: {fear: 1}, rhythm: quick, tension: 0.9, tone: "a cry: fire"}
        text: The oven is on!
hyperlexemes:
  - name: left-on
    scene: oven
    replies: [Something is still running.]
"""
GRAPH = """oven: thing
warmth: state "the warmth of the kitchen"
nobody: person
oven -cause-> warmth
nobody -negation-> warmth
~ emotion calm 0.8, unease 0.25; rhythm slow; tension 0.1; tone "plain\""""


def built(folder, text=OVEN, **options):
    folder.mkdir(exist_ok=True)
    (folder / "scenes.yaml").write_text(text, encoding="utf-8")
    return build_corpus(folder, **options)


def pairs(corpus):
    return {
        row["id"]: [message["content"] for message in row["messages"]]
        for row in corpus.rows.to_pylist()
    }


def test_the_rows_of_a_scene_by_hand(tmp_path):
    assert pairs(built(tmp_path)) == {
        "oven#input": ["Read this text as a scene.\n\nThe oven is on.\nNobody is home.", GRAPH],
        "oven#output": [
            f"Tell this scene in words.\n\n{GRAPH}",
            "The oven is on.\nNobody is home.",
        ],
        "oven#human": ["The oven is on.\nNobody is home.", "Did you turn it off?"],
        "oven#as-poet": [f"Tell this scene as a poet.\n\n{GRAPH}", "It bakes the dark."],
        "oven#over-1": [
            "Tell this scene in the field that is laid over it.\n\n"
            + GRAPH[: GRAPH.index("~")]
            + '~ emotion fear 1.0; rhythm quick; tension 0.9; tone "a cry: fire"',
            "The oven is on!",
        ],
        "oven#hx_left-on-reply-1": ["<|hx_left-on|>", "Something is still running."],
        "oven#hx_left-on-name-1": [
            "Name this with one hyperlexeme.\n\nSomething is still running.",
            "<|hx_left-on|>",
        ],
        "oven#hx_left-on-unfold": [
            "Unfold this hyperlexeme into its scene.\n\n<|hx_left-on|>",
            GRAPH,
        ],
        "oven#hx_left-on-fold": [
            f"Fold this scene into its hyperlexeme.\n\n{GRAPH}",
            "<|hx_left-on|>",
        ],
    }


def test_a_build_of_scenes_counts_and_says_where_each_part_stands(tmp_path):
    corpus = built(tmp_path / "in")
    report = corpus.report
    assert (report.conversations, report.rows, report.messages, report.dropped) == (1, 9, 18, 0)
    assert report.tokens == ["<|hx_left-on|>"]
    assert report.files[0].title == "1 scene, 1 hyperlexeme"
    rows = {row["id"]: row for row in corpus.rows.to_pylist()}
    told = rows["oven#as-poet"]["lineage"][1]
    assert OVEN[told["start"] : told["end"]] == "It bakes the dark."
    assert (told["file"], told["uid"]) == ("scenes.yaml", "oven")
    graph = rows["oven#input"]["lineage"][1]
    assert OVEN[graph["start"] : graph["end"]].startswith("id: oven\n")
    assert graph["steps"] == ["written in the notation of scenes"]
    saved = corpus.save(tmp_path / "out")
    assert Corpus.load(saved).rows.equals(corpus.rows)


def test_in_the_scene_format_a_scene_is_one_row_whole(tmp_path):
    corpus = built(tmp_path, format="scene")
    row = corpus.rows.to_pylist()[0]
    assert row["id"] == "oven#scene"
    assert row["text"] == (
        f"= scene oven en\n{GRAPH}\n"
        "= text\n| The oven is on.\n| Nobody is home.\n"
        "= human\n| Did you turn it off?\n"
        "= as poet\n| It bakes the dark.\n"
        '= over emotion fear 1.0; rhythm quick; tension 0.9; tone "a cry: fire"\n'
        "| The oven is on!"
    )
    assert read_scene(row["text"]) == read_written(OVEN, "x").scenes[0]


def test_all_rows_of_a_scene_are_on_one_side_of_the_split(tmp_path):
    sides = {}
    for row in build_corpus(EXAMPLES, holdout=0.2).rows.to_pylist():
        sides.setdefault(row["conversation"], set()).add(row["split"])
    assert Counter(map(frozenset, sides.values())).keys() == {
        frozenset({"train"}),
        frozenset({"holdout"}),
    }


def test_scenes_stand_beside_notes_and_json_is_read_too(tmp_path):
    (tmp_path / "talk.md").write_text(note(("user", "Ask", "u1"), ("agent", "Answer", "a1")))
    value = yaml.safe_load(OVEN)
    (tmp_path / "scenes.txt").write_text(json.dumps(value, ensure_ascii=False, indent=1))
    corpus = build_corpus(tmp_path)
    assert (corpus.report.conversations, corpus.report.rows, corpus.report.messages) == (2, 10, 20)


def test_a_script_keeps_scenes_of_its_language(tmp_path):
    corpus = build_corpus([EXAMPLES / "ru-home.yaml", EXAMPLES / "en-home.yaml"], script="Cyrl")
    files = {row["lineage"][0]["file"] for row in corpus.rows.to_pylist()}
    assert files == {"ru-home.yaml"}
    reasons = {each["reason"] for each in corpus.dropped.to_pylist()}
    assert reasons == {"another script than Cyrl: Latn"}
    assert corpus.report.messages == corpus.report.messages_in_rows + corpus.report.dropped


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            "[oven, cause, warmth]",
            "[oven, cause, warmht]",
            r"scene 'oven': relation 1 \(oven -cause-> warmht\): there is no node 'warmht'\. Did "
            "you mean 'warmth'",
        ),
        ("cause,", "causes,", r"relation 1 .*the type 'causes' is unknown\. Did you mean 'cause'"),
        ("oven: thing", "oven: thin", "node 'oven' has the unknown kind 'thin'.*'thing'"),
        ("oven: thing", "o ven: thing", "line 8: scene 'oven': nodes.0.id: 'o ven' is no name"),
        ("[oven, cause, warmth]", "[oven, quality, nobody]", "'quality' runs to .* 'nobody' is a"),
        ("[oven, cause, warmth]", "[warmth, does, oven]", "'does' runs from .* 'warmth' is a st"),
        ("[oven, cause, warmth]", "[oven, warmth]", "line 12: .*a relation is three words"),
        ("[oven, cause, warmth]", "[oven, cause, oven]", "relation 1 .* joins a node to itself"),
        ("[oven, cause, warmth]", "[nobody, negation, warmth]", "relation .* stands 2 times"),
        ("- [nobody, negation, warmth]\n", "\n", "node 'nobody' stands in no relation"),
        (
            "[oven, cause, warmth]",
            "[oven, before, warmth]\n      - [warmth, before, nobody]\n"
            "      - [nobody, before, oven]",
            "'before' run in a circle: oven → warmth → nobody → oven",
        ),
        ("tension: 0.1", "tension: 1.1", "line 14: scene 'oven': field.tension: .*less than or eq"),
        ("rhythm: slow", "rhythm: fast", "field.rhythm: .*'still'.*fast"),
        ("calm: 0.8", '"calm;": 0.8', "'calm;' is no word for an emotion"),
        ("human:", "humn:", "line 3: scene 'oven': unknown key 'humn'. Did you mean 'human'"),
        ("    text: |\n", "    text: |\n      one\n    text: |\n", "line 6: the key 'text' stands"),
        ("poet:", "poet laureate:", "'poet laureate' is no name"),
        ("    scene: oven", "    scene: ovn", "'left-on' stands for 'ovn'.*Did you mean 'oven'"),
        ("    scene: oven\n", "", "hyperlexeme 'left-on' must stand for a scene or for a pattern"),
        ("hyperlexemes:", "hyperlexeme:", "unknown key 'hyperlexeme'.*'hyperlexemes'"),
        ("language: en", "language: de", "language 'de' is unknown"),
        ("id: oven", "id: &a oven", "line 3: anchors and tags are not read here"),
        ("The oven is on.", "\x01", "no YAML"),
        ("  - id: oven", "  - id: oven: no", "line 3: no YAML here"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, was, now, said):
    assert was in OVEN
    with pytest.raises(InputError, match=said) as caught:
        built(tmp_path, OVEN.replace(was, now, 1))
    assert str(caught.value).startswith("scenes.yaml")
    assert "\n" not in str(caught.value)


def test_one_scene_in_two_files_is_refused_with_both_names(tmp_path):
    (tmp_path / "other.yaml").write_text(OVEN)
    with pytest.raises(InputError, match=r"scene 'oven' stands in other\.yaml and in scenes\.yaml"):
        built(tmp_path)


def test_a_file_may_begin_with_remarks_and_a_rule():
    text = "# Ours\n\n---\n# of June\n" + OVEN.replace("\n", "\r\n")
    assert is_written(text)
    assert len(read_written(text, "x").scenes) == 1


def test_the_schema_can_be_told_to_others():
    schema = Scene.model_json_schema()
    assert {"id", "nodes", "relations", "field", "text"} <= schema["properties"].keys()


def test_yes_and_no_are_words(tmp_path):
    text = OVEN.replace("oven: thing", "no: thing").replace("[oven, cause", "[no, cause")
    assert read_written(text, "x").scenes[0].nodes[0].id == "no"


@pytest.mark.parametrize(
    "text",
    [
        "# scenes:\nA note about scenes:\n- one",
        "The language: of scenes\nscenes:\n  words",
        "scenes from a marriage: a review",
        '{"mapping": {"scenes": []}}',
        "version: 2\nservices:\n  scenes: []",
        "---\nlanguage: ru\n---\n\nscenes:\n",
        "# # # # #" * 20_000 + "\n" + " " * 20_000 + "x",
        "#\n \n" * 20_000 + "x",
        "",
    ],
)
def test_other_texts_are_no_scenes(text):
    assert not is_written(text)


@given(st.text(st.sampled_from("[]{}:,-&*!|>'\"#\n ascenelguw%@`\x00é"), max_size=80))
@settings(max_examples=300, deadline=None)
def test_whatever_follows_a_files_head_is_read_or_named(rest):
    try:
        read_written(f"scenes:\n{rest}", "x.yaml")
    except InputError as error:
        assert "x.yaml" in str(error)


@pytest.mark.parametrize(
    "deep", ["[" * 200_000, "{a: " * 50_000, "\n".join(" " * n + "- " for n in range(900))]
)
def test_hostile_nesting_is_named_and_never_followed(deep):
    with pytest.raises(InputError, match=r"nested deeper|no YAML"):
        read_written(f"scenes: {deep}", "x.yaml")


names = st.from_regex(r"[a-zа-яё][a-zа-я0-9_]{0,6}(-[a-z0-9]{1,3})?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
filled = texts.map(lambda text: text.strip("\n")).filter(str.strip)
shares = st.floats(0, 1)
moods = st.fixed_dictionaries(
    {
        "emotion": st.dictionaries(
            st.sampled_from(["calm", "тихая грусть", "awe"]), shares, min_size=1
        ),
        "rhythm": st.sampled_from(["still", "slow", "even", "broken", "quick"]),
        "tension": shares,
        "tone": filled,
    }
)


@st.composite
def scenes(draw):
    ids = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    return Scene.model_validate(
        {
            "id": draw(names),
            "language": draw(st.sampled_from(["en", "ru"])),
            "text": draw(filled),
            "nodes": [
                {
                    "id": id,
                    "kind": draw(st.sampled_from(sorted(KINDS))),
                    "name": draw(st.none() | texts),
                }
                for id in ids
            ],
            "relations": [
                [ids[0], draw(st.sampled_from(["cause", "about"])), id] for id in ids[1:]
            ],
            "field": draw(st.none() | moods),
            "human": draw(st.none() | filled),
            "roles": draw(st.dictionaries(names, filled, max_size=2)),
            "overlays": draw(
                st.lists(st.fixed_dictionaries({"field": moods, "text": filled}), max_size=2)
            ),
        }
    )


@given(scenes())
@settings(max_examples=200, deadline=None)
def test_a_scene_is_read_back_from_its_notation_and_from_json(scene):
    assert read_scene(write_scene(scene)) == scene
    assert read_graph(write_graph(scene)) == scene.graph
    assert Scene.model_validate_json(scene.model_dump_json()) == scene


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("oven: thing\nwarmth is here", "Line 2 .*'warmth is here'"),
        ("oven: thing\noven -heats-> oven", "'heats' is unknown"),
        ('oven: thing "the oven', "Line 1"),
        ("oven: thing\n~ emotion calm", "Line 2 is no field"),
        ('~ emotion calm x; rhythm slow; tension 0.1; tone "a"', "Line 1: 'x' is no number"),
        ("", "Line 1"),
    ],
)
def test_a_broken_notation_names_its_line(text, said):
    with pytest.raises(InputError, match=said):
        read_graph(text)


def test_a_part_of_a_scene_stands_once():
    text = write_scene(read_written(OVEN, "x").scenes[0])
    with pytest.raises(InputError, match="the part 'human' stands twice"):
        read_scene(text + "\n= human\n| again")
    with pytest.raises(InputError, match="'text' is missing"):
        read_scene("= scene oven en\noven: thing")
    with pytest.raises(InputError, match="Line 1"):
        read_scene("oven: thing")


@pytest.fixture(scope="module")
def examples():
    files = [
        read_written(path.read_text(encoding="utf-8"), path.name)
        for path in EXAMPLES.glob("*.yaml")
    ]
    return [scene for file in files for scene in file.scenes]


def test_the_example_scenes_are_enough_and_of_both_languages(examples):
    assert len(examples) >= 60
    languages = Counter(scene.language for scene in examples)
    assert abs(languages["ru"] - languages["en"]) <= 6
    told = [scene for scene in examples if set(scene.roles) == {"logician", "poet", "philosopher"}]
    assert len(told) >= 20
    assert Counter(bool(scene.overlays) for scene in examples)[True] >= 16
    assert all(scene.field and scene.human for scene in examples)


def test_the_example_scenes_use_every_kind_and_every_relation(examples):
    used = {relation.type for scene in examples for relation in scene.relations}
    assert used == set(RELATIONS)
    assert {node.kind for scene in examples for node in scene.nodes} == set(KINDS)


def test_the_example_scenes_differ_in_text_and_in_shape(examples):
    shapes = Counter(tuple(sorted((each.type) for each in scene.relations)) for scene in examples)
    assert max(shapes.values()) <= 2
    assert closest(scene.text for scene in examples) < 0.35


def closest(texts):
    """The largest share of words that two texts have in common (Jaccard)."""
    bags = [frozenset(text.lower().split()) for text in texts]
    return max(
        len(one & other) / len(one | other)
        for number, one in enumerate(bags)
        for other in bags[:number]
    )


def test_the_example_scenes_survive_every_form(examples):
    for scene in examples:
        assert read_scene(write_scene(scene)) == scene
        assert Graph.model_validate_json(scene.graph.model_dump_json()) == scene.graph
