"""The same conversation in every format: each reads back to what it was, whatever was said."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loratelier.corpus import build_corpus
from loratelier.corpus.formats import FORMATS, Rendered, parse, render
from loratelier.kit.errors import InputError
from tests.corpus.test_build import note, write
from tests.corpus.test_seeds import SEEDS

TALK = [
    {"role": "user", "content": "Что такое покой?"},
    {"role": "assistant", "content": "Работа, обращённая внутрь. \n\n# Не сон\n- и не лень"},
]

# Pieces that some format uses as its own markup, or that some reader of it trips over.
HOSTILE = (
    *("User:", "\\User:", "\\\\User:", "# User", "\\# Ассистент", "Ассистент:", "System: x"),
    *("### Response", "### Instruction", "### Ответ", "Answer:", "Вопрос: ", "Question: "),
    *("```", "~~~", "---", "...", "| x", "|", "= text", "~ ", "m1: utterance", "user -says-> m1"),
    *("- a: b", "key: value", "#c", "%YAML 1.2", "! &a *a", "{", "}", "[", "]", '"q"', "'", "\\"),
    *("  lead", "trail  ", "\t", "\t tab", "", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b"),
    *("\x0c", "\x00", "\x1b", "\x1c", "\ufeff", "\ufffe", "\xa0", "😀", "е\u0301", "null", "~"),
    *("yes", "4", "<|im_end|>", "&amp;", "</s>", "messages:", '{"messages": []}'),
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
contents = st.one_of(
    st.lists(st.one_of(st.sampled_from(HOSTILE), words), max_size=6).map("\n".join),
    st.lists(st.sampled_from(HOSTILE), max_size=5).map("".join),
    st.text("\n \t", max_size=5),
)
talks = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant", "system", "tool"]),
        contents,
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("format", FORMATS)
@given(talks)
@settings(max_examples=200, deadline=None)
def test_whatever_was_said_can_be_read_back(format, talk):
    rendered = render(talk, format)
    assert parse(rendered, format) == talk
    assert (rendered.messages is None) != (rendered.text is None)


@pytest.mark.parametrize("format", FORMATS)
def test_two_conversations_are_never_written_alike(format):
    one = [{"role": "user", "content": "a\n\nAssistant:\nb"}]
    other = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert render(one, format) != render(other, format)


def test_what_is_learned_stays_word_for_word():
    # The trainer learns the assistant's messages: no format may put marks into them.
    for format in ("chat", "instruction", "qa"):
        assert render(TALK, format).messages[1] == TALK[1]


def test_each_format_by_hand():
    assert render(TALK, "instruction").messages[0]["content"] == (
        "### Задание\n\nЧто такое покой?\n\n### Ответ"
    )
    assert render(TALK, "qa").messages[0]["content"] == "Вопрос: Что такое покой?\n\nОтвет:"
    assert render(TALK, "raw").text == (
        "Человек:\nЧто такое покой?\n\n"
        "Ассистент:\nРабота, обращённая внутрь. \n\n# Не сон\n- и не лень"
    )
    assert render(TALK, "markdown").text == (
        "# Человек\n\nЧто такое покой?\n\n"
        "# Ассистент\n\nРабота, обращённая внутрь. \n\n# Не сон\n- и не лень"
    )
    assert render(TALK, "yaml").text == (
        "messages:\n"
        "  - role: user\n    content: |-\n      Что такое покой?\n"
        "  - role: assistant\n    content: |-\n"
        "      Работа, обращённая внутрь. \n\n      # Не сон\n      - и не лень\n"
    )
    assert render(TALK, "scene").text == (
        "user: person\nassistant: person\n"
        'm1: utterance "Что такое покой?"\n'
        "m2: utterance\n| Работа, обращённая внутрь. \n| \n| # Не сон\n| - и не лень\n"
        "user -says-> m1\nassistant -says-> m2\nm2 -answer-> m1"
    )


def test_english_labels_stand_in_english_talk():
    talk = [{"role": "user", "content": "What is rest?"}, {"role": "assistant", "content": "Work."}]
    assert render(talk, "raw").text == "User:\nWhat is rest?\n\nAssistant:\nWork."


def test_a_page_stands_without_a_speaker():
    page = [{"role": "assistant", "content": "# Chapter one\n\nUser:\nwrote the machine."}]
    assert render(page, "markdown").text == page[0]["content"]
    assert render(page, "raw").text == "# Chapter one\n\n\\User:\nwrote the machine."


@given(talks)
@settings(max_examples=60, deadline=None)
def test_json_and_yaml_are_what_other_readers_read(talk):
    assert json.loads(render(talk, "json").text) == {"messages": talk}
    assert yaml.safe_load(render(talk, "yaml").text) == {"messages": talk}


@pytest.mark.parametrize(
    ("format", "text", "said"),
    [
        ("json", "{", "no JSON"),
        ("json", '{"messages": [{"role": "user"}]}', "Message 1"),
        ("yaml", "a: [", "no YAML"),
        ("yaml", "messages: []", "no list 'messages'"),
        ("scene", "rain: event\nno line of a scene", "Line 2 .* 'no line of a scene'"),
        ("scene", "rain: event", "no conversation"),
    ],
)
def test_another_text_is_refused(format, text, said):
    with pytest.raises(InputError, match=said):
        parse(Rendered(text=text), format)
    with pytest.raises(InputError, match="has a text, this one has none"):
        parse(Rendered(messages=[]), format)


def test_bad_calls_name_themselves():
    with pytest.raises(InputError, match="'markdwn' is unknown.*'markdown'"):
        render(TALK, "markdwn")
    with pytest.raises(InputError, match="Message 1 has the unknown role 'usr'"):
        render([{"role": "usr", "content": ""}], "chat")
    with pytest.raises(InputError, match="without messages"):
        render([], "raw")
    with pytest.raises(InputError, match="does not begin with"):
        parse(Rendered(messages=TALK), "qa")


@pytest.mark.parametrize("format", FORMATS)
def test_a_build_holds_the_same_content_in_every_format(tmp_path, format):
    turns = (("user", "Ask:\n- a", "u1"), ("agent", "Answer", "a1"))
    turns += (("user", "More", "u2"), ("agent", "Yes ", "a2"))
    corpus = build_corpus(write(tmp_path, one=note(*turns)), format=format)
    (row,) = corpus.rows.to_pylist()
    assert row["format"] == corpus.report.format == format
    assert parse(Rendered(row["messages"], row["text"]), format) == [
        {"role": role, "content": content}
        for role, content in (
            ("user", "Ask:\n- a"),
            ("assistant", "Answer"),
            ("user", "More"),
            ("assistant", "Yes "),
        )
    ]
    assert [origin["uid"] for origin in row["lineage"]] == ["u1", "a1", "u2", "a2"]
    again = corpus.load(corpus.save(tmp_path / "rows"))
    assert again.rows.equals(corpus.rows)


@pytest.mark.skipif(not SEEDS.exists(), reason="the seeds are not beside the repository")
def test_the_persons_notes_in_every_format_are_the_same_rows():
    # Built once: mending is slow, writing is not.
    for row in build_corpus(SEEDS).rows.to_pylist():
        for format in FORMATS:
            rendered = render(row["messages"], format)
            assert parse(rendered, format) == row["messages"]
            # Lines with spaces at their ends stay blocks, not one quoted line.
            assert format != "yaml" or 'content: "' not in rendered.text
