"""From notes to rows: what is learned, what is dropped and why, and that nothing vanishes."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loratelier.corpus import build as build_module
from loratelier.corpus import build_corpus
from loratelier.kit.errors import InputError


def message(role, text, uid=""):
    lines = "\n".join(
        f"> {line}" if not line.startswith(">") else f">{line}" for line in text.split("\n")
    )
    mark = f"\n<!-- UID: {uid} -->" if uid else ""
    return f">[!nexus_{role}] **Name** - 01.02.2025 at 10:00\n{lines}{mark}\n\n"


def note(*turns):
    return "".join(message(*turn) for turn in turns)


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name}.md"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return folder


def messages(corpus):
    return [[(m["role"], m["content"]) for m in row["messages"]] for row in corpus.rows.to_pylist()]


def dropped(corpus):
    return {each["text"]: each["reason"] for each in corpus.dropped.to_pylist()}


ASK, ANSWER = ("user", "Ask", "u1"), ("agent", "Answer", "a1")


def test_a_conversation_becomes_one_row_with_its_lineage(tmp_path):
    text = note(ASK, ANSWER, ("user", "More", "u2"), ("agent", "Yes", "a2"))
    corpus = build_corpus(write(tmp_path, one=text))
    (row,) = corpus.rows.to_pylist()
    assert [m["content"] for m in row["messages"]] == ["Ask", "Answer", "More", "Yes"]
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2
    assert [o["uid"] for o in row["lineage"]] == ["u1", "a1", "u2", "a2"]
    assert (row["format"], row["split"], row["lossy"]) == ("chat", "train", False)
    for origin, turn in zip(row["lineage"], row["messages"], strict=True):
        assert origin["file"] == "one.md"
        raw = text[origin["start"] : origin["end"]]
        assert raw.startswith(">[!nexus_") and raw.endswith(turn["content"])


def test_of_regenerations_the_last_is_kept(tmp_path):
    text = note(
        ("user", "Draft", "u0"), ASK, ("agent", "First", "a0"), ANSWER, ("user", "Left over", "u9")
    )
    corpus = build_corpus(write(tmp_path, one=text))
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    reasons = dropped(corpus)
    assert reasons["First"] == "an earlier answer to the same turn; the later one is kept"
    assert "earlier wording" in reasons["Draft"]
    assert reasons["Left over"] == "unanswered"
    assert corpus.report.messages == 5
    assert corpus.report.dropped == 3


def test_learning_the_persons_voice_swaps_the_roles(tmp_path):
    text = note(ASK, ANSWER, ("user", "More", "u2"), ("agent", "Last words", "a2"))
    corpus = build_corpus(write(tmp_path, one=text), learn="user")
    assert messages(corpus) == [[("assistant", "Ask"), ("user", "Answer"), ("assistant", "More")]]
    assert dropped(corpus) == {"Last words": "nothing that the person said follows"}
    assert [o["role"] for o in corpus.rows.to_pylist()[0]["lineage"]] == [
        "user",
        "assistant",
        "user",
    ]


def test_an_empty_answer_takes_its_question_with_it(tmp_path):
    text = note(("user", "Lost", "u0"), ("agent", "[No content found]", "a0"), ASK, ANSWER)
    corpus = build_corpus(write(tmp_path, one=text))
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    assert dropped(corpus) == {
        "[No content found]": "no content",
        "Lost": "its answer was left out",
    }


def test_an_answer_whose_question_is_empty_goes_and_earlier_turns_stay(tmp_path):
    text = note(ASK, ANSWER, ("user", "[No content found]", "u0"), ("agent", "To nothing", "a0"))
    corpus = build_corpus(write(tmp_path, one=text))
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    assert dropped(corpus)["To nothing"] == "its question was left out"


def test_commentary_and_attachments_are_no_turns_and_not_lost(tmp_path):
    text = (
        note(ASK).replace("> Ask", "> Ask\n>>[!nexus_attachment] cat.png\n>> ![[cat.png]]")
        + "A summary of mine\n\n"
        + note(ANSWER)
    )
    corpus = build_corpus(write(tmp_path, one=text))
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    kinds = {each["kind"]: each for each in corpus.dropped.to_pylist()}
    assert kinds["commentary"]["text"] == "A summary of mine"
    origin = kinds["commentary"]["lineage"][0]
    assert text[origin["start"] : origin["end"]] == "A summary of mine"
    assert "cat.png" in kinds["attachment"]["text"]
    assert (corpus.report.commentary, corpus.report.nested, corpus.report.dropped) == (1, 1, 0)
    assert corpus.report.files[0].commentary[0].characters == len("A summary of mine")


def test_the_intact_copy_of_a_conversation_is_kept_wherever_it_stands(tmp_path):
    whole = "Это важная мысль, и смысл её не исчезает, пока кто-то помнит слова."
    kept = bytes(b for b in whole.encode() if b not in b"\x81\x8d\x8f\x90\x9d\xad")
    broken = kept.decode("cp1252")
    write(
        tmp_path,
        a=note(ASK, ("agent", broken, "a1")),
        b=note(ASK, ("agent", whole, "a1")),
    )
    corpus = build_corpus(tmp_path)
    assert messages(corpus) == [[("user", "Ask"), ("assistant", whole)]]
    (same,) = corpus.report.same
    assert (same.kept, same.left) == ("b.md", ["a.md"])
    copies = [each for each in corpus.dropped.to_pylist() if each["kind"] == "message"]
    assert [each["lossy"] for each in copies] == [False, True]
    assert all("b.md" in each["reason"] for each in copies)
    assert (corpus.report.conversations, corpus.report.messages, corpus.report.lossy) == (1, 4, 1)


def test_lossy_messages_stay_out_unless_asked_for(tmp_path):
    whole = "Это важная мысль, и смысл её не исчезает, пока кто-то помнит слова."
    kept = bytes(b for b in whole.encode() if b not in b"\x81\x8d\x8f\x90\x9d\xad")
    text = note(ASK, ANSWER, ("user", "More", "u2"), ("agent", kept.decode("cp1252"), "a2"))
    write(tmp_path, one=text)
    corpus = build_corpus(tmp_path)
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    reasons = dropped(corpus)
    lost = whole.count("Э") + whole.count("я") + whole.count("с")
    assert f"lossy repair: {lost} characters lost" in reasons.values()
    assert reasons["More"] == "its answer was left out"
    (row,) = build_corpus(tmp_path, include_lossy=True).rows.to_pylist()
    assert row["lossy"]
    assert row["messages"][3]["content"].count("\ufffd") == lost
    assert any("Windows-1252" in step for step in row["lineage"][3]["steps"])


def test_a_repeated_message_is_taken_once(tmp_path):
    corpus = build_corpus(write(tmp_path, one=note(ASK, ANSWER, ASK, ANSWER)))
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    assert set(dropped(corpus).values()) == {"the same message twice in one note"}


def test_notes_without_uids_are_told_apart_by_their_words(tmp_path):
    write(
        tmp_path,
        a=note(("user", "Ask"), ("agent", "One")),
        b=note(("user", "Ask"), ("agent", "Two")),
        c=note(("user", "Ask"), ("agent", "One")),
    )
    corpus = build_corpus(tmp_path)
    assert corpus.report.conversations == 2
    assert corpus.report.same[0].kept == "a.md"


def test_only_one_script_when_asked(tmp_path):
    write(tmp_path, a=note(ASK, ANSWER), b=note(("user", "Вопрос", "u5"), ("agent", "Ответ", "a5")))
    corpus = build_corpus(tmp_path, script="Latn")
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    assert dropped(corpus)["Ответ"] == "another script than Latn: Cyrl"
    with pytest.raises(InputError, match="'Latin'"):
        build_corpus(tmp_path, script="Latin")


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("cp1251", "cp1251"),
        ("koi8-r", "koi8-r"),
        ("cp866", "cp866"),
        ("mac_cyrillic", "mac_cyrillic"),
    ],
)
def test_notes_in_other_encodings_are_read(tmp_path, encoding, told):
    answer = "Ответ: эта заметка лежала на старом диске, и прочесть её было некому."
    text = note(("user", "Что это за файл?", "u"), ("agent", answer, "a"))
    corpus = build_corpus(write(tmp_path, one=text.encode(encoding)))
    assert messages(corpus)[0][1] == ("assistant", answer)
    (row,) = corpus.rows.to_pylist()
    assert row["lineage"][0]["steps"][0].startswith("decoded as ")
    assert corpus.report.files[0].encoding == told
    decoded = (tmp_path / "one.md").read_bytes().decode(told)
    assert decoded[row["lineage"][1]["start"] : row["lineage"][1]["end"]].endswith(answer)
    assert corpus.report.repaired == 0


def test_broken_utf8_loses_only_the_message_it_stands_in(tmp_path):
    text = note(ASK, ANSWER, ("user", "Ещё вопрос", "u2"), ("agent", "Ответ №XX целиком", "a2"))
    data = text.encode().replace(b"XX", b"\xd0")
    corpus = build_corpus(write(tmp_path, one=data))
    assert messages(corpus) == [[("user", "Ask"), ("assistant", "Answer")]]
    assert corpus.report.lossy == 1


def test_other_files_are_named_and_do_no_harm(tmp_path):
    (tmp_path / ".obsidian").mkdir()
    (tmp_path / ".obsidian" / "hidden.md").write_text(note(ASK, ANSWER))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "one.markdown").write_text(note(ASK, ANSWER))
    (tmp_path / "data.json").write_text("{}")
    write(tmp_path, empty="", blank=" \n", plain="# Just a page\n\nwords", binary=b"\x00\x01\x02")
    corpus = build_corpus(tmp_path)
    states = {each.file: each.state for each in corpus.report.files}
    assert states == {
        "deep/er/one.markdown": "read",
        "empty.md": "empty",
        "blank.md": "empty",
        "plain.md": "no messages found",
        "data.json": "structured data of no known kind (an empty object)",
        "binary.md": "a binary file, not text",
    }
    by_file = {each["lineage"][0]["file"]: each for each in corpus.dropped.to_pylist()}
    assert by_file["plain.md"]["reason"] == "no messages in this note"
    assert by_file["plain.md"]["text"].startswith("# Just a page")
    assert by_file["empty.md"]["kind"] == "note"
    assert corpus.report.dropped == 0


def test_several_sources_keep_apart_names_and_read_no_file_twice(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write(
            tmp_path / name,
            one=note(("user", f"Ask {name}", f"u{name}"), ("agent", "A", f"a{name}")),
        )
    corpus = build_corpus([tmp_path / "x", tmp_path / "y", tmp_path / "x" / "one.md"])
    files = [row["lineage"][0]["file"] for row in corpus.rows.to_pylist()]
    assert files == ["one.md", "y/one.md"]


def corpus_of(folder, numbers, **options):
    folder.mkdir(exist_ok=True)
    for n in numbers:
        write(
            folder, **{f"n{n}": note(("user", f"Ask {n}", f"u{n}"), ("agent", f"A {n}", f"a{n}"))}
        )
    return build_corpus(folder, **options)


def held_out(corpus):
    return {r["conversation"] for r in corpus.rows.to_pylist() if r["split"] == "holdout"}


def test_the_holdout_is_a_share_and_stays_when_notes_are_added(tmp_path):
    assert held_out(corpus_of(tmp_path / "nine", range(9), holdout=0.5)) == set()
    assert len(held_out(corpus_of(tmp_path / "ten", range(10), holdout=0.01))) == 1
    assert held_out(corpus_of(tmp_path / "ten", range(10), holdout=0)) == set()
    forty = corpus_of(tmp_path / "many", range(40), holdout=0.25)
    assert len(held_out(forty)) == 10
    more = corpus_of(tmp_path / "many", range(44), holdout=0.25)
    assert len(held_out(more)) == 11
    # At most as many leave as newcomers push out.
    assert len(held_out(forty) - held_out(more)) <= 4
    with pytest.raises(InputError, match="holdout"):
        build_corpus(tmp_path / "many", holdout=1.0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no notes"),
        ({"one": ""}, "is empty"),
        ({"one": "just words"}, "no messages in this note"),
        ({"one": note(ASK)}, r"unanswered \(1\)"),
    ],
)
def test_nothing_to_learn_is_said_in_one_line(tmp_path, files, said):
    write(tmp_path, **files)
    with pytest.raises(InputError, match=said) as caught:
        build_corpus(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_arguments_name_themselves(tmp_path):
    write(tmp_path, one=note(ASK, ANSWER))
    with pytest.raises(InputError, match="gone does not exist"):
        build_corpus(tmp_path / "gone")
    with pytest.raises(InputError, match="'yml' is unknown.*'yaml'"):
        build_corpus(tmp_path, format="yml")
    with pytest.raises(InputError, match="'users'.*'user'"):
        build_corpus(tmp_path, learn="users")


def test_an_unreadable_note_is_named(tmp_path, monkeypatch):
    write(tmp_path, one=note(ASK, ANSWER))

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"one\.md cannot be read \(Permission denied\)"):
        build_corpus(tmp_path)


TURN = st.tuples(
    st.sampled_from(("user", "agent")),
    st.sampled_from(
        (
            "Ask",
            "Answer",
            "Да",
            "[No content found]",
            "",
            "Ð¿Ñ€Ð¸Ð²ÐµÑ‚, Ð¼Ð¸Ñ€",
            "ÑÑ Ð¾Ð¿Ñ‚ Ñ‚Ð¾Ñ‡ÐºÐ°",
            ">quoted",
            "```\n---\n```",
        )
    ),
    st.sampled_from(("", "", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8")),
)


@given(
    notes=st.lists(st.lists(TURN, max_size=7), min_size=1, max_size=4),
    learn=st.sampled_from(("assistant", "user")),
    lossy=st.booleans(),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_message_is_in_a_row_or_dropped_exactly_once(tmp_path_factory, notes, learn, lossy):
    folder = tmp_path_factory.mktemp("notes")
    write(folder, anchor=note(("user", "Anchor", "x1"), ("agent", "Held", "x2")))
    write(folder, **{f"n{i}": "Words\n\n" + note(*turns) for i, turns in enumerate(notes)})
    corpus = build_corpus(folder, learn=learn, include_lossy=lossy)
    kept = [(o["file"], o["start"]) for row in corpus.rows.to_pylist() for o in row["lineage"]]
    left = [
        (each["lineage"][0]["file"], each["lineage"][0]["start"])
        for each in corpus.dropped.to_pylist()
        if each["kind"] == "message"
    ]
    written = 2 + sum(map(len, notes))
    assert len(kept) + len(left) == len({*kept, *left}) == written == corpus.report.messages
    for row in corpus.rows.to_pylist():
        roles = [m["role"] for m in row["messages"]]
        assert all(a != b for a, b in pairwise(roles))
        assert "assistant" in roles and roles[-1] == "assistant"
        assert all(m["content"].strip() for m in row["messages"])


def test_a_lost_message_is_a_fault_of_ours_and_is_raised(tmp_path, monkeypatch):
    write(tmp_path, one=note(ASK, ANSWER, ("user", "Left over", "u9")))
    whole = build_module.to_row
    monkeypatch.setattr(build_module, "to_row", lambda *a, **k: (whole(*a, **k)[0], []))
    with pytest.raises(RuntimeError, match="lost or doubled"):
        build_corpus(tmp_path)
