"""Synthesis against a real server of the protocol on this machine: what is asked, checked, kept."""

import json
import re
import threading
import time
from collections import Counter
from email.utils import formatdate
from itertools import pairwise

import numpy as np
import pytest
import torch

from loratelier.corpus import Corpus, build_corpus
from loratelier.corpus.formats import Rendered, parse
from loratelier.corpus.scenes import read_graph
from loratelier.corpus.synthesize import Api, Rates, Settings, plan, synthesize
from loratelier.corpus.synthesize.local import Local
from loratelier.kit.errors import InputError
from tests.corpus.protocol_server import (
    KEY,
    Server,
    body,
    completion,
    dribble,
    error,
    hang_up,
    reset,
    says,
    status,
)

NOTE = """>[!nexus_user] **User** - t
> {question}
<!-- UID: {uid}q -->

>[!nexus_agent] **Assistant** - t
> {answer}
<!-- UID: {uid}a -->

"""
TALKS = {
    "lamp": [
        ("What did you mend?", "The lamp in the hall was broken since 1987, so I mended it."),
        ("And then?", "Then we sat under it and read until the morning came back."),
    ],
    "tea": [("Чай готов?", "Чай стоит на столе с 12 часов, и он давно остыл в кружке.")],
    "door": [("Who is there?", "Nobody is there, only the wind that tries the old door.")],
}
PAGE = """# The mill

The mill on the river burned down in 1911, on a windy evening in October, while the harvest festival
was ending. The miller built it again.
"""


def write_notes(folder):
    folder.mkdir()
    for name, pairs in TALKS.items():
        blocks = [
            NOTE.format(question=question, answer=answer, uid=f"{name}{number}")
            for number, (question, answer) in enumerate(pairs)
        ]
        (folder / f"{name}.md").write_text("".join(blocks), encoding="utf-8")
    return folder


