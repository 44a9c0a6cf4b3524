"""Selection: against brute force where there is one, and nothing that vanishes."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import torch

from loratelier.corpus import Corpus, build_corpus
from loratelier.corpus.score import score_corpus
from loratelier.corpus.score.columns import put_column
from loratelier.corpus.score.likeness import gram_vectors, hidden_vectors, nearest_likeness
from loratelier.corpus.select import Limit, Quota, Wish, parse_limits, parse_quotas, select_rows
from loratelier.corpus.select.pick import FacilityLocation
from loratelier.kit.errors import InputError

MESSAGES = """>[!nexus_user] **User** - t
> {question}
<!-- UID: {uid}q -->

>[!nexus_agent] **Assistant** - t
> {answer}
<!-- UID: {uid}a -->

"""
WORDS = ("tide", "lamp", "bread", "stone", "river", "glass", "door", "coat", "snow", "moss", "rope")


def write_notes(folder, count, prefix="n", answer=None):
    """One conversation a file; every fourth is Russian."""
    folder.mkdir()
    for number in range(count):
        words = [WORDS[(number * 7 + step * step) % len(WORDS)] for step in range(6)]
        text = answer or ("Всё тихо. " * (number % 3 + 1) if number % 4 == 3 else " ".join(words))
        note = MESSAGES.format(question=f"Case {number}?", answer=text, uid=f"{prefix}{number}")
        (folder / f"{prefix}{number:02}.md").write_text(note, encoding="utf-8")
    return build_corpus(folder)


@pytest.fixture(scope="module")
def scored(tiny_base, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORATELIER_HOME", str(home))
        corpus = write_notes(tmp_path_factory.mktemp("select") / "notes", 20)
        return score_corpus(corpus, tiny_base, "ppl,ifd,length").corpus


def train_rows(corpus):
    return [row for row in corpus.rows.to_pylist() if row["split"] == "train"]


def messages(table, kind=None):
    """Every message of a table by where it stands in its note."""
    return Counter(
        (origin["file"], origin["start"], origin["end"])
        for row in table.to_pylist()
        for origin in row["lineage"]
        if kind is None or row["kind"] == kind
    )


def check_whole(before, after):
    """Every message is in a row or dropped, once; the manifest counts them; the hash is right."""
    given = messages(before.rows) + messages(before.dropped, "message")
    replayed = Counter(
        (origin["file"], origin["start"], origin["end"])
        for row in after.rows.to_pylist()
        if row["id"].startswith("replay/")
        for origin in row["lineage"]
    )
    assert messages(after.rows) + messages(after.dropped, "message") == given + replayed
    report = after.report
    assert (
        report.messages
        == report.messages_in_rows + report.dropped
        == len(list((given + replayed).elements()))
    )
    assert sum(report.reasons.values()) == report.dropped
    assert report.rows == after.rows.num_rows == report.train + report.held_out
    assert sum(file.in_rows for file in report.files) == report.messages_in_rows
    assert sum(file.dropped for file in report.files) == report.dropped


def test_the_top_share_by_a_score(scored):
    chosen = select_rows(scored, Wish(top=0.25, by="length")).corpus
    ranked = sorted(train_rows(scored), key=lambda row: (-row["length"], row["id"]))
    wanted = round(0.25 * len(ranked))
    assert {row["id"] for row in train_rows(chosen)} == {row["id"] for row in ranked[:wanted]}
    held_out = [row for row in scored.rows.to_pylist() if row["split"] == "holdout"]
    assert [r for r in chosen.rows.to_pylist() if r["split"] == "holdout"] == held_out != []
    check_whole(scored, chosen)
    (note,) = [note for note in chosen.report.scores if note.column == "length"]
    lengths = [row["length"] for row in chosen.rows.to_pylist()]
    assert (note.scored, note.median) == (len(lengths), np.median(lengths))
    fewest = select_rows(scored, Wish(top=3, by="length", lowest=True)).corpus
    ranked.sort(key=lambda row: (row["length"], row["id"]))
    assert {row["id"] for row in train_rows(fewest)} == {row["id"] for row in ranked[:3]}


def test_rows_left_out_say_why_with_their_lineage(scored, tmp_path):
    chosen = select_rows(scored, Wish(top=2, by="length")).corpus
    cut = min(row["length"] for row in train_rows(chosen))
    gone = chosen.dropped.to_pylist()[scored.dropped.num_rows :]
    assert len(gone) == 2 * (scored.report.train - 2)
    by_id = {row["lineage"][0]["uid"]: row for row in train_rows(scored)}
    for record in gone:
        assert record["kind"] == "message"
        row = by_id.get(record["lineage"][0]["uid"])
        if row:
            assert record["text"] == row["messages"][0]["content"]
            assert record["reason"] == (
                f"not among the highest by length: {row['length']}, the last chosen has {cut}"
            )
    folder = chosen.save(tmp_path / "chosen")
    (note,) = Corpus.load(folder).report.selections
    assert note.source == scored.hash
    assert note.settings == {"top": 2.0, "by": "length"}
    assert (note.candidates, note.selected) == (scored.report.train, 2)


def with_scores(corpus, column, values):
    """The corpus with its training rows' scores set by hand."""
    values = iter(values)
    column_values = [
        next(values) if split == "train" else None
        for split in corpus.rows.column("split").to_pylist()
    ]
    rows = put_column(corpus.rows, column, pa.array(column_values, type=pa.float64()))
    return replace(corpus, rows=rows)


