"""Notes cut into messages: every known form, and what is easily taken for one."""

from loratelier.corpus.clean import clean
from loratelier.corpus.nexus import parse

TWO = """---
nexus: nexus-ai-chat-importer
conversation_id: abc-1
aliases: "A title"
---

# A title

>[!nexus_user] **User** - 01.02.2025 at 10:00
> What is rest?
> Second line
<!-- UID: u1 -->




>[!nexus_agent] **Assistant · gpt-4o** - 01.02.2025 at 10:01
> Rest is
>
> > a quote
>>[no space
> ---
<!-- UID: u2 -->

---
"""


def test_the_form_that_the_plugin_writes():
    note = parse(TWO)
    assert [(m.role, m.uid, m.text) for m in note.messages] == [
        ("user", "u1", "What is rest?\nSecond line"),
        ("assistant", "u2", "Rest is\n\n> a quote\n>[no space\n---"),
    ]
    assert note.meta["conversation_id"] == "abc-1"
    assert note.title == "A title"
    assert note.commentary == ()
    assert note.messages[0].time == "01.02.2025 at 10:00"


def test_spans_are_the_raw_quoted_lines():
    for text in (TWO, TWO.replace("\n", "\r\n")):
        first, second = parse(text).messages
        raw = text[first.start : first.end].replace("\r", "")
        assert raw == (
            ">[!nexus_user] **User** - 01.02.2025 at 10:00\n> What is rest?\n> Second line"
        )
        assert text[second.start : second.end].endswith("> ---")


def test_windows_line_ends_give_the_same_messages():
    plain = [m.text for m in parse(TWO).messages]
    assert [m.text for m in parse(TWO.replace("\n", "\r\n")).messages] == plain


def test_the_name_on_the_next_line():
    text = (
        "> [!nexus_user]\n> **User** - 1 at 2\n> Hi\n<!-- UID: a -->\n\n> [!nexus_agent]\n> Yes\n"
    )
    note = parse(text)
    assert [(m.role, m.uid, m.text) for m in note.messages] == [
        ("user", "a", "Hi"),
        ("assistant", "", "Yes"),
    ]


def test_the_headings_of_version_1_1():
    text = (
        "### User, on 01/02/2024 at 10:00;\n> Hi\n<!-- UID: a -->\n\n"
        "#### Assistant, on 01/02/2024 at 10:01;\n> Yes\n<!-- UID: b -->\n---\n"
        "### User, on 01/02/2024 at 10:02;\nunquoted\n\nwords\n<!-- UID: c -->\n"
    )
    note = parse(text)
    assert [(m.role, m.uid, m.text) for m in note.messages] == [
        ("user", "a", "Hi"),
        ("assistant", "b", "Yes"),
        ("user", "c", "unquoted\n\nwords"),
    ]
    assert note.commentary == ()


def test_a_message_that_quotes_the_format_is_one_message():
    text = ">[!nexus_user] **User** - t\n> Look:\n> [!nexus_agent] is a callout\n<!-- UID: a -->\n"
    (message,) = parse(text).messages
    assert message.text == "Look:\n[!nexus_agent] is a callout"


def test_nested_callouts_are_set_apart():
    text = (
        ">[!nexus_user] **User** - t\n> Before\n>>[!nexus_attachment] **cat.png** (image)\n"
        ">> ![[cat.png]]\n> After\n<!-- UID: a -->\n"
    )
    (message,) = parse(text).messages
    assert message.text == "Before\nAfter"
    (nested,) = message.nested
    assert nested.kind == "attachment"
    assert "cat.png" in nested.text
    assert text[nested.start : nested.end].startswith(">>[!nexus_attachment]")


def test_an_answer_that_a_bare_blank_line_cut_in_two_stays_whole():
    text = ">[!nexus_agent] **Assistant** - t\n> One\n\n> Two\n<!-- UID: a -->\n"
    (message,) = parse(text).messages
    assert message.text == "One\n\nTwo"
    assert message.uid == "a"


def test_a_quote_of_the_reader_after_a_message_is_commentary():
    text = ">[!nexus_agent] **Assistant** - t\n> One\n<!-- UID: a -->\n\n> My remark\n\n%%note%%\n"
    note = parse(text)
    assert [m.text for m in note.messages] == ["One"]
    (piece,) = note.commentary
    assert piece.text == "> My remark\n\n%%note%%" == text[piece.start : piece.end]


def test_trailing_spaces_inside_a_turn_stay():
    (message,) = parse(">[!nexus_user] **User** - t\n>\n> a  \n>   b\n> \n").messages
    assert message.text == "a  \n  b"


def test_an_empty_text_has_no_messages():
    assert parse("").messages == ()
    assert parse("---\nx: 1\n").messages == ()


def test_citations_and_links_go_but_code_stays():
    text = (
        "See 【69†L325-L333】【62†L1-L4】. "
        "And [[note|the note]], [[plain]], [[n#part]] ![[pic.png]]\n"
        "`[[code]]` and [[1, 2]]\n```\n[[kept]] 【1†L1-L2】\n```\n[[after]]"
    )
    cleaned = clean(text)
    assert cleaned.text == (
        "See. And the note, plain, n > part \n"
        "`[[code]]` and [[1, 2]]\n```\n[[kept]] 【1†L1-L2】\n```\nafter"
    )
    assert set(cleaned.steps) == {
        "citations removed: 2",
        "wikilinks replaced: 4",
        "embeds removed: 1",
    }


def test_version_1_1_quotes_its_answers_twice():
    text = (
        "# Title: The way back\n\nCreated: 03/02/2024 at 10:15:00\n"
        "Last Updated: 03/02/2024 at 10:18:45\n\n\n"
        "### User, on 03/02/2024 at 10:15:00;\n> Why is the way back shorter?\n"
        "<!-- UID: u1 -->\n\n\n"
        "#### ChatGPT, on 03/02/2024 at 10:15:20;\n>> It is not the same way.\n>>\n>> > quoted\n"
        "<!-- UID: a1 -->\n"
    )
    note = parse(text)
    assert [(m.role, m.uid, m.text) for m in note.messages] == [
        ("user", "u1", "Why is the way back shorter?"),
        ("assistant", "a1", "It is not the same way.\n\n> quoted"),
    ]
    assert note.commentary == ()
    assert note.title == "Title: The way back"