def write_many(folder, count):
    """One exchange a note."""
    folder.mkdir()
    for number in range(count):
        answer = f"The river turns at stone {number + 10} and goes on."
        note = NOTE.format(question="What now?", answer=answer, uid=f"n{number}")
        (folder / f"{number}.md").write_text(note, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(write_notes(tmp_path_factory.mktemp("synth") / "notes"), holdout=0)


@pytest.fixture(scope="module")
def lamp(tmp_path_factory):
    folder = write_notes(tmp_path_factory.mktemp("lamp") / "notes")
    return build_corpus(folder / "lamp.md", holdout=0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "mill.md").write_text(PAGE, encoding="utf-8")
    return build_corpus(folder, format="raw", holdout=0)


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "out.answers.sqlite"


def text_of(messages):
    """What is to be rewritten: the answer above the request, or the text in it."""
    tagged = re.search(r"<text>\n(.*)\n</text>", messages[0]["content"], re.DOTALL)
    return tagged[1] if tagged else messages[1]["content"]


def reworded(messages):
    """The text with its words turned round: other words, the same numbers."""
    return " ".join(reversed(text_of(messages).split()))


def quick(server, **more):
    return Api(server.url, "writer", **{"first_wait": 0.01, "timeout": 5} | more)


def written(corpus, server, store, task="rephrase", api=None, **settings):
    return synthesize(corpus, api or quick(server), Settings(task, **settings), store)


def places(lineage):
    return [(one["file"], one["uid"], one["start"], one["end"]) for one in lineage]


def all_places(table):
    return {place for row in table.to_pylist() for place in places(row["lineage"])}


# What is written


def test_rephrasing_changes_the_answers_and_nothing_else(corpus, store):
    with Server(reworded) as server:
        made = written(corpus, server, store)
    rows = {row["conversation"]: row for row in made.corpus.rows.to_pylist()}
    assert len(rows) == 3
    for old in corpus.rows.to_pylist():
        new = rows[old["conversation"]]
        assert [m["role"] for m in new["messages"]] == [m["role"] for m in old["messages"]]
        for number, (was, now) in enumerate(zip(old["messages"], new["messages"], strict=True)):
            steps = [one["steps"] for one in new["lineage"] if one["message"] == number]
            if was["role"] == "user":
                assert (now, steps) == (was, [[]])
            else:
                assert now["content"].split() == was["content"].split()[::-1]
                assert steps == [["synthesized: rephrase version 1 by writer"]]
        assert places(new["lineage"]) == places(old["lineage"])
    assert made.corpus.dropped.num_rows == made.failed == 0


def test_an_answer_is_asked_for_with_the_question_it_answers(corpus, store):
    with Server(reworded) as server:
        written(corpus, server, store)
    asked, said, request = next(each for each in server.prompts() if "Then we sat" in str(each))
    assert asked == {"role": "user", "content": "And then?"}
    assert said == {"role": "assistant", "content": TALKS["lamp"][1][1]}
    assert request["content"].startswith("Rewrite your answer in your own words.")


def test_questions_become_a_row_each_with_the_whole_lineage(texts, store):
    pairs = [
        {"question": "When did the mill burn?", "answer": "In 1911."},
        {"question": "Who built it again?", "answer": "The miller."},
    ]
    with Server(lambda _: f"Here they are:\n```json\n{json.dumps(pairs)}\n```") as server:
        made = written(texts, server, store, "qa")
    first, second = made.corpus.rows.to_pylist()
    assert first["messages"] == [
        {"role": "user", "content": "When did the mill burn?"},
        {"role": "assistant", "content": "In 1911."},
    ]
    assert (first["format"], first["split"], first["text"]) == ("chat", "train", None)
    source = texts.rows.to_pylist()[0]
    assert set(places(first["lineage"])) == set(places(source["lineage"]))
    assert {one["message"] for one in second["lineage"]} == {0, 1}
    assert all(one["steps"][-1].startswith("synthesized: qa") for one in second["lineage"])
    assert first["id"] != second["id"]


def test_a_dialogue_is_in_the_role_that_was_asked_for(texts, store):
    lines = [
        {"role": "user", "content": "What about the mill?"},
        {"role": "assistant", "content": "What would you have done in its place?"},
    ]
    with Server(lambda _: json.dumps(lines)) as server:
        made = written(texts, server, store, "dialogue", role="a stern judge")
        assert "The assistant is a stern judge" in server.prompts()[0][0]["content"]
    assert made.corpus.rows.to_pylist()[0]["messages"] == lines
    assert made.corpus.report.syntheses[-1].settings["role"] == "a stern judge"


SCENE = {
    "nodes": [
        {"id": "fire", "kind": "event"},
        {"id": "mill", "kind": "thing", "name": "the mill on the river"},
    ],
    "relations": [{"source": "mill", "type": "undergoes", "target": "fire"}],
    "field": {"emotion": {"grief": 0.7}, "rhythm": "slow", "tension": 0.5, "tone": "plain"},
}


def test_a_scene_is_written_in_the_notation_and_a_text_goes_both_ways(texts, store):
    with Server(lambda _: json.dumps(SCENE)) as server:
        made = written(texts, server, store, "scenes")
    there, back = made.corpus.rows.to_pylist()
    notation = there["messages"][1]["content"]
    assert read_graph(notation).nodes[1].name == "the mill on the river"
    assert back["messages"][0]["content"].endswith(notation)
    assert back["messages"][1]["content"] == texts.rows.to_pylist()[0]["text"]


@pytest.mark.parametrize("format", ["instruction", "qa", "raw", "markdown", "json", "scene"])
def test_rephrased_rows_keep_their_format(tmp_path, format):
    source = build_corpus(write_notes(tmp_path / "notes"), format=format, holdout=0)
    with Server(reworded) as server:
        made = written(source, server, tmp_path / "answers")
    for old, new in zip(source.rows.to_pylist(), made.corpus.rows.to_pylist(), strict=True):
        assert new["format"] == format
        was = parse(Rendered(old["messages"], old["text"]), format)
        now = parse(Rendered(new["messages"], new["text"]), format)
        for before, after in zip(was, now, strict=True):
            turned = before["content"].split()[:: -1 if before["role"] == "assistant" else 1]
            assert after["content"].split() == turned


def test_held_out_rows_stay_and_are_never_sent(tmp_path):
    source = build_corpus(write_many(tmp_path / "many", 12), holdout=0.3)
    held = [row for row in source.rows.to_pylist() if row["split"] == "holdout"]
    assert held
    with Server(reworded) as server:
        made = written(source, server, tmp_path / "answers")
        sent = json.dumps(server.prompts(), ensure_ascii=False)
    kept = [row for row in made.corpus.rows.to_pylist() if row["split"] == "holdout"]
    assert kept == held
    assert not any(row["messages"][1]["content"] in sent for row in held)
    assert made.corpus.report.held_out == len(held)


# Nothing disappears


def test_every_message_is_in_a_row_or_dropped_with_its_reason(corpus, store):
    with Server(reworded) as server:
        server.faults.extend([says("no"), says("no")])
        made = written(corpus, server, store, corrections=1, api=quick(server, parallel=1))
    inside, outside = all_places(made.corpus.rows), all_places(made.corpus.dropped)
    assert inside | outside == all_places(corpus.rows)
    assert not inside & outside
    record = made.corpus.dropped.to_pylist()[0]
    assert "no usable answer: it has 2 characters" in record["reason"]
    assert record["reason"].endswith("it began: no")
    report = made.corpus.report
    assert report.messages == report.messages_in_rows + report.dropped == 8
    assert sum(report.reasons.values()) == report.dropped


def test_a_conversation_is_kept_up_to_the_answer_that_failed(corpus, store):
    def fails_second(messages):
        return "no" if "Then we sat" in str(messages) else reworded(messages)

    with Server(fails_second) as server:
        made = written(corpus, server, store)
    lamp = next(r for r in made.corpus.rows.to_pylist() if "lamp.md" in str(r["lineage"]))
    assert len(lamp["messages"]) == 2
    dropped = made.corpus.dropped.to_pylist()
    assert [record["lineage"][0]["uid"] for record in dropped] == ["lamp1q", "lamp1a"]
    assert "answer at message 4" in dropped[0]["reason"]
    assert made.corpus.report.messages == 8


def test_rows_beyond_the_limit_are_dropped_as_such(corpus, store):
    with Server(reworded) as server:
        made = written(corpus, server, store, limit=1)
    assert made.corpus.report.reasons["synthesis: beyond the limit of rows to write from"] > 0
    assert made.corpus.report.messages == 8


def test_the_corpus_is_a_corpus(corpus, store, tmp_path):
    with Server(reworded) as server:
        made = written(corpus, server, store, rates=Rates(1.0, 2.0))
    made.corpus.save(tmp_path / "saved")
    again = Corpus.load(tmp_path / "saved")
    assert again.hash == made.corpus.hash
    assert again.report.syntheses[-1].source == corpus.hash
    page = (tmp_path / "saved" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Synthesis</h2>" in page


# Answers that cannot be used go back to the model


def corrected(server):
    """What the model was told about its first answer."""
    first, second = server.prompts()[:2]
    assert second[:-2] == first
    return second[-2]["content"], second[-1]["content"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("not JSON at all", "there is no JSON in it"),
        ('[{"question": "Who?", "answer": "The mi', "it is no JSON"),
        ('{"question": "Who?", "answer": "The miller."}', "list"),
        ('[{"question": "Who?"}]', "the key '0.answer' is missing"),
        ('[{"question": "Who?", "answer": " "}]', "0.answer: it is empty"),
        ('[{"question": "Who?", "answr": "The miller."}]', "unknown key 'answr'"),
        ('[{"question": "When?", "answer": "In 1912."}]', "the number 1912 does not stand"),
        ('[{"question": "When?", "answer": "' + "Мельница сгорела. " * 3 + '"}]', "language"),
        ('[{"question": "When?", "answer": "\\ud800"}]', "characters that are none"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_questions_that_do_not_fit_are_asked_for_again(texts, store, bad, told):
    good = json.dumps([{"question": "Who built it?", "answer": "The miller."}])
    with Server(lambda _: good) as server:
        server.faults.append(says(bad))
        made = written(texts, server, store, "qa")
        said, why = corrected(server)
    assert said == bad
    assert told in why
    assert made.corpus.rows.num_rows == 1
    assert made.all.requests == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s["nodes"][0].update(kind="evnt"), "node 'fire' has the unknown kind 'evnt'"),
        (lambda s: s["nodes"][1].update(colour="red"), "node 2 'mill': unknown key 'colour'"),
        (
            lambda s: s["nodes"].append({"id": "duck", "kind": "creature"}),
            "node 'duck' stands in no",
        ),
        (lambda s: s["relations"][0].update(target="flood"), "there is no node 'flood'"),
        (lambda s: s["relations"][0].pop("type"), "relation 1: the key 'type' is missing"),
        (lambda s: s.pop("field"), "the field is missing"),
        (lambda s: s["field"].update(tension=3), "field.tension"),
    ],
)
def test_the_node_at_fault_is_named_to_the_model(texts, store, change, told):
    bad = json.loads(json.dumps(SCENE))
    change(bad)
    with Server(lambda _: json.dumps(SCENE)) as server:
        server.faults.append(says(json.dumps(bad)))
        made = written(texts, server, store, "scenes")
        _, why = corrected(server)
    assert told in why
    assert made.failed == 0


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (TALKS["lamp"][0][1], "word for word"),
        ("In the hall hung a lamp, broken for years, and I mended it.", "the number 1987"),
        ("Sure, here it is:\nI mended the lamp in the hall, broken in 1987.", "words about itself"),
        ("Лампа в прихожей была сломана с 1987 года, и я её починил.", "not in the language"),
        ("I mended the lamp that broke in 1987. " * 9, "characters"),
        ("It broke in 1987, I say. It broke in 1987, I say.", "repeats itself"),
    ],
)
def test_a_rephrasing_keeps_what_is_said(lamp, store, bad, told):
    with Server(reworded) as server:
        server.faults.append(says(bad))
        made = written(lamp, server, store, api=quick(server, parallel=1))
        _, why = corrected(server)
    assert told in why
    assert made.failed == 0


