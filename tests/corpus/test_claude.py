"""Claude exports: blocks, attachments, retries and branches."""

from tests.corpus.exports import build, candidates, dropped, rows, save


def message(uuid, sender, *blocks, text="", parent=None, **more):
    content = [b if isinstance(b, dict) else {"type": "text", "text": b} for b in blocks]
    each = {"uuid": uuid, "sender": sender, "text": text, "content": content, **more}
    return each | ({"parent_message_uuid": parent} if parent else {})


def export(*messages, **more):
    return [{"uuid": "c", "name": "Имя", "created_at": "", "chat_messages": list(messages), **more}]


def test_text_blocks_are_learned_and_others_set_apart(tmp_path):
    data = export(
        message(
            "u",
            "human",
            "Прочти файл",
            attachments=[{"file_name": "a.txt", "extracted_content": "Содержимое"}],
        ),
        message(
            "a",
            "assistant",
            {"type": "thinking", "thinking": "Думаю"},
            "Сначала поищу.",
            {"type": "tool_use", "name": "search", "input": {"q": 1}},
            {"type": "tool_result", "content": "found"},
            "Прочёл.",
            text="Прочёл.\n```This block is not supported```",
        ),
    )
    corpus = build(save(tmp_path, "x.json", data))
    assert rows(corpus) == [[("user", "Прочти файл"), ("assistant", "Сначала поищу.\n\nПрочёл.")]]
    (row,) = corpus.rows.to_pylist()
    assert row["conversation"] == "c"
    assert [(o["uid"], o["item"]) for o in row["lineage"]] == [
        ("u", "/0/chat_messages/0"),
        ("a", "/0/chat_messages/1"),
    ]
    assert dropped(corpus, "attachment") == {"Содержимое": "attachment: a.txt"}
    assert dropped(corpus, "thinking") == {"Думаю": "thinking"}
    assert set(dropped(corpus, "tool")) == {"{'q': 1}", "found"}
    assert corpus.report.files[0].kind == "Claude export"


def test_old_exports_have_text_alone_and_retries_follow_one_another(tmp_path):
    data = export(
        {"uuid": "u", "sender": "human", "text": "Ask"},
        {"uuid": "a", "sender": "assistant", "text": "One"},
        {"uuid": "b", "sender": "assistant", "text": "Two"},
        {"uuid": "x", "sender": "robot", "text": "Beep"},
        5,
    )
    corpus = build(save(tmp_path, "x.json", data))
    assert rows(corpus) == [[("user", "Ask"), ("assistant", "Two")]]
    assert candidates(corpus) == [("regenerated", ["Ask"], "Two", ["One"])]
    assert dropped(corpus)["Beep"] == "an unknown role: robot"


def test_parents_tell_the_branch_that_was_gone_on_with(tmp_path):
    data = export(
        message("u", "human", "Ask", parent="root"),
        message("a", "assistant", "Kept", parent="u"),
        message("b", "assistant", "Left", parent="u"),
        message("u2", "human", "More", parent="a"),
        message("ux", "human", "To the other", parent="b"),
        message("a2", "assistant", "End", parent="u2"),
    )
    corpus = build(save(tmp_path, "x.json", data))
    assert [content for _, content in rows(corpus)[0]] == ["Ask", "Kept", "More", "End"]
    assert candidates(corpus) == [("regenerated", ["Ask"], "Kept", ["Left"])]
    assert dropped(corpus)["To the other"] == "on a branch that the conversation did not go on with"
