"""Telegram's result.json: who is learned, where conversations end, what a turn is."""

import json

import pytest

from loratelier.kit.errors import InputError
from tests.corpus.exports import build, dropped, rows, save, talk

HOUR = 3600


def message(id, who, text, at=0, **more):
    name, sender = who
    return {
        "id": id,
        "type": "message",
        "date_unixtime": str(1_700_000_000 + at),
        "from": name,
        "from_id": sender,
        "text": text,
        **more,
    }


ANNA, BORIS, CLARA = ("Анна", "user1"), ("Boris", "user2"), ("Clara", "user3")


def chat(*messages, type="personal_chat", id=1, name="Анна"):
    return {"name": name, "type": type, "id": id, "messages": list(messages)}


TALK = chat(
    message(1, ANNA, "Привет"),
    message(2, ANNA, "Ты где?", 20),
    message(3, BORIS, ["Дома, см. ", {"type": "link", "text": "example.org"}, "."], 60),
    message(4, BORIS, "А ты?", 70),
    message(5, ANNA, "Еду", 9 * HOUR),
    message(6, BORIS, "Жду", 9 * HOUR + 5),
)


def test_turns_are_joined_and_cut_at_long_silences(tmp_path):
    corpus = build(save(tmp_path, "result.json", TALK), speaker="boris")
    assert rows(corpus) == [
        [("user", "Привет\nТы где?"), ("assistant", "Дома, см. example.org.\nА ты?")],
        [("user", "Еду"), ("assistant", "Жду")],
    ]
    first = corpus.rows.to_pylist()[0]
    assert [(o["uid"], o["message"]) for o in first["lineage"]] == [
        ("1/1", 0),
        ("1/2", 0),
        ("1/3", 1),
        ("1/4", 1),
    ]
    assert first["lineage"][2]["item"] == "/messages/2"
    assert corpus.report.speaker == "boris"
    assert corpus.report.conversations == 2


def test_a_reply_across_the_silence_goes_on(tmp_path):
    messages = [*TALK["messages"]]
    messages[4] = messages[4] | {"reply_to_message_id": 4}
    corpus = build(save(tmp_path, "r.json", chat(*messages)), speaker="user2")
    assert len(rows(corpus)) == 1


def test_the_owner_is_the_person_when_the_person_is_learned(tmp_path):
    corpus = build(save(tmp_path, "r.json", TALK), learn="user")
    assert rows(corpus)[1] == [("user", "Еду"), ("assistant", "Жду")]


def test_nobody_named_is_said_and_a_name_that_nobody_bears_too(tmp_path):
    path = save(tmp_path, "r.json", TALK)
    with pytest.raises(InputError, match="--speaker"):
        build(path)
    with pytest.raises(InputError, match="called 'Boriss'.*'Boris'"):
        build(path, speaker="Boriss")
    save(tmp_path, "r.json", [talk("a", "Q", "A")])
    with pytest.raises(InputError, match="none is a chat between people"):
        build(path, speaker="Boris")


def test_a_full_export_and_a_group(tmp_path):
    group = chat(
        message(1, ANNA, "Кто за?"),
        message(2, CLARA, "I am", 5),
        message(3, BORIS, "И я", 9),
        {"id": 4, "type": "service", "action": "pin_message", "text": ""},
        message(5, BORIS, "Чужое", 12, forwarded_from="News"),
        message(6, ANNA, "", 15, photo="p.jpg"),
        type="private_supergroup",
        id=77,
        name="Группа",
    )
    data = {
        "about": "…",
        "personal_information": {"user_id": 2, "first_name": "Boris"},
        "contacts": {"list": [{"user_id": 1}]},
        "chats": {"about": "…", "list": [TALK, {"id": 5, "type": "saved_messages"}, group]},
        "left_chats": {"list": []},
    }
    path = save(tmp_path, "r.json", json.dumps(data, indent=1))
    corpus = build(path, learn="user")
    assert rows(corpus)[2] == [("user", "Анна: Кто за?\nClara: I am"), ("assistant", "И я")]
    assert dropped(corpus)["Чужое"] == "forwarded: somebody else's words: News"
    reasons = {e["reason"] for e in corpus.dropped.to_pylist()}
    assert {"a service message: pin_message", "no words: photo"} <= reasons
    assert corpus.rows.to_pylist()[2]["lineage"][0]["uid"] == "77/1"
    assert corpus.rows.to_pylist()[2]["lineage"][0]["item"] == "/chats/list/2/messages/0"


def test_a_later_export_of_the_same_chat_is_the_same_conversations(tmp_path):
    save(tmp_path, "1.json", chat(*TALK["messages"][:4]))
    save(tmp_path, "2.json", TALK)
    corpus = build(tmp_path, speaker="Boris")
    assert corpus.report.conversations == 2
    assert corpus.report.messages == 10


def test_a_broken_message_and_a_truncated_file_cost_no_more_than_themselves(tmp_path):
    text = json.dumps(TALK, ensure_ascii=False, indent=1)
    corpus = build(save(tmp_path, "r.json", text.replace('"Ты где?"', "Ты где?")), speaker="Boris")
    assert rows(corpus)[0][0] == ("user", "Привет")
    assert corpus.report.files[0].broken[0].item == "/messages/1"
    corpus = build(save(tmp_path, "t.json", text[: text.index("Жду")]), speaker="Boris")
    assert len(rows(corpus)) == 1
    assert any("ends" in each.reason for each in corpus.report.files[0].broken)
