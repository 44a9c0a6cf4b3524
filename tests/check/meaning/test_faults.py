"""What is lost of a scene: hand-worked cases, and errors that are known to be there."""

import random
from itertools import permutations

import pytest
from bench.meaning import WORDS, scenes

from loratelier.check.meaning import compare_scenes, measure_meaning
from loratelier.check.meaning.align import smatch
from loratelier.check.meaning.graphs import Triples, counts
from loratelier.check.meaning.injected import drawn_scene, paraphrase, validate_detectors
from loratelier.check.meaning.words import numbers
from loratelier.corpus.scenes import Node, read_graph, write_graph
from tests.check.meaning.scenes import VOICEMAIL, shipped

TEXT = write_graph(VOICEMAIL)


def lost(*swaps):
    text = TEXT
    for old, new in swaps:
        assert old in text
        text = text.replace(old, new)
    return {(one.kind, one.what, one.how) for one in
            compare_scenes("v", VOICEMAIL, read_graph(text)).faults}  # fmt: skip


def test_what_is_lost_is_named():
    assert lost() == set()
    assert lost(("dying -cause-> fear", "fear -cause-> dying")) == {
        ("logical", "dying -cause-> fear", "turned round")
    }
    assert lost(("dying -cause-> fear", "dying -prevents-> fear")) == {
        ("logical", "dying -cause-> fear", "became prevents")
    }
    assert lost(("dying -cause-> fear\n", "")) == {("logical", "dying -cause-> fear", "gone")}
    assert lost(("eleven seconds", "twelve seconds"), ("eleven", "so-many")) == {
        ("logical", "eleven", "other number")
    }
    assert lost(('eleven: amount "eleven seconds"\n', ""), ("voicemail -quantity-> eleven\n", "")) \
        == {("logical", "voicemail -quantity-> eleven", "gone")}  # fmt: skip
    assert lost(("fear: state", "fear: state\nnobody: person"),
                ("\n~", "\nnobody -negation-> phone\n~")) == {
        ("logical", "phone", "came")
    }  # fmt: skip
    # One voicemail became two that do not know of each other.
    copied = lost(
        ("phone: thing", "phone: thing\nmessage: utterance"),
        ("voicemail -place-> phone", "message -place-> phone"),
    )
    assert copied == {("split", "voicemail", "copied")}
    # They are one again when they are linked.
    linked = lost(
        ("phone: thing", "phone: thing\nmessage: utterance"),
        ("voicemail -place-> phone", "message -place-> phone\nmessage -part-> voicemail"),
    )
    assert ("split", "voicemail", "copied") not in linked
    assert lost(("daughter -possession-> voicemail\n", ""), ("voicemail -place-> phone\n", "")) == {
        ("split", "daughter -possession-> voicemail", "parted"),
        ("split", "voicemail -place-> phone", "parted"),
    }
    assert lost(("voicemail -place-> phone\n", "")) == {
        ("impoverished", "voicemail -place-> phone", "gone")
    }
    assert lost(("grief 0.6, ", ""), ("rhythm still", "rhythm quick"), ("0.6;", "0.1;")) == {
        ("impoverished", what, "gone") for what in ("emotion grief", "rhythm", "tension")
    }
    assert ("impoverished", "tone", "gone") in lost((TEXT[TEXT.index("\n~") :], ""))


def test_triples_by_words_and_smatch_by_structure():
    same = compare_scenes("v", VOICEMAIL, VOICEMAIL)
    # 7 nodes, 2 names, 7 relations, and a field of 2 emotions, rhythm, tension and tone.
    assert same.words.wanted == same.words.matched == same.smatch.matched == 21
    text = TEXT.replace("daughter", "girl").replace("father", "dad").replace("fear", "dread")
    other = compare_scenes("v", VOICEMAIL, read_graph(text))
    assert other.smatch.f1 == 1  # an id is a variable
    # Three nodes and the four relations they stand in are called otherwise.
    assert other.words.matched == 21 - 3 - 4


@pytest.mark.parametrize("number", range(12))
def test_smatch_finds_the_best_of_all_mappings(number):
    rng = random.Random(number)
    small = (scene for scene in (drawn_scene(rng, WORDS) for _ in range(1000))
             if len(scene.nodes) == 6)  # fmt: skip
    wanted, found = Triples(next(small)), Triples(next(small))
    best = max(
        counts(wanted, found, dict(zip(wanted.nodes, others, strict=True))).matched
        for others in permutations(found.nodes)
    )
    assert smatch(wanted, found).matched == best


def test_a_number_is_read_in_words_and_digits():
    def read(name):
        return numbers(Node(id="n", kind="amount", name=name))

    assert read("forty two seconds") == read("42 seconds") == {42}
    assert read("трое") == read("3 человека") == {3}
    assert read("many times") == frozenset()


def test_what_is_no_scene_is_counted_and_never_a_zero():
    pairs = [
        ("good", VOICEMAIL, TEXT),
        ("fenced", VOICEMAIL, f"```\n{TEXT}\n```\n"),
        ("prose", VOICEMAIL, "She keeps a voicemail."),
        ("broken", VOICEMAIL, "rain: event\nrain -cause-> flood"),
    ]
    found = measure_meaning(pairs)
    assert found.scenes == 4
    assert [one.scene for one in found.unread] == ["prose", "broken"]
    assert "no node 'flood'" in found.unread[1].why
    assert found.f1.value == found.smatch.value == found.precision.value == 1
    nothing = measure_meaning(pairs[2:])
    assert nothing.f1 is nothing.smatch is nothing.precision is nothing.recall is None
    assert nothing.errors == {}


def test_the_interval_is_of_scenes():
    half = TEXT.replace("dying -cause-> fear", "fear -cause-> dying")
    found = measure_meaning((str(n), VOICEMAIL, half if n % 2 else TEXT) for n in range(20))
    assert found.errors["logical"].value == 0.5
    low, high = found.errors["logical"].interval
    # Binomial: 1.96 * sqrt(0.25 / 20) = 0.22.
    assert low == pytest.approx(0.28, abs=0.06) and high == pytest.approx(0.72, abs=0.06)
    assert found.smatch.interval[0] < found.smatch.value < found.smatch.interval[1]


def test_a_paraphrase_has_the_same_meaning():
    for number, scene in enumerate(shipped()[::7]):
        said = paraphrase(scene.graph, random.Random(number))
        assert {node.id for node in said.nodes} != {node.id for node in scene.nodes}
        kept = compare_scenes(scene.id, scene.graph, said)
        assert not kept.faults


def test_the_detectors_find_what_was_put_in_and_nothing_else():
    own, drawn = scenes()
    assert len(own) >= 60 and len(own) + len(drawn) == 200
    for one in validate_detectors([*own, *drawn]):
        assert one.found.count >= (195 if one.injected else 200), one
        assert one.found.value >= (0.9 if one.injected else 0.95), one
        assert one.beside.value <= 0.05, one
