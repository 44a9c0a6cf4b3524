"""The person's own notes: counted by hand, two of five damaged."""

from pathlib import Path

import pytest

from loratelier.corpus import build_corpus, repair_text

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"
FILES = {path.name[:3]: path for path in SEEDS.glob("*.txt")}

pytestmark = pytest.mark.skipif(len(FILES) < 5, reason="the seeds are not beside the repository")


def text_of(number):
    return FILES[number].read_bytes().decode("utf-8")


@pytest.fixture(scope="module")
def corpus():
    return build_corpus(SEEDS)


def test_the_counts(corpus):
    # 000 and 001 are one conversation; messages 2 + 2 + 2 + 3 + 2.
    counts = corpus.report.counts()
    expected = {
        "conversations": 4,
        "messages": 11,
        "rows": 4,
        "messages_in_rows": 8,
        "dropped": 3,
        "repaired": 3,
        "lossy": 1,
        "commentary": 2,
    }
    assert {name: counts[name] for name in expected} == expected


def test_the_damaged_copy_goes_and_the_intact_one_stays(corpus):
    (same,) = corpus.report.same
    assert (same.kept, same.left) == (FILES["000"].name, [FILES["001"].name])
    copies = [
        each
        for each in corpus.dropped.to_pylist()
        if each["lineage"][0]["file"] == FILES["001"].name
    ]
    assert [each["lossy"] for each in copies] == [False, True]
    assert all(FILES["000"].name in each["reason"] for each in copies)


def test_001_repaired_equals_000_but_for_the_lost_characters():
    whole, mended = text_of("000"), repair_text(text_of("001"))
    assert mended.lossy
    assert len(mended.text) == len(whole)
    for true, seen in zip(whole, mended.text, strict=True):
        assert seen in (true, "\ufffd")
    # Every lost character is one whose last byte Windows-1252 leaves undefined, or ends in a
    # soft hyphen; all of those are lost.
    gone = b"\x81\x8d\x8f\x90\x9d\xad"
    expected = sum(any(byte in gone for byte in char.encode()) for char in whole)
    assert mended.text.count("\ufffd") == mended.lost == expected
    assert mended.original() == text_of("001")


def test_004_is_restored_whole(corpus):
    mended = repair_text(text_of("004"))
    assert mended.text == text_of("004").encode("mac_roman").decode("utf-8")
    assert "\ufffd" not in mended.text
    assert "LoRA может выполнять роль" in mended.text
    (row,) = [
        row for row in corpus.rows.to_pylist() if row["lineage"][0]["file"] == FILES["004"].name
    ]
    assert "LoRA может выполнять роль" in row["messages"][1]["content"]
    assert not row["lossy"]


@pytest.mark.parametrize("number", ["000", "002", "003"])
def test_the_clean_notes_are_not_touched(number):
    assert not repair_text(text_of(number)).changed


def test_lineage_points_at_the_raw_quoted_lines(corpus):
    for row in corpus.rows.to_pylist():
        for origin in row["lineage"]:
            text = (SEEDS / origin["file"]).read_bytes().decode("utf-8")
            raw = text[origin["start"] : origin["end"]]
            assert raw.startswith(">[!nexus_")
            assert all(line.startswith(">") for line in raw.split("\n"))
            assert text[origin["end"] :].startswith(f"\n<!-- UID: {origin['uid']} -->")


def test_an_intact_message_is_its_block_without_the_marks(corpus):
    (row,) = [
        row for row in corpus.rows.to_pylist() if row["lineage"][0]["file"] == FILES["000"].name
    ]
    origin = row["lineage"][1]
    raw = text_of("000")[origin["start"] : origin["end"]].split("\n")[1:]
    assert row["messages"][1]["content"] == "\n".join(line[2:] for line in raw)


def test_commentary_of_003_is_no_turn_and_stands_among_the_dropped(corpus):
    text = text_of("003")
    (remark,) = [
        each
        for each in corpus.dropped.to_pylist()
        if each["kind"] == "commentary" and each["lineage"][0]["file"] == FILES["003"].name
    ]
    assert remark["text"].startswith("### 1. В чём суть")
    assert remark["text"].endswith("[[174_изучи_все]]")
    origin = remark["lineage"][0]
    assert text[origin["start"] : origin["end"]] == remark["text"]
    rows = str(corpus.rows.to_pylist())
    assert "В чём суть проблемы" not in rows
    assert "†" not in rows
    (kept,) = [
        row for row in corpus.rows.to_pylist() if row["lineage"][0]["file"] == FILES["003"].name
    ]
    marks = text[kept["lineage"][1]["start"] :].count("【")
    assert f"citations removed: {marks}" in kept["lineage"][1]["steps"]
