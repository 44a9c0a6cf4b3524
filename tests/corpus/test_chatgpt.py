"""ChatGPT exports: the thread that was gone on with, what hangs beside it, and broken items."""

import json

import pytest

from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from tests.corpus.exports import (
    archive,
    build,
    candidates,
    dropped,
    node,
    rows,
    save,
    talk,
    tree,
)

BRANCHED = tree(
    node("r", None, None, ""),
    node("s", "r", "system", ""),
    node("u1", "s", "user", "Что такое адаптер?"),
    node("a1", "u1", "assistant", "Первый ответ."),
    node("a2", "u1", "assistant", "Второй ответ."),
    node("u2", "a2", "user", "А короче?"),
    node("u2x", "a2", "user", "А длиннее?"),
    node("ax", "u2x", "assistant", "Ответ на другой вопрос."),
    node("a3", "u2", "assistant", "Надстройка."),
    node("b1", "a1", "user", "Спасибо"),
    current="a3",
)


def test_the_thread_is_walked_up_from_the_current_node(tmp_path):
    corpus = build(save(tmp_path, "whatever.bin", [BRANCHED]))
    assert rows(corpus) == [
        [
            ("user", "Что такое адаптер?"),
            ("assistant", "Второй ответ."),
            ("user", "А короче?"),
            ("assistant", "Надстройка."),
        ]
    ]
    (row,) = corpus.rows.to_pylist()
    assert row["conversation"] == "c1"
    assert [o["uid"] for o in row["lineage"]] == ["m-u1", "m-a2", "m-u2", "m-a3"]
    assert [o["item"] for o in row["lineage"]][:2] == ["/0/mapping/u1", "/0/mapping/a2"]
    assert row["lineage"][0]["start"] is None
    (note,) = corpus.report.files
    assert (note.kind, note.title, note.conversations) == ("ChatGPT export", "Title", 1)


def test_regenerated_answers_become_candidates_and_are_not_lost(tmp_path):
    corpus = build(save(tmp_path, "c.json", [BRANCHED]))
    assert candidates(corpus) == [
        ("regenerated", ["Что такое адаптер?"], "Второй ответ.", ["Первый ответ."])
    ]
    (found,) = corpus.candidates.to_pylist()
    assert found["lineage"][0]["uid"] == "m-a2"
    assert found["others_lineage"][0][0]["uid"] == "m-a1"
    assert dropped(corpus) == {
        "": "a system message of the export",
        "Первый ответ.": "another answer to the same turn; the one gone on with is kept",
        "А длиннее?": "another wording of the same turn; the one gone on with is kept",
        "Ответ на другой вопрос.": "on a branch that the conversation did not go on with",
        "Спасибо": "on a branch that the conversation did not go on with",
    }
    assert corpus.report.candidates == 1
    loaded = Corpus.load(corpus.save(tmp_path / "out"))
    assert loaded.candidates.equals(corpus.candidates)
    assert loaded.hash == corpus.hash
    (tmp_path / "out" / "candidates.parquet").unlink()
    with pytest.raises(InputError, match="do not match"):
        Corpus.load(tmp_path / "out")


def test_the_persons_edits_are_candidates_when_the_person_is_learned(tmp_path):
    corpus = build(save(tmp_path, "c.json", [BRANCHED]), learn="user")
    assert rows(corpus)[0][-1] == ("assistant", "А короче?")
    assert candidates(corpus) == [
        ("reworded", ["Что такое адаптер?", "Второй ответ."], "А короче?", ["А длиннее?"])
    ]


