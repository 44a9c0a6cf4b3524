"""``loratelier corpus`` as a person runs it: output, exit status, one line for an error."""

import json
from pathlib import Path

import pytest

from loratelier.cli import app as app_module
from loratelier.cli import main

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"

NOTE = """>[!nexus_user] **User** - t
> Is it :warning: [bold]safe[/bold]?
<!-- UID: u1 -->

>[!nexus_agent] **Assistant** - t
> {answer}
<!-- UID: a1 -->
"""
ANSWER = "Да, и это легко проверить на числовой прямой."


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["loratelier", "corpus", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        seen = capsys.readouterr()
        return left.value.code or 0, seen.out, seen.err

    assert any(group.name == "corpus" for group in app_module.app.registered_groups)
    return call


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    text = NOTE.format(answer=ANSWER.encode().decode("mac_roman"))
    (folder / "one.md").write_text(text, encoding="utf-8")
    return folder


def test_build_tells_a_person_what_happened(run, notes, tmp_path):
    (notes / "page.md").write_text("no chat")
    status, said, _ = run("build", notes, "-o", tmp_path / "out")
    assert status == 0
    assert "one.md: UTF-8 read as Mac Roman, 1 message, nothing lost" in said
    assert "page.md: no messages found" in said
    assert str(tmp_path / "out" / "report.html") in said


def test_build_json_is_one_document(run, notes, tmp_path):
    status, said, _ = run("build", notes, "-o", tmp_path / "out", "--json")
    document = json.loads(said)
    assert status == 0
    assert (document["conversations"], document["messages"], document["rows"]) == (1, 2, 1)
    assert (document["dropped"], document["repaired"], document["lossy"]) == (0, 1, 0)
    assert document["path"] == str(tmp_path / "out")
    assert len(document["hash"]) == 64
    assert document["files"][0]["file"] == "one.md"


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the seeds are not beside the repository")
def test_build_on_the_seeds(run, tmp_path):
    status, said, _ = run("build", SEEDS, "-o", tmp_path / "out", "--json")
    document = json.loads(said)
    assert status == 0
    assert (document["conversations"], document["messages"], document["rows"]) == (4, 11, 4)
    assert (document["dropped"], document["repaired"], document["lossy"]) == (3, 3, 1)


def test_an_existing_corpus_is_rebuilt_only_by_force(run, notes, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert run("build", notes, "-o", out)[0] == 0
    status, said, told = run("build", notes, "-o", out)
    assert (status, said) == (2, "")
    assert "--force" in told
    assert run("build", notes, "-o", out, "--force")[0] == 0
    assert run("build", notes, "-o", notes, "--force")[0] == 2
    assert (notes / "one.md").exists()


def test_errors_are_one_line_and_status_2(run, tmp_path):
    status, said, told = run("build", tmp_path / "gone", "-o", tmp_path / "out", "--json")
    assert (status, said) == (2, "")
    assert len(told.strip().splitlines()) == 1
    assert "gone does not exist" in told
    assert not (tmp_path / "out").exists()


def test_show_prints_rows_as_they_are(run, notes, tmp_path):
    out = tmp_path / "out"
    run("build", notes, "-o", out)
    status, said, _ = run("show", out, "--row", "1")
    assert status == 0
    assert "Is it :warning: [bold]safe[/bold]?" in said
    assert ANSWER in said
    assert "one.md 0-" in said
    (row,) = json.loads(run("show", out, "--json")[1])
    assert row["messages"][1] == {"role": "assistant", "content": ANSWER}
    assert json.loads(run("show", out, "--row", row["id"], "--json")[1]) == [row]
    status, _, told = run("show", out, "--row", "7")
    assert status == 2
    assert "No row '7'" in told


def test_diff_shows_before_and_after(run, notes, tmp_path):
    out = tmp_path / "out"
    run("build", notes, "-o", out)
    _, said, _ = run("diff", out)
    assert f"+ {ANSWER}" in said
    assert f"- {ANSWER.encode().decode('mac_roman')}" in said
    (step,) = json.loads(run("diff", out, "--json")[1])
    assert step["wrong"] == "mac_roman"
    (change,) = step["changes"]
    assert change["now"] == ANSWER


def test_diff_shows_every_step_and_what_is_recorded_takes_them_back(run, tmp_path):
    """Marks of every kind in one note: encodings once and twice, of scanners and of pages."""
    clean = [
        "Мы вышли из дома рано утром и пошли к реке, пока не стало жарко.",
        "Вечером снова зажгли лампу и долго читали вслух старые письма.",
        "It wasn’t the storm that kept us — it was the soup.",
    ]
    lines = [
        clean[0].encode().decode("cp1251", "replace").replace("\ufffd", "\x98"),
        clean[1].encode("cp1251").decode("latin-1").encode().decode("mac_roman"),
        clean[2].encode("cp1252").decode("koi8-r"),
        "This is the ﬁnal word on the ﬂood of the year.",
        "Он написал кoмпьютeр латинскими буквами и не заметил.",
        "A bell\x07 rang, and zero\u200bwidth marks hid in the words.",
        "Слово пере-",
        "несено на другую строку, как в книге.",
    ]
    text = "\n".join(lines)
    block = "\n".join(f"> {line}" for line in text.split("\n"))
    asked = ">[!nexus_user] **User** - 1\n> Кто там?\n<!-- UID: a -->\n"
    note = f"{asked}\n>[!nexus_agent] **Assistant** - 2\n{block}\n<!-- UID: b -->\n"
    (tmp_path / "one.md").write_text(note, encoding="utf-8")
    out = tmp_path / "out"
    assert run("build", tmp_path / "one.md", "-o", out)[0] == 0
    steps = json.loads(run("diff", out, "--json")[1])
    kinds = {step["what"] for step in steps}
    assert "UTF-8 read as Windows-1251" in kinds
    assert {
        "control characters removed",
        "words cut at a line end joined",
        "invisible characters removed",
        "ligatures written out",
        "look-alike letters set right",
    } <= kinds
    said = run("diff", out)[1]
    read = dict(enumerate(lines, start=1))
    now: dict[int, str] = {}
    for step in steps:
        assert step["what"] in said
        for change in step["changes"]:
            assert f"+ {change['now']}" in said
            # Each step begins where the one before it ended, and the first at what was read.
            assert change["was"] == now.get(change["line"], read[change["line"]])
            now[change["line"]] = change["now"]
    assert [now[1], now[2], now[3]] == clean
    (row,) = json.loads(run("show", out, "--json")[1])
    assert all(line in row["messages"][1]["content"] for line in now.values() if line)


def test_a_row_of_text_is_shown_with_the_place_of_each_message(run, notes, tmp_path):
    out = tmp_path / "out"
    assert run("build", notes, "-o", out, "--format", "markdown")[0] == 0
    status, said, _ = run("show", out)
    assert status == 0
    assert "(markdown, train)" in said
    assert f"# Ассистент\n\n{ANSWER}" in said
    assert "user  one.md 0-" in said and "assistant  one.md" in said
    document = json.loads(run("show", out, "--json")[1])
    assert document[0]["messages"] is None
    assert document[0]["text"].startswith("# Человек\n\nIs it :warning: [bold]safe[/bold]?\n")


def test_a_wrong_scene_is_one_line_and_ends_with_two(run, tmp_path):
    scenes = tmp_path / "scenes.yaml"
    scenes.write_text("scenes:\n  - id: rain\n    text: It rains.\n    nodes: {rain: evnt}\n")
    status, said, error = run("build", scenes, "-o", tmp_path / "out")
    assert (status, said) == (2, "")
    assert "scenes.yaml, line 4: scene 'rain'" in error
    assert "node 'rain' has the unknown kind 'evnt'. Did you mean 'event'?" in " ".join(
        error.split()
    )
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_format(run):
    from loratelier.corpus.formats import FORMATS

    said = " ".join(run("build", "--help")[1].split())
    assert all(format in said for format in FORMATS)