def test_an_answer_about_something_else_is_not_used(texts, store):
    other = "Whatever somebody wants, football players always train twice every single Monday."
    with Server(
        lambda _: "The river's mill burned in 1911, and its miller built another."
    ) as server:
        server.faults.append(says(f"{other} And 1911."))
        made = written(texts, server, store)
        _, why = corrected(server)
    assert "does not speak of what the text says" in why
    assert made.failed == 0


def test_a_reasoning_models_thoughts_are_no_part_of_the_answer(corpus, store):
    def thinks(messages):
        return f"<think>\nWhat would 2043 say?\n</think>\n\n{reworded(messages)}"

    with Server(thinks) as server:
        made = written(corpus, server, store)
    assert made.failed == 0
    assert "think" not in json.dumps(made.corpus.rows.to_pylist())


def test_an_answer_that_was_cut_off_is_not_used(corpus, store):
    with Server(reworded) as server:
        server.faults.append(says("half of a", finish="length"))
        made = written(corpus, server, store, limit=1, api=quick(server, parallel=1))
        assert "cut off" in server.prompts()[1][-1]["content"]
    assert made.failed == 0


def test_a_model_that_never_fits_is_asked_a_bounded_number_of_times(texts, store):
    with (
        Server(lambda _: "[]") as server,
        pytest.raises(InputError, match="Not one answer could be used: no usable answer"),
    ):
        written(texts, server, store, "qa", corrections=2)
    assert len(server.seen) == 3