def test_limits_and_rows_without_a_score(scored):
    count = scored.report.train
    corpus = with_scores(scored, "ppl", [None, 5, 50, 500, *[20] * (count - 4)])
    wish = Wish(limits=(Limit("ppl", low=10), Limit("ppl", high=100)))
    chosen = select_rows(corpus, wish).corpus
    assert chosen.report.train == count - 3
    assert chosen.report.selections[-1].reasons == {
        "ppl not scored": 1,
        "ppl too low": 1,
        "ppl too high": 1,
    }
    assert any(row["reason"] == "ppl 500 is above 100" for row in chosen.dropped.to_pylist())
    check_whole(corpus, chosen)
    with pytest.raises(InputError, match=r"No row is left: .*ppl too low \(\d+\)"):
        select_rows(corpus, Wish(limits=(Limit("ppl", low=1e9),)))


def test_by_ifd_leaves_out_rows_whose_prompt_does_not_help(scored):
    count = scored.report.train
    corpus = with_scores(scored, "ifd", [1.2, 1.0, 0.9, 0.8, *[0.5] * (count - 4)])
    chosen = select_rows(corpus, Wish(top=2, by="ifd")).corpus
    assert sorted(row["ifd"] for row in train_rows(chosen)) == [0.8, 0.9]
    cause = "ifd is not below 1: the prompt makes the answer no likelier"
    assert chosen.report.selections[-1].reasons[cause] == 2
    # The same score by its full name; a bound of one's own takes the place of ours.
    own = Wish(top=2, by="ifd-loss-ratio", limits=(Limit("ifd", high=1.1),))
    assert sorted(row["ifd"] for row in train_rows(select_rows(corpus, own).corpus)) == [0.9, 1.0]


def brute_force(likeness, count):
    """Greedy facility location by trying every row each time; the first of equals."""
    chosen, covered = [], np.zeros(len(likeness))
    for _ in range(count):
        gains = [
            -1 if row in chosen else np.maximum(likeness[row] - covered, 0).sum()
            for row in range(len(likeness))
        ]
        best = int(np.argmax(gains))
        chosen.append(best)
        covered = np.maximum(covered, likeness[best])
    return chosen, covered.sum()


