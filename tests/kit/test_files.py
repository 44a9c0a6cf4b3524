import pytest

from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.files import atomic_folder, write_atomic
from loratelier.kit.home import home, room


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "made") as scratch:
        (scratch / "a.txt").write_text("a")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a.txt").read_text() == "a"


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    target = tmp_path / "made"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target, replace=True) as scratch:
        (scratch / "new.txt").write_text("new")
        raise RuntimeError("the disk is full")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert [p.name for p in target.iterdir()] == ["old.txt"]


def test_an_existing_folder_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "made").mkdir()
    with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / "made"):
        pass


def test_replacing_a_folder_leaves_no_rest_of_the_old_one(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old.txt").write_text("old")
    with atomic_folder(tmp_path / "made", replace=True) as scratch:
        (scratch / "new.txt").write_text("new")
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["new.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_file_is_written_whole(tmp_path):
    write_atomic(tmp_path / "deep" / "a.txt", "привет")
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "привет"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_the_home_is_made_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("LORATELIER_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"
    assert room("adapters").is_dir()


def test_a_home_that_cannot_be_made_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LORATELIER_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(InputError, match="cannot be made.*Point LORATELIER_HOME"):
        home()


def test_the_nearest_word_is_named():
    assert did_you_mean("learning_rat", ["learning_rate", "rank"]) == (
        "Did you mean 'learning_rate'?"
    )
    assert did_you_mean("zzz", ["a", "b"]) == "Known: a, b"


def test_what_appears_while_a_folder_is_written_stays(tmp_path):
    target = tmp_path / "made"
    with (
        pytest.raises(InputError, match="exists already"),
        atomic_folder(target) as scratch,
    ):
        (scratch / "ours.txt").write_text("ours")
        target.mkdir()
        (target / "theirs.txt").write_text("theirs")
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    assert [p.name for p in target.iterdir()] == ["theirs.txt"]
