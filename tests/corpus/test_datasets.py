"""Training sets: ShareGPT, Alpaca, OpenAI messages, TRL; as an array, as lines, as Parquet."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loratelier.kit.errors import InputError
from tests.corpus.exports import build, candidates, dropped, rows, save

PAIR = [("user", "Сколько будет 2+2?"), ("assistant", "Четыре.")]
Q, A = PAIR[0][1], PAIR[1][1]
OPENAI = [{"role": role, "content": content} for role, content in PAIR]
SYSTEM = ("system", "Be brief.")

FORMS = {
    "sharegpt": {"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]},
    "alpaca": {"instruction": Q, "input": "", "output": A},
    "openai": {"messages": OPENAI},
    "completion": {"prompt": Q, "completion": A},
    "messages completion": {"prompt": OPENAI[:1], "completion": OPENAI[1:]},
    "kto": {"prompt": Q, "completion": A, "label": True},
    "preference": {"prompt": Q, "chosen": A, "rejected": "Five."},
    "preference in messages": {
        "prompt": OPENAI[:1],
        "chosen": OPENAI[1:],
        "rejected": [{"role": "assistant", "content": "Five."}],
    },
    "implicit preference": {
        "chosen": OPENAI,
        "rejected": [OPENAI[0], {"role": "assistant", "content": "Five."}],
    },
    "prompt twice": {
        "prompt": Q,
        "chosen": OPENAI,
        "rejected": [OPENAI[0], {"role": "assistant", "content": "Five."}],
    },
}


def as_array(folder, items):
    return save(folder, "a", json.dumps(items, indent=2))


def as_lines(folder, items):
    return save(folder, "b", "\n".join(json.dumps(item) for item in items) + "\n\n")


def as_table(folder, items):
    pq.write_table(pa.Table.from_pylist(items), folder / "c")
    return folder / "c"


def as_values(folder, items):
    return save(folder, "d", "\n".join(json.dumps(item, indent=1) for item in items))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("write", [as_array, as_lines, as_table, as_values])
def test_every_form_in_every_file_gives_the_same_row(tmp_path, form, write):
    corpus = build(write(tmp_path, [FORMS[form]]))
    assert rows(corpus) == [PAIR]
    assert all(o["item"].startswith("/0/") for o in corpus.rows.to_pylist()[0]["lineage"])
    if "preference" in form or form == "prompt twice":
        assert candidates(corpus) == [("labelled", [Q], A, ["Five."])]
        assert dropped(corpus) == {"Five.": "labelled as the worse answer"}
    else:
        assert not dropped(corpus)


def test_system_prompts_are_kept_for_the_assistant_only(tmp_path):
    items = [
        {"messages": [{"role": "system", "content": SYSTEM[1]}, *OPENAI]},
        {"instruction": "Переведи", "input": "кот", "output": "cat", "system": SYSTEM[1]},
        {"conversations": FORMS["sharegpt"]["conversations"], "system": SYSTEM[1]},
    ]
    path = as_array(tmp_path, items)
    found = rows(build(path))
    assert found[:2] == [
        [SYSTEM, *PAIR],
        [SYSTEM, ("user", "Переведи\n\nкот"), ("assistant", "cat")],
    ]
    corpus = build(path, learn="user")
    assert rows(corpus)[0] == [("assistant", Q)]
    assert "a system message; the person's voice is learned" in {
        each["reason"] for each in corpus.dropped.to_pylist()
    }


def test_history_tools_pictures_and_parts(tmp_path):
    items = [
        {"instruction": "C", "output": "D", "history": [["A", "B"]]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "See"}, {"type": "image_url"}],
                },
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "42"},
                {"role": "assistant", "content": "It is"},
                {"role": "assistant", "content": "42."},
            ]
        },
    ]
    corpus = build(as_lines(tmp_path, items))
    assert rows(corpus) == [
        [("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")],
        [("user", "See"), ("assistant", "It is\n\n42.")],
    ]
    assert dropped(corpus)["42"] == "a tool's message"
    assert dropped(corpus, "attachment") == {"[image_url]": "attachment: image_url"}


def test_a_bad_answer_is_not_learned(tmp_path):
    items = [FORMS["kto"], {"prompt": "Q", "completion": "Bad", "label": False}]
    corpus = build(as_array(tmp_path, items))
    assert rows(corpus) == [PAIR]
    assert dropped(corpus)["Bad"] == "labelled as a bad answer"


def test_a_text_is_no_dialogue(tmp_path):
    corpus = build(as_lines(tmp_path, [FORMS["openai"], {"text": "Просто текст."}]))
    assert rows(corpus) == [PAIR]
    assert dropped(corpus, "note") == {"Просто текст.": "no messages in this text"}


def test_broken_lines_and_unknown_items_are_named(tmp_path):
    lines = [
        json.dumps(FORMS["alpaca"]),
        "{broken",
        "",
        '{"other": 1}',
        json.dumps(FORMS["openai"]),
    ]
    corpus = build(save(tmp_path, "x.jsonl", "\n".join(lines)))
    assert rows(corpus) == [PAIR]  # the two say the same
    assert corpus.report.same[0].times == 1
    assert [(each.item, each.reason.split(" (")[0]) for each in corpus.report.files[0].broken] == [
        ("/1", "line 2 is no valid JSON"),
        ("/3", "an item of no known shape"),
    ]


def test_data_of_no_known_kind_is_said(tmp_path):
    save(tmp_path, "s.json", '{"theme": "dark", "font": 12}')
    with pytest.raises(InputError, match="no known kind \\(keys: theme, font\\)"):
        build(tmp_path)
    save(tmp_path, "t.parquet", b"PAR1 broken PAR1")
    pq.write_table(pa.table({"price": [1, 2]}), tmp_path / "u")
    save(tmp_path, "good.json", [FORMS["openai"]])
    corpus = build(tmp_path)
    states = {each.file: each.state for each in corpus.report.files}
    assert states["t.parquet"].startswith("broken: the table is damaged")
    assert states["u"] == "structured data of no known kind (keys: price)"