@pytest.mark.parametrize("seed", range(6))
def test_lazy_greedy_is_greedy_and_near_the_best(seed):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(11, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = np.clip((1 + (vectors @ vectors.T).astype(np.float64)) / 2, 0, 1)
    expected, reached = brute_force(likeness, 5)
    picker, taken = FacilityLocation(vectors, range(11)), []
    for row in picker.picks(range(11), lambda row: row not in taken):
        taken.append(row)
        if len(taken) == 5:
            break
    assert taken == expected
    best = max(likeness[list(each)].max(axis=0).sum() for each in combinations(range(11), 5))
    assert (1 - 1 / np.e) * best <= reached <= best + 1e-9
    for row in range(11):
        near, much = picker.nearest(row)
        assert much == pytest.approx(likeness[row, taken].max())
        assert likeness[row, near] == pytest.approx(much)


def test_diversity_takes_one_of_each_kind(tmp_path):
    """Three kinds of rows, nearly the same within a kind: three rows, one of each."""
    folder = tmp_path / "notes"
    folder.mkdir()
    kinds = ("The sea was grey and cold", "Compile the module with care", "Хлеб поднимается в печи")
    for number in range(9):
        answer = f"{kinds[number % 3]}, {'again and ' * (number // 3)}so."
        note = MESSAGES.format(question="?", answer=answer, uid=f"k{number}")
        (folder / f"{number}.md").write_text(note, encoding="utf-8")
    corpus = build_corpus(folder, holdout=0)
    found = select_rows(corpus, Wish(top=3, diverse=True))
    assert found.likeness == "TF-IDF of hashed character n-grams"
    starts = {row["messages"][1]["content"][:8] for row in train_rows(found.corpus)}
    assert starts == {kind[:8] for kind in kinds}
    reasons = found.corpus.dropped.to_pylist()
    chosen = {row["id"] for row in train_rows(found.corpus)}
    for record in reasons:
        assert record["reason"].startswith("other chosen rows stand for it: ")
        assert record["reason"].rsplit(" ", 1)[1] in chosen
    check_whole(corpus, found.corpus)


def test_likeness_without_and_with_a_base(tiny_base):
    texts = ["The tide turns at noon.", "the  tide turns at noon", "Сорок два.", "", "ab"]
    vectors = gram_vectors(texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 0, 0], abs=1e-6)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.8 > 0.1 > likeness[0, 2]
    assert nearest_likeness(vectors)[2] == pytest.approx(likeness[2, :2].max(), abs=1e-6)
    texts = ["a longer text of words", "short", "ещё"]
    means = []
    for text in texts:
        with torch.no_grad():
            ids = torch.tensor([tiny_base.tokenizer(text)["input_ids"]])
            means.append(tiny_base.model.model(input_ids=ids).last_hidden_state[0].mean(0).numpy())
    expected = np.array(means) - np.mean(means, axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(hidden_vectors(tiny_base, texts) - expected).max() < 1e-4


def test_diversity_by_a_base_among_the_best(scored, tiny_base):
    found = select_rows(scored, Wish(top=3, by="length", diverse=True, pool=2), base=tiny_base)
    assert found.likeness == "hidden states of tiny"
    ranked = sorted(train_rows(scored), key=lambda row: (-row["length"], row["id"]))
    assert {row["id"] for row in train_rows(found.corpus)} <= {row["id"] for row in ranked[:6]}
    assert found.corpus.report.train == 3


def test_caps_and_quotas(tmp_path, scored):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3):
        note = MESSAGES.format(question="?", answer=f"answer {number}", uid=f"c{number}")
        (folder / f"{number}.md").write_text(note, encoding="utf-8")
    corpus = build_corpus(folder, holdout=0)
    # All rows from one file, as an export has them.
    rows = corpus.rows.to_pylist()
    for row in rows:
        for origin in row["lineage"]:
            origin["file"] = "export.json"
    one_file = Corpus(
        pa.Table.from_pylist(rows, schema=corpus.rows.schema), corpus.dropped, corpus.report
    )
    capped = select_rows(one_file, Wish(cap_source=2)).corpus
    assert capped.report.train == 2
    reason = "its file has given as many rows as one may: export.json gave 2 rows"
    assert [row["reason"] for row in capped.dropped.to_pylist()] == [reason, reason]
    wish = Wish(
        top=4, by="length", quotas=(Quota("script", "Latn", 2), Quota("script", "Cyrl", 0.5))
    )
    chosen = train_rows(select_rows(scored, wish).corpus)
    cyrillic = [row for row in chosen if "Всё" in row["messages"][1]["content"]]
    assert (len(chosen), len(cyrillic)) == (4, 2)
    file = train_rows(scored)[0]["lineage"][0]["file"]
    chosen = train_rows(
        select_rows(scored, Wish(top=1, by="length", quotas=(Quota("file", file, 1),))).corpus
    )
    assert chosen[0]["lineage"][0]["file"] == file
    with pytest.raises(InputError, match="quotas ask for 5 rows, and 4"):
        select_rows(scored, Wish(top=4, by="length", quotas=(Quota("format", "chat", 5),)))
    with pytest.raises(InputError, match="no 'langage'"):
        select_rows(scored, Wish(top=4, by="length", quotas=(Quota("langage", "ru", 1),)))