def test_tools_and_hidden_messages_are_listed_with_their_reasons(tmp_path):
    hidden = {"is_visually_hidden_from_conversation": True}
    thread = tree(
        node("r", None, None, ""),
        node("i", "r", "user", "My name is Ann", metadata=hidden),
        node("u", "i", "user", "How warm is it?"),
        node("e", "u", "assistant", ""),
        node("t", "e", "assistant", "I look it up.", when=2),
        node("c", "t", "assistant", "get(1)", kind="code", recipient="weather"),
        node("o", "c", "tool", "15", name="weather"),
        node("h", "o", "assistant", "Thinking", kind="thoughts"),
        node("a", "h", "assistant", "Fifteen."),
        current="a",
    )
    corpus = build(save(tmp_path, "c.json", [thread]))
    assert rows(corpus) == [
        [("user", "How warm is it?"), ("assistant", "I look it up.\n\nFifteen.")]
    ]
    (row,) = corpus.rows.to_pylist()
    assert [(o["uid"], o["message"]) for o in row["lineage"]] == [
        ("m-u", 0),
        ("m-t", 1),
        ("m-a", 1),
    ]
    assert dropped(corpus) == {
        "My name is Ann": "hidden in the dialogue",
        "": "no content",
        "get(1)": "a call of a tool: weather",
        "15": "a tool's message: weather",
        "Thinking": "the model's reasoning",
    }


def test_an_answer_to_a_picture_alone_does_not_join_the_answer_before(tmp_path):
    picture = {
        "content_type": "multimodal_text",
        "parts": [{"content_type": "image_asset_pointer"}],
    }
    thread = tree(
        node("r", None, None, ""),
        node("u", "r", "user", "Ask"),
        node("a", "u", "assistant", "Answer"),
        node("p", "a", "user", "", content=picture),
        node("b", "p", "assistant", "A cat."),
        current="b",
    )
    corpus = build(save(tmp_path, "c.json", [thread]))
    assert rows(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    assert dropped(corpus)["A cat."] == "its question was left out"
    assert corpus.report.nested == 1


def test_regeneration_after_a_tool_shares_what_was_said_before(tmp_path):
    thread = tree(
        node("r", None, None, ""),
        node("u", "r", "user", "Ask"),
        node("a", "u", "assistant", "Let me see."),
        node("b", "a", "assistant", "Yes."),
        node("c", "a", "assistant", "No."),
        current="c",
    )
    corpus = build(save(tmp_path, "c.json", [thread]))
    assert candidates(corpus) == [
        ("regenerated", ["Ask"], "Let me see.\n\nNo.", ["Let me see.\n\nYes."])
    ]


def test_split_exports_and_exports_in_their_zip(tmp_path):
    first, second = [talk("a", "Один?", "Раз.")], [talk("b", "Два?", "Пара.")]
    save(tmp_path, "conversations-000.json", first)
    save(tmp_path, "conversations-001.json", second)
    assert len(rows(build(tmp_path))) == 2
    packed = archive(
        tmp_path / "export.zip",
        conversations__json=json.dumps(first + second),
        chat__html="<html><body><script>var jsonData = [1]</script></body></html>",
        user__json='{"id": "user-1"}',
        cat__png=b"\x89PNG\r\n\x1a\n\0\0",
    )
    corpus = build(packed)
    assert len(rows(corpus)) == 2
    assert corpus.rows.to_pylist()[0]["lineage"][0]["file"] == "export.zip/conversations.json"
    assert {each.file: each.state for each in corpus.report.files} == {
        "export.zip/conversations.json": "read",
        "export.zip/chat.html": "the export's page for reading: conversations.json holds the same",
        "export.zip/user.json": "structured data of no known kind (keys: id)",
        "export.zip/cat.png": "a picture (PNG)",
    }
    both = build(tmp_path)
    assert (both.report.conversations, both.report.rows) == (2, 2)


def test_the_export_is_kept_before_a_note_of_the_same_conversation(tmp_path):
    spoiled = (
        ">[!nexus_user] **User** - t\n> def f(links):\n<!-- UID: m-a-0 -->\n\n"
        ">[!nexus_agent] **Assistant** - t\n> def f():\n<!-- UID: m-a-1 -->\n"
    )
    save(tmp_path, "a-note.md", spoiled)
    save(tmp_path, "export.json", [talk("a", "def f(links):", "def f(links):")])
    corpus = build(tmp_path)
    assert rows(corpus) == [[("user", "def f(links):"), ("assistant", "def f(links):")]]
    assert corpus.report.same[0].kept == "export.json"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"title": "B"', '"title": "B'),  # a string without its end
        lambda text: text.replace('"title": "B"', '"title": B'),
        lambda text: text.replace('{"title": "B"', '{{"title": "B"'),
        lambda text: text.replace('"title": "B", "create_time": 1.0,', '"title": "B", }}, ]'),
        lambda text: text.replace('"mapping": {"b-r"', '"mapping": {"b-r'),
    ],
)
def test_a_broken_item_is_named_and_the_rest_imported(tmp_path, spoil):
    talks = [talk(key, f"Вопрос {key}?", f"Ответ {key}.") for key in "abcd"]
    talks[1]["title"] = "B"
    whole = json.dumps(talks)
    spoiled = spoil(whole)
    assert spoiled != whole
    corpus = build(save(tmp_path, "c.json", spoiled))
    assert [row[1][1] for row in rows(corpus)] == ["Ответ a.", "Ответ c.", "Ответ d."]
    (note,) = corpus.report.files
    assert note.broken[0].item == "/1"
    assert note.broken_items >= 1
    items = [each for each in corpus.dropped.to_pylist() if each["kind"] == "item"]
    assert items[0]["reason"].startswith("a broken item: ")
    assert items[0]["lineage"][0]["item"] == "/1"
    assert items[0]["text"].startswith("{")