# Faults of the server


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503, Retry_After="0"),
        status(429),
        hang_up,
        reset,
        body(b"<html>gateway</html>"),
        body(b'{"choices": []}'),
        body(b'{"choices": [{"message": {"content": null}}]}'),
        body(b"[" * 100_000),
    ],
)
def test_a_passing_fault_is_tried_again(corpus, store, fault):
    with Server(reworded) as server:
        server.faults.extend([fault, fault])
        made = written(corpus, server, store)
        assert len(server.seen) == 4 + 2
    assert (made.failed, made.all.requests) == (0, 4)


def test_waits_grow_exponentially(corpus, store):
    with Server(reworded) as server:
        server.faults.extend([status(500)] * 4)
        api = quick(server, first_wait=0.1, parallel=1)
        written(corpus, server, store, limit=1, api=api)
        times = [each.at for each in server.seen[:5]]
    gaps = [after - before for before, after in pairwise(times)]
    for number, gap in enumerate(gaps):
        assert 0.05 * 2**number <= gap <= 0.1 * 2**number + 0.15


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_retry_after_holds_everybody_back(corpus, store, how):
    # A date has whole seconds: two from now are more than one away.
    value = "1" if how == "seconds" else formatdate(time.time() + 2, usegmt=True)
    with Server(reworded) as server:
        server.faults.append(status(429, Retry_After=value))
        made = written(corpus, server, store, api=quick(server, parallel=2))
        first, *later = [each.at for each in server.seen]
    # The one that was on its way already may have come at the same moment.
    assert sum(at - first < 0.9 for at in later) <= 1
    assert made.failed == 0