def test_the_same_seed_gives_the_same_rows_and_a_control_of_their_size(scored):
    wish = Wish(top=5, diverse=True, seed=3)
    first, again = (select_rows(scored, wish, control=True) for _ in range(2))
    assert first.corpus.hash == again.corpus.hash
    assert first.control.hash == again.control.hash != first.corpus.hash
    other = select_rows(scored, Wish(top=5, diverse=True, seed=4), control=True)
    assert other.control.hash != first.control.hash
    assert first.control.report.train == first.corpus.report.train == 5
    assert first.control.report.held_out == scored.report.held_out
    check_whole(scored, first.control)
    note = first.control.report.selections[-1]
    assert note.settings == {"random_control_of": first.corpus.hash}
    assert note.reasons == {"not drawn for the random control": scored.report.train - 5}


def test_replay_mixes_in_a_share_of_another_corpus(scored, tmp_path):
    general = write_notes(tmp_path / "general", 15, prefix="g")
    found = select_rows(
        scored, Wish(top=8, by="length", replay_share=0.2), replay=general, control=True
    )
    rows = train_rows(found.corpus)
    extra = [row for row in rows if row["id"].startswith("replay/")]
    assert (len(rows), len(extra)) == (10, 2)
    for row in extra:
        assert row["lineage"][0]["steps"][-1] == f"replayed from corpus {general.hash[:12]}"
        assert row["length"] is None
        assert {entry["column"] for entry in row["unscored"]} == {"ppl", "ifd", "length"}
    check_whole(scored, found.corpus)
    check_whole(scored, found.control)
    assert [row for row in train_rows(found.control) if row["id"].startswith("replay/")] == extra
    note = found.corpus.report.selections[-1]
    assert (note.replayed, note.replay_source) == (2, general.hash)
    with pytest.raises(InputError, match="both a corpus and a share"):
        select_rows(scored, Wish(replay_share=0.1))
    with pytest.raises(InputError, match="no training rows of its own"):
        select_rows(scored, Wish(replay_share=0.1), replay=scored)


def test_replayed_rows_keep_scores_of_the_same_base(scored, tiny_base, tmp_path, home):
    general = score_corpus(write_notes(tmp_path / "g", 12, prefix="g"), tiny_base, "ppl").corpus
    found = select_rows(scored, Wish(top=8, by="length", replay_share=0.2), replay=general).corpus
    for row in train_rows(found):
        if row["id"].startswith("replay/"):
            assert row["ppl"] > 0
            assert {entry["column"] for entry in row["unscored"]} == {"ifd", "length"}


