"""The corpus folder: written whole, read back equal, refused when it is damaged."""

import json
import re

import pyarrow.parquet as pq
import pytest

from loratelier.corpus import Corpus, build_corpus
from loratelier.kit.errors import InputError

NOTE = """>[!nexus_user] **User** - t
> Is 1 < 2? <script>alert(1)</script>
<!-- UID: u1 -->

My <b>remark</b>

>[!nexus_agent] **Assistant** - t
> {answer}
<!-- UID: a1 -->
"""
ANSWER = "Да, и это легко проверить на числовой прямой."


@pytest.fixture
def corpus(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    broken = ANSWER.encode().decode("mac_roman")
    (notes / "one.md").write_text(NOTE.format(answer=broken), encoding="utf-8")
    return build_corpus(notes)


def test_what_is_saved_is_loaded(corpus, tmp_path):
    folder = corpus.save(tmp_path / "out")
    loaded = Corpus.load(folder)
    assert loaded.rows.equals(corpus.rows)
    assert loaded.dropped.equals(corpus.dropped)
    assert loaded.report == corpus.report
    assert loaded.hash == corpus.hash
    assert {path.name for path in folder.iterdir()} == {
        "rows.parquet",
        "dropped.parquet",
        "repairs.parquet",
        "manifest.json",
        "report.html",
    }
    assert loaded.repairs.equals(corpus.repairs)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["rows"], manifest["messages"], manifest["repaired"]) == (1, 2, 1)
    (mended,) = manifest["files"][0]["repairs"]
    assert (mended["wrong"], mended["right"], mended["lost"]) == ("mac_roman", "utf-8", 0)
    assert mended["excerpt_after"] == ANSWER


def test_the_hash_follows_the_content_and_nothing_else(corpus, tmp_path):
    again = tmp_path / "elsewhere"
    again.mkdir()
    text = (tmp_path / "notes" / "one.md").read_text(encoding="utf-8")
    (again / "one.md").write_text(text, encoding="utf-8")
    assert build_corpus(again).hash == corpus.hash
    (again / "one.md").write_text(text.replace("Is 1", "Is 0"), encoding="utf-8")
    assert build_corpus(again).hash != corpus.hash


def test_an_existing_folder_is_not_written_over_by_chance(corpus, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    corpus.save(target)
    with pytest.raises(InputError, match="--force"):
        corpus.save(target)
    corpus.save(target, replace=True)
    assert Corpus.load(target).hash == corpus.hash
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.doc").write_text("dear")
    with pytest.raises(InputError, match="is no corpus"):
        corpus.save(other, replace=True)
    assert (other / "thesis.doc").read_text() == "dear"


def test_damage_is_named(corpus, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Corpus.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no corpus"):
        Corpus.load(tmp_path)
    folder = corpus.save(tmp_path / "out")
    rows = pq.read_table(folder / "rows.parquet")
    pq.write_table(rows.slice(0, 0), folder / "rows.parquet")
    with pytest.raises(InputError, match="do not match its manifest"):
        Corpus.load(folder)
    (folder / "rows.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"rows\.parquet cannot be read"):
        Corpus.load(folder)
    pq.write_table(rows.select(["id"]), folder / "rows.parquet")
    with pytest.raises(InputError, match="other columns"):
        Corpus.load(folder)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"rows": 1', '"rows": "x"'))
    with pytest.raises(InputError, match=r"manifest\.json, rows"):
        Corpus.load(folder)


def test_the_report_stands_alone_and_escapes_everything(corpus, tmp_path):
    html = (corpus.save(tmp_path / "out") / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>remark" not in html
    assert "&lt;b&gt;remark" in html
    assert not re.search(r"(src|href)=|https?://|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert ANSWER in html
    assert ANSWER.encode().decode("mac_roman") in html
    assert "UTF-8 read as Mac Roman, 1 message, nothing lost" in html