def test_a_server_that_asks_to_wait_for_hours_ends_the_run(corpus, store):
    with Server(reworded, always=status(429, Retry_After="7200")) as server:
        began = time.monotonic()
        with pytest.raises(InputError, match="asks to wait 7200 seconds"):
            written(corpus, server, store)
    assert time.monotonic() - began < 5


def test_a_server_that_dribbles_is_out_of_time(corpus, store):
    with Server(reworded) as server:
        server.faults.append(dribble(3))
        began = time.monotonic()
        made = written(corpus, server, store, limit=1, api=quick(server, timeout=0.4))
    assert time.monotonic() - began < 2.5
    assert made.failed == 0


def test_a_wrong_key_stops_the_run_at_once_and_is_not_shown(corpus, store, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-9876543210")
    with Server(reworded, key=KEY) as server:
        with pytest.raises(InputError) as caught:
            written(corpus, server, store, api=quick(server, parallel=1))
        assert len(server.seen) == 1
    said = str(caught.value)
    assert "401: the key is wrong or missing" in said
    assert "OPENAI_API_KEY" in said
    assert "sk-wrong" not in said
    assert "\n" not in said


def test_an_account_without_credit_stops_the_run_at_once(corpus, store):
    broke = status(429, error("You exceeded your current quota", "insufficient_quota"))
    with Server(reworded, always=broke) as server:
        with pytest.raises(InputError, match="no credit"):
            written(corpus, server, store, api=quick(server, parallel=1))
        assert len(server.seen) == 1


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_goes_nowhere(corpus, store, monkeypatch, code):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server(reworded) as other, Server(reworded, key=KEY) as server:
        server.always = status(code, Location=f"{other.url}/chat/completions")
        with pytest.raises(InputError, match="redirects to 127.0.0.1:.* the key stays here"):
            written(corpus, server, store, api=quick(server, parallel=1))
        assert (len(server.seen), len(other.seen)) == (1, 0)


def test_the_key_is_sent_and_never_stored(corpus, store, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)

    def tells(messages):
        return f"{reworded(messages)} {KEY}"

    with Server(tells, key=KEY) as server:
        api = quick(server, key_env="MY_KEY")
        made = written(corpus, server, store, api=api)
        assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    made.corpus.save(tmp_path / "saved")
    files = [store, *(tmp_path / "saved").iterdir()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in json.dumps(made.corpus.rows.to_pylist())
    assert KEY not in repr(api)


def test_a_key_goes_unencrypted_to_this_machine_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(InputError, match=r"to api\.example\.org unencrypted"):
        Api("http://api.example.org/v1", "writer")
    Api("https://api.example.org/v1", "writer")
    Api("http://localhost:1/v1", "writer")


def test_a_proxy_does_not_see_what_stays_on_this_machine(corpus, store, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server(reworded) as proxy, Server(reworded) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        written(corpus, server, store)
        assert (len(server.seen), len(proxy.seen)) == (4, 0)


@pytest.mark.parametrize("key", ["sk a", "ключ", "sk\nX-Evil: 1"])
def test_what_cannot_be_a_key_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY holds no key") as caught:
        Api("https://api.example.org/v1", "writer")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "api.example.org",
        "ftp://a/v1",
        "https://",
        "https://a:x/v1",
        "https://пример/v1",
        "https://me:secret@a/v1",
        "https://a/v1?key=secret",
        "https://a/v1/chat/completions",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match=r"address|none") as caught:
        Api(url, "writer")
    assert "secret" not in str(caught.value)


def test_nobody_there_is_said_at_once(corpus, store):
    with Server(reworded) as server:
        url = server.url
    with pytest.raises(InputError, match="cannot be reached"):
        synthesize(corpus, Api(url, "writer"), Settings("rephrase"), store)


def test_newer_models_names_are_learned(corpus, store):
    def picky(messages):
        raise AssertionError

    def choosy(handler, request):
        for name in ("max_tokens", "temperature"):
            if name in request:
                words = f"Unsupported parameter: '{name}'"
                document = error(words, "unsupported_parameter", name)
                handler.answer(400, json.dumps(document).encode())
                return
        assert request["max_completion_tokens"] == 2048
        document = completion(reworded(request["messages"]), request["messages"])
        handler.answer(200, json.dumps(document).encode())

    with Server(picky, always=choosy) as server:
        made = written(corpus, server, store, api=quick(server, parallel=1))
        assert len(server.seen) == 4 + 2
    assert made.failed == 0


def test_one_refused_text_costs_itself_alone(corpus, store):
    def refuses(handler, request):
        if "Чай" in str(request["messages"]):
            handler.answer(400, json.dumps(error("too long for us")).encode())
            return
        document = completion(reworded(request["messages"]), request["messages"])
        handler.answer(200, json.dumps(document).encode())

    with Server(None, always=refuses) as server:
        made = written(corpus, server, store)
    assert (made.failed, made.unanswered, made.corpus.rows.num_rows) == (1, 1, 2)
    reasons = {record["reason"] for record in made.corpus.dropped.to_pylist()}
    assert reasons == {
        "rephrase: answer at message 2, no answer: the server answered 400 (too long for us)"
    }


# Pace and cost


def test_requests_a_minute_are_held(corpus, store):
    with Server(reworded) as server:
        written(corpus, server, store, api=quick(server, requests_per_minute=300))
        times = sorted(each.at for each in server.seen)
    assert times[-1] - times[0] >= 3 * 0.2 - 0.05


def test_tokens_a_minute_are_held(corpus, store):
    with Server(reworded) as server:
        api = quick(server, tokens_per_minute=20_000, parallel=1)
        made = written(corpus, server, store, api=api)
        times = [each.at for each in server.seen]
    # The last request needs not wait for its own tokens.
    tokens = (made.all.prompt_tokens + made.all.answer_tokens) * 3 / 4
    assert times[-1] - times[0] >= 0.8 * tokens / 20_000 * 60


def test_requests_go_out_together(corpus, store):
    with Server(reworded, wait=0.2) as server:
        written(corpus, server, store, api=quick(server, parallel=3))
        assert server.most_at_once == 3


def test_cost_is_what_the_server_reported(corpus, store):
    with Server(reworded) as server:
        planned = plan(corpus, quick(server), Settings("rephrase", rates=Rates(1.0, 2.0)))
        assert not server.seen  # an estimate asks for nothing
        made = written(corpus, server, store, rates=Rates(1.0, 2.0))
        inside = sum(len(m["content"].split()) for p in server.prompts() for m in p)
    words = sum(len(a.split()) for pairs in TALKS.values() for _, a in pairs)
    assert (made.all.requests, made.all.prompt_tokens, made.all.answer_tokens) == (4, inside, words)
    assert made.corpus.report.syntheses[-1].price == pytest.approx((inside + 2 * words) / 1e6)
    assert planned.open.requests == 4
    assert 0.5 < planned.open.prompt_tokens / inside < 2.5
    assert 0.5 < planned.open.answer_tokens / words < 5


def test_tokens_that_were_not_reported_are_said_to_be_estimated(corpus, store):
    with Server(reworded) as server:
        server.faults.append(says("mended it I since in 1987 broken lamp the", usage=False))
        made = written(corpus, server, store, corrections=3, api=quick(server, parallel=1))
    assert made.all.estimated == 1
    assert "(tokens of 1 estimated)" in made.all.line(Rates())


# Going on


def test_a_run_that_broke_off_asks_only_for_what_is_missing(corpus, store):
    with Server(reworded) as whole:
        uninterrupted = written(corpus, whole, store.with_name("other"))
    with Server(reworded) as server:
        api = quick(server, tries=1, parallel=1)
        server.faults.extend([None, None])
        server.always = status(401)
        with pytest.raises(InputError, match="401"):
            written(corpus, server, store, api=api)
        answered = len(server.seen) - 1
        server.always = None
        planned = plan(corpus, api, Settings("rephrase"), store)
        made = written(corpus, server, store, api=api)
        assert Counter(map(str, server.prompts())).most_common(1)[0][1] <= 2
        assert len(server.seen) == 4 + 1
    assert (answered, planned.answered, planned.open.requests) == (2, 2, 2)
    assert (made.now.requests, made.all.requests) == (2, 4)
    assert made.corpus.hash == uninterrupted.corpus.hash


def test_corrections_are_not_asked_for_again_either(texts, store):
    good = json.dumps([{"question": "Who built it?", "answer": "The miller."}])
    with Server(lambda _: good) as server:
        server.faults.extend([says("no JSON"), status(401)])
        with pytest.raises(InputError):
            written(texts, server, store, "qa")
        made = written(texts, server, store, "qa")
    assert [len(prompt) for prompt in server.prompts()] == [1, 3, 3]
    assert (made.now.requests, made.all.requests) == (1, 2)


def test_a_server_that_goes_down_ends_the_run_and_fails_no_row(tmp_path, store):
    source = build_corpus(write_many(tmp_path / "many", 20), holdout=0)
    with Server(reworded) as server:
        api = quick(server, tries=2, parallel=2)
        server.faults.extend([None] * 6)
        server.always = status(502)
        with pytest.raises(InputError, match="5 requests in a row got no answer: .* 502"):
            written(source, server, store, api=api)
        server.always = None
        before = len(server.seen)
        made = written(source, server, store, api=api)
        assert len(server.seen) - before == 20 - 6
    assert made.failed == 0


def test_two_runs_do_not_pay_for_the_same(corpus, store):
    with Server(reworded, wait=1) as server:
        first = threading.Thread(target=written, args=(corpus, server, store))
        first.start()
        while not server.seen:
            time.sleep(0.01)
        with pytest.raises(InputError, match="Another run is writing"):
            written(corpus, server, store)
        first.join()
        assert len(server.seen) == 4


def test_a_file_that_is_no_store_is_left_alone(corpus, store):
    store.write_text("my diary\n" * 100)
    with Server(reworded) as server, pytest.raises(InputError, match="no file of answers"):
        written(corpus, server, store)
    assert store.read_text().startswith("my diary")
    assert not server.seen


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "rephase"}, "Did you mean 'rephrase'"),
        ({"task": "qa", "role": "a judge"}, "plays no role"),
        ({"task": "qa", "limit": 0}, "leaves nothing"),
        ({"task": "qa", "corrections": -1}, "below 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Settings(**settings)
    with pytest.raises(InputError, match="two parts"):
        Rates(1.0)


# A base of one's own


def test_a_local_base_writes_the_same_whatever_went_before(tiny_base):
    local = Local(tiny_base, temperature=1.0)
    one, two = ([{"role": "user", "content": text}] for text in ("One.", "Two."))
    alone = local.ask(one, 12, threading.Event())
    local.ask(two, 12, threading.Event())
    assert local.ask(one, 12, threading.Event()) == alone
    assert Local(tiny_base, temperature=1.0, seed=1).ask(one, 12, threading.Event()) != alone
    assert alone.cut == (alone.answer_tokens == 12)


def test_the_demo_base_behind_a_server_and_at_home_write_the_same(demo_base, tmp_path):
    """The protocol in between changes nothing: same words, same tokens, likelier than before."""
    folder = tmp_path / "notes"
    folder.mkdir()
    said = (
        "Plants need sunlight and water to grow. Without enough water the leaves turn yellow and "
        "the plant dies after a while."
    )
    note = NOTE.format(question="What do plants need?", answer=said, uid="p")
    (folder / "plants.md").write_text(note, encoding="utf-8")
    source = build_corpus(folder, holdout=0)
    local = Local(demo_base, temperature=0)
    settings = Settings("rephrase", most_tokens=48, corrections=0)
    at_home = synthesize(source, local, settings, tmp_path / "one")

    def generates(messages):
        prompt = demo_base.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = demo_base.model.generate(**prompt, max_new_tokens=48, do_sample=False)
        return demo_base.tokenizer.decode(
            made[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True
        )

    with Server(generates) as server:
        served = written(source, server, tmp_path / "two", most_tokens=48, corrections=0)
    home, away = (each.corpus.rows.to_pylist()[0] for each in (at_home, served))
    assert home["messages"] == away["messages"]
    new = home["messages"][1]["content"]
    assert new != said
    assert at_home.all.answer_tokens == len(demo_base.tokenizer(new)["input_ids"]) + 1
    old_loss, new_loss = (
        float(np.mean(score_losses(demo_base, row["messages"])))
        for row in (source.rows.to_pylist()[0], home)
    )
    assert new_loss < old_loss


def score_losses(base, messages):
    """-log p of the tokens of the last message, given those before; by a plain forward."""
    head = base.tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    tail = base.tokenizer(messages[-1]["content"], return_tensors="pt")["input_ids"]
    ids = torch.cat([head, tail], dim=1)
    with torch.no_grad():
        logits = base.model(ids).logits[0, head.shape[1] - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, tail[0], reduction="none").numpy()