def test_bad_wishes_are_named(scored):
    with pytest.raises(InputError, match=r"no score 'bpb'.*corpus score DIR"):
        select_rows(scored, Wish(top=0.1, by="bpb"))
    with pytest.raises(InputError, match="Did you mean 'length'"):
        select_rows(scored, Wish(top=0.1, by="lenght"))
    for wrong, said in (
        ({"by": "ifd"}, "--top"),
        ({"diverse": True}, "--top"),
        ({"top": 0.5}, "by which score"),
        ({"top": 0, "by": "ifd"}, "top = 0"),
        ({"top": 2.5, "by": "ifd"}, "neither a share nor"),
        ({"cap_source": 0}, "cap_source"),
        ({"replay_share": 1}, "no share"),
    ):
        with pytest.raises(InputError, match=said):
            Wish(**wrong)
    assert parse_limits(["ppl=2"], ["s-ifd=1.5"]) == (Limit("ppl", low=2), Limit("s-ifd", high=1.5))
    assert parse_quotas(["file:a=b.md=2"]) == (Quota("file", "a=b.md", 2.0),)
    for word in ("ppl", "=3", "ppl=x", "ppl=nan"):
        with pytest.raises(InputError, match="no score with a number"):
            parse_limits([word], [])
    for word in ("script=3", "script:Cyrl=0", "script:Cyrl=inf"):
        with pytest.raises(InputError, match="not understood"):
            parse_quotas([word])


def test_a_text_row_is_dropped_whole(scored):
    """A row of text has one source or many and no messages; none of them is lost."""
    rows = scored.rows.to_pylist()
    texts = [
        {**row, "messages": None, "text": " / ".join(m["content"] for m in row["messages"])}
        for row in rows
    ]
    table = pa.Table.from_pylist(texts, schema=scored.rows.schema)
    corpus = Corpus(table, scored.dropped, scored.report)
    chosen = select_rows(corpus, Wish(top=2, by="length")).corpus
    check_whole(corpus, chosen)
    assert sum(bool(row["text"]) for row in chosen.dropped.to_pylist()) == scored.report.train - 2


def test_passages_and_other_versions_go_with_their_rows(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    paragraph = "The river ran slowly past the mill, and nobody on the bridge said a word. " * 12
    (folder / "story.txt").write_text("\n\n".join([paragraph] * 30), encoding="utf-8")
    for number in range(4):
        first = MESSAGES.format(question=f"Q{number}?", answer=f"one {number}", uid=f"v{number}")
        second = MESSAGES.format(question="", answer=f"two {number}", uid=f"w{number}")
        again = second[second.index(">[!nexus_agent]") :]
        (folder / f"{number}.md").write_text(first + again, encoding="utf-8")
    corpus = build_corpus(folder, holdout=0, format="raw")
    assert (corpus.report.candidates, corpus.report.passages > 3) == (4, True)
    chosen = select_rows(corpus, Wish(top=4, diverse=True)).corpus
    before, after = (
        Counter((o["file"], o["item"], o["start"]) for row in rows for o in row["lineage"])
        for rows in (
            corpus.rows.to_pylist() + corpus.dropped.to_pylist(),
            chosen.rows.to_pylist() + chosen.dropped.to_pylist(),
        )
    )
    assert before == after
    report = chosen.report
    assert report.messages == corpus.report.messages == report.messages_in_rows + report.dropped
    kept = {row["id"] for row in chosen.rows.to_pylist()}
    left = corpus.rows.num_rows - len(kept)
    assert {row["row"] for row in chosen.candidates.to_pylist()} <= kept
    assert report.candidates == chosen.candidates.num_rows
    kinds = Counter(row["kind"] for row in chosen.dropped.to_pylist())
    assert kinds["message"] == report.dropped
    assert left == report.selections[-1].candidates - report.selections[-1].selected
    folder = chosen.save(tmp_path / "out")
    assert Corpus.load(folder).hash == chosen.hash