def test_a_truncated_export_gives_what_is_whole(tmp_path):
    text = json.dumps([talk(key, f"Q {key}", f"A {key}") for key in "abc"])
    corpus = build(save(tmp_path, "c.json", text[: len(text) - 200]))
    assert len(rows(corpus)) == 2
    assert "the file ends inside" in corpus.report.files[0].broken[0].reason


def test_odd_trees_do_no_harm(tmp_path):
    circle = tree(
        node("x", "y", "user", "Circle?"),
        node("y", "x", "assistant", "Circle."),
        current="y",
        id="x",
    )
    lost = talk("lost", "Whose?", "Nobody's.")
    lost["current_node"] = "gone"
    odd = talk("odd", "Ask", "Answer")
    odd["mapping"] |= {"n": None, "s": "text", "k": {"message": {"author": 5, "content": [1]}}}
    odd["mapping"]["odd-1"]["message"]["create_time"] = 10**400
    half = talk("half", "Ask \ud83d", "Fine.")
    items = [circle, lost, odd, {"mapping": 4, "title": ""}, 7, None, half]
    corpus = build(save(tmp_path, "c.json", json.dumps(items)))
    answers = [row[1][1] for row in rows(corpus)]
    assert answers == ["Circle.", "Nobody's.", "Answer"]
    assert [each.item for each in corpus.report.files[0].broken] == ["/3", "/4", "/5"]
    assert "lossy repair: 1 characters lost" in dropped(corpus).values()


def test_other_unicode_forms_and_bad_bytes(tmp_path):
    text = json.dumps([talk("a", "Вопрос?", "Ответ.")], ensure_ascii=False)
    for number, encoding in enumerate(("utf-8-sig", "utf-16", "utf-32")):
        corpus = build(save(tmp_path, f"{number}.json", text.encode(encoding)))
        assert rows(corpus) == [[("user", "Вопрос?"), ("assistant", "Ответ.")]]
    talks = [talk("a", "Вопрос?", "Ответ XX."), talk("b", "Ещё?", "Целый.")]
    data = json.dumps(talks, ensure_ascii=False).encode().replace(b"XX", b"\xd0")
    corpus = build(save(tmp_path, "bad.json", data))
    assert rows(corpus) == [[("user", "Ещё?"), ("assistant", "Целый.")]]
    assert corpus.report.lossy == 1
