"""Scores against a reference that scores one answer at a time, by hand and with transformers."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from loratelier.base import Base
from loratelier.corpus import Corpus, build_corpus
from loratelier.corpus.score import (
    Settings,
    Unscored,
    compare,
    parse_metrics,
    score_corpus,
    score_rows,
    spearman,
)
from loratelier.corpus.score import forward as forward_module
from loratelier.corpus.score.cache import cache_file
from loratelier.corpus.score.layout import lay_out
from loratelier.kit.errors import InputError
from tests.conftest import make_tiny

ALL = "ppl,bpb,ifd,ifd-ppl-ratio,s-ifd,length,token-mask"


def chat(*contents, system=None):
    roles = ("user", "assistant")
    said = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + said}


ROWS = [
    chat("How does bread rise?", "Yeast eats sugar and breathes out gas."),
    chat("Почему?", "Потому что ёж тоже спит. 🦔", "А зимой?", "Тем более."),
    chat("Say it twice.", "twice", "Again.", "twice", "And again.", "twice, twice"),
    chat("Short.", "A much longer answer, " * 12, system="You speak slowly."),
]


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test has an empty cache."""


def reference(base, row):
    """Losses of each answer, given its prompt and alone: one forward pass each, full logits."""
    tokenizer, messages = base.tokenizer, row["messages"]
    pairs = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.apply_chat_template(
            messages[:index], tokenize=False, add_generation_prompt=True
        )
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        through = tokenizer(prompt + message["content"], add_special_tokens=False)["input_ids"]
        assert through[: len(before)] == before
        answer = through[len(before) :]
        pairs.append((_losses(base, through)[len(before) - 1 :], _losses(base, answer)))
    return pairs


def _losses(base, ids):
    with torch.no_grad():
        logits = base.model(input_ids=torch.tensor([ids], device=base.device)).logits[0, :-1]
    found = torch.nn.functional.cross_entropy(
        logits, torch.tensor(ids[1:], device=base.device), reduction="none"
    )
    return found.double().cpu().numpy()


def by_hand(base, rows, keep=0.5):
    """The scores of rows from the reference; an answer's first token has no run alone."""
    given, after, alone, size = [], [], [], []
    for row in rows:
        pairs = reference(base, row)
        given.append(np.concatenate([one for one, _ in pairs]))
        after.append(np.concatenate([one[1:] for one, _ in pairs]))
        alone.append(np.concatenate([two for _, two in pairs]))
        texts = (m["content"] for m in row["messages"] if m["role"] == "assistant")
        size.append(sum(len(text.encode()) for text in texts))
    moved = [a - b for a, b in zip(after, alone, strict=True)]
    cut = np.quantile(np.abs(np.concatenate(moved)), 1 - keep)
    return {
        "ppl": [np.exp(g.mean()) for g in given],
        "bpb": [g.sum() / np.log(2) / s for g, s in zip(given, size, strict=True)],
        "ifd": [a.mean() / b.mean() for a, b in zip(after, alone, strict=True)],
        "ifd-ppl-ratio": [np.exp(d.mean()) for d in moved],
        "s-ifd": [np.exp(d[np.abs(d) > cut].mean()) for d in moved],
        "length": [len(g) for g in given],
    }


def reason(value):
    assert isinstance(value, Unscored), value
    return value.reason


def test_scores_equal_one_row_at_a_time(tiny_base):
    scores = score_rows(ROWS, tiny_base, ALL)
    expected = by_hand(tiny_base, ROWS)
    for column, values in expected.items():
        assert scores.values[column] == pytest.approx(values, abs=1e-4), column
    assert score_rows(ROWS, tiny_base, "ifd-loss-ratio").values["ifd-loss-ratio"] == pytest.approx(
        expected["ifd"], abs=1e-4
    )


def test_the_demo_base_agrees_too(demo_base):
    rows = [
        chat("Why do I delay?", "Because the delay is the work, seen from behind."),
        chat("Is silence an answer?", "It is the only one.", "And noise?", "Noise is a question."),
    ]
    scores = score_rows(rows, demo_base, ALL)
    for column, values in by_hand(demo_base, rows).items():
        assert scores.values[column] == pytest.approx(values, abs=1e-4), column


def test_the_losses_are_those_of_exact_arithmetic(tiny_base):
    """float32 sums over a large vocabulary sit a little low; the scores stay within 1e-4 of it."""
    twin = Base.of(make_tiny()[0].double(), tiny_base.tokenizer, name="twin")
    (losses, _), *_ = reference(twin, ROWS[3])
    found = score_rows(ROWS[3:], tiny_base, "ppl").values["ppl"]
    assert found == pytest.approx([math.exp(losses.mean())], rel=1e-4)


def test_a_row_scores_the_same_in_any_company(tiny_base, home):
    together = score_rows(ROWS, tiny_base, "ppl,ifd").values
    cache_file(tiny_base).unlink()
    apart = [score_rows([row], tiny_base, "ppl,ifd").values for row in ROWS]
    for column in ("ppl", "ifd"):
        assert together[column] == pytest.approx([one[column][0] for one in apart], rel=1e-5)


def test_formulas_on_a_worked_case():
    """Two tokens of 1 and 3 nats after the prompt, of 2 and 3 alone, spelling 4 bytes."""
    from loratelier.corpus.score import metrics as m

    given, alone = np.float32([1, 3]), np.float32([2, 3])
    said = m.Likelihood(given, 4, (given, alone))
    assert m.perplexity(said) == pytest.approx(math.exp(2))
    assert m.bits_per_byte(said) == pytest.approx(4 / math.log(2) / 4)
    assert m.ifd_loss_ratio(said) == pytest.approx(2 / 2.5)
    assert m.ifd_ppl_ratio(said) == pytest.approx(math.exp(2 - 2.5))
    # |change| is 1 and 0: half of the tokens exceed the median 0.5, and they changed by -1.
    assert m.change_threshold([said], 0.5) == pytest.approx(0.5)
    assert m.selective_ifd(said, 0.5) == pytest.approx(math.exp(-1))
    assert reason(m.selective_ifd(said, 1.0)) == "the prompt moves no token by more than 1 nats"
    assert m.hard_tokens(np.float32([0.9, 0.93]), 2.5) == [False, True]
    assert isinstance(m.perplexity(m.Likelihood(np.float32([800]), 1, said.pair)), Unscored)


def test_what_cannot_be_scored_says_why_and_is_no_number(tiny_base):
    rows = [
        {"messages": [{"role": "user", "content": "only asked"}]},
        chat("empty?", "  \n"),
        chat("one byte", "a"),
        {"text": "Plain prose without a question."},
        {"text": "x"},
        {"text": "", "messages": None},
        chat("too long", "word " * 500),
        ROWS[0],
    ]
    found = score_rows(rows, tiny_base, "ppl,ifd,s-ifd,bpb").values
    assert reason(found["ppl"][0]) == "no message of the assistant"
    assert reason(found["ifd"][1]) == "message 2 is empty"
    assert isinstance(found["ppl"][2], float)
    assert "one token" in reason(found["ifd"][2])
    assert isinstance(found["bpb"][3], float)
    assert "no question" in reason(found["s-ifd"][3])
    assert "one token" in reason(found["ppl"][4])
    assert reason(found["ppl"][5]) == "the row is empty"
    assert "made for 2048" in reason(found["ppl"][6])
    numbers = [value for values in found.values() for value in values if isinstance(value, float)]
    assert len(numbers) == 3 + 3 + 1 + 1
    assert all(math.isfinite(number) and number > 0 for number in numbers)


def test_a_base_that_breaks_gives_reasons_not_nan(tiny_base):
    model, tokenizer = make_tiny(seed=3)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    found = score_rows(ROWS[:2], Base.of(model, tokenizer, name="broken"), "ppl,ifd").values
    assert reason(found["ppl"][0]) == "the base gives no finite likelihood"
    assert reason(found["ifd"][1]) == "the base gives no finite likelihood"


def test_plain_text_is_scored_whole_but_its_first_token(tiny_base):
    text = "Ёж спит. Bread rises."
    ids = tiny_base.tokenizer(text)["input_ids"]
    losses = _losses(tiny_base, ids)
    found = score_rows([{"text": text}], tiny_base, "ppl,bpb,length").values
    assert found["length"] == [len(ids) - 1]
    assert found["ppl"] == pytest.approx([math.exp(losses.mean())], abs=1e-4)
    # The first letter has two bytes, and each is a token: the second one starts at the same letter.
    size = len(text.encode())
    assert found["bpb"] == pytest.approx([losses.sum() / math.log(2) / size], abs=1e-4)


def test_a_base_that_starts_texts_with_a_token_scores_the_first_word_too():
    from tokenizers import processors

    model, tokenizer = make_tiny(seed=1)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    base = Base.of(model, tokenizer, name="with start")
    row = ROWS[0]
    ((given, _),) = reference(base, row)
    answer = tokenizer(row["messages"][1]["content"], add_special_tokens=False)["input_ids"]
    alone = _losses(base, [0, *answer])
    assert len(alone) == len(given) == len(answer)
    found = score_rows([row], base, "ifd,length").values
    assert found["ifd"] == pytest.approx([given.mean() / alone.mean()], abs=1e-4)
    assert found["length"] == [len(answer)]


def test_the_answer_is_found_by_place_and_not_by_its_words(tiny_base):
    """The question ends with the words of the answer, and the template says "assistant" itself."""
    for answer in ("assistant", "yes", "user\nyes"):
        row = chat(f"say {answer}", answer, f"and {answer} again, {answer}", answer)
        layout = lay_out(tiny_base, row)
        ids = tuple(tiny_base.tokenizer(answer)["input_ids"])
        assert [one.ids for one in layout.answers] == [ids, ids]
        (passage,) = layout.given
        said = tiny_base.tokenizer.decode([passage.ids[place] for place in passage.places])
        assert said == answer * 2
        # What stands right before each answer is the opening of its turn.
        text = tiny_base.tokenizer.decode(passage.ids[: passage.places[0]])
        assert text.endswith("<|im_start|>assistant\n")
        assert passage.places[-1] == len(passage.ids) - 1


def with_template(template):
    model, tokenizer = make_tiny(seed=2)
    tokenizer.chat_template = template
    return Base.of(model, tokenizer, name="templated")


def test_a_template_that_rewrites_earlier_turns_is_scored_turn_by_turn():
    base = with_template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    row = chat("Where?", " think", "And?", "There. ")
    layout = lay_out(base, row)
    assert len(layout.given) == 2
    for passage, answer in zip(layout.given, ("think", "There."), strict=True):
        assert base.tokenizer.decode(passage.ids).endswith(f"</think>\n\n{answer}")
        said = base.tokenizer.decode([passage.ids[place] for place in passage.places])
        assert said == answer
    losses = np.concatenate(
        [_losses(base, list(one.ids))[np.array(one.places) - 1] for one in layout.given]
    )
    found = score_rows([row], base, "ppl").values["ppl"]
    assert found == pytest.approx([math.exp(losses.mean())], abs=1e-4)


def test_a_template_that_cannot_take_a_row_is_named():
    refusing = with_template(
        "{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('no system here') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    found = score_rows([chat("a", "b", system="c")], refusing, "ppl").values["ppl"]
    assert "no system here" in reason(found[0])
    shouting = with_template("{% for m in messages %}|{{ m.content | upper }}{% endfor %}")
    found = score_rows([chat("a", "b")], shouting, "ppl").values["ppl"]
    assert reason(found[0]) == "the chat template rewrites message 2"
    with pytest.raises(InputError, match="no chat template"):
        score_rows([chat("a", "b")], with_template(None), "ppl")


def test_logits_that_a_model_changes_after_its_head_are_its_own(tiny_base):
    """A model that caps its logits is scored through its own forward."""

    class Capped(type(tiny_base.model)):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = 0.1 * torch.tanh(out.logits / 0.1)
            return out

    model, tokenizer = make_tiny(seed=4)
    base = Base.of(Capped(model.config).eval(), tokenizer, name="capped")
    assert score_rows(ROWS, base, "ppl").values["ppl"] == pytest.approx(
        by_hand(base, ROWS)["ppl"], abs=1e-4
    )


def test_logits_are_made_in_small_chunks_at_scored_places_only(tiny_base, monkeypatch):
    made = []
    head = tiny_base.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, out: made.append(out.shape))
    monkeypatch.setitem(forward_module._CHUNK, "cpu", 0)
    try:
        scores = score_rows(ROWS, tiny_base, "ppl")
    finally:
        hook.remove()
    # One probe of 8 places through the model, one through decoder and head, then the chunks.
    chunks = made[2:]
    assert max(shape[0] for shape in chunks) == 16
    scored = sum(score_rows(ROWS, tiny_base, "length").values["length"])
    assert sum(shape[0] for shape in chunks) == scored
    assert scores.values["ppl"] == pytest.approx(by_hand(tiny_base, ROWS)["ppl"], abs=1e-4)


def test_what_was_computed_is_kept_by_content_and_base(tiny_base, home):
    first = score_rows(ROWS, tiny_base, ALL)
    again = score_rows(list(reversed(ROWS)), tiny_base, ALL)
    assert (first.kept, again.read, again.kept) == (0, 0, first.passages)
    assert again.values["ppl"] == list(reversed(first.values["ppl"]))
    changed = score_rows([chat("How does bread rise?", "Slowly.")], tiny_base, "ppl,ifd")
    assert (changed.kept, changed.passages) == (0, 2)
    other = Base.of(*make_tiny(seed=9), name="other")
    assert score_rows(ROWS, other, ALL).kept == 0


def test_a_damaged_cache_is_set_aside(tiny_base, home):
    expected = score_rows(ROWS, tiny_base, "ppl").values
    path = cache_file(tiny_base)
    for side in path.parent.iterdir():
        side.unlink()
    path.write_bytes(b"no database" * 500)
    assert score_rows(ROWS, tiny_base, "ppl").values == expected
    assert path.with_suffix(".damaged").exists()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM losses").fetchone() == (len(ROWS),)


KILLED = """
import os, signal, sys
from loratelier.base import load_base
from loratelier.corpus.score import cache, forward, score_rows
from tests.corpus.test_scores import ROWS

forward._BATCH["cpu"] = 1
written = []
write = cache.Cache.write
def dying(self, found):
    write(self, found)
    written.append(1)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
cache.Cache.write = dying
score_rows(ROWS, load_base(sys.argv[1]), "ppl,ifd")
"""


def test_a_killed_run_goes_on_where_it_was(tiny_base, tiny_base_dir, home):
    root = os.fspath(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tiny_base_dir)],
        env={**os.environ, "PYTHONPATH": f"{root}/src:{root}"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    after = score_rows(ROWS, tiny_base, "ppl,ifd")
    assert after.kept == 3
    assert after.values["ifd"] == pytest.approx(by_hand(tiny_base, ROWS)["ifd"], abs=1e-4)


def test_novelty_is_the_distance_to_the_nearest_other_row():
    rows = [
        chat("One thing.", "The sea was grey and nobody spoke."),
        chat("One thing.", "The sea was grey, and nobody spoke!"),
        chat("Число?", "Сорок два, как обычно."),
    ]
    near, twin, far = score_rows(rows, None, "novelty").values["novelty"]
    assert near == pytest.approx(twin)
    assert 0 < near < 0.4 < far <= 1
    same = score_rows([rows[0], rows[0]], None, "novelty").values["novelty"]
    assert same == pytest.approx([0, 0], abs=1e-6)
    (alone,) = score_rows(rows[:1], None, "novelty").values["novelty"]
    assert reason(alone) == "there is no other row"
    with pytest.raises(InputError, match="need a base"):
        score_rows(rows, None, "novelty,ppl")


def test_names_of_metrics():
    assert parse_metrics(" ppl, ifd ,ppl") == ("ppl", "ifd")
    with pytest.raises(InputError, match="Did you mean 's-ifd'"):
        parse_metrics("ppl,s_ifd")
    with pytest.raises(InputError, match="No metric"):
        parse_metrics(",")
    with pytest.raises(InputError, match="keep"):
        Settings(keep=1.5)
    with pytest.raises(InputError, match="mask_above"):
        Settings(mask_above=0.5)


def test_rank_correlation_by_hand():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 1], [1, 2]) is None
    assert spearman([1], [1]) is None


def test_two_bases_are_compared_where_both_have_a_score(tiny_base):
    other = Base.of(*make_tiny(seed=9), name="other")
    rows = [*ROWS, chat("one byte", "a"), {"text": "Plain prose."}]
    ours, theirs = (score_rows(rows, base, "ppl,ifd,novelty") for base in (tiny_base, other))
    note = compare(ours, theirs, tiny_base, other)
    assert note.rows == {"ppl": 6, "ifd": 4}
    by_rank = spearman(ours.values["ppl"], theirs.values["ppl"])
    assert note.spearman["ppl"] == pytest.approx(by_rank)
    assert compare(ours, ours, tiny_base, tiny_base).spearman["ifd"] == pytest.approx(1)


NOTE = """>[!nexus_user] **User** - t
> {question}
<!-- UID: {uid}q -->

>[!nexus_agent] **Assistant** - t
> {answer}
<!-- UID: {uid}a -->
"""


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    texts = [("Why?", "Because the tide turns."), ("Где?", "Там, где тихо."), ("How?", "a")]
    for number, (question, answer) in enumerate(texts):
        note = NOTE.format(question=question, answer=answer, uid=f"u{number}")
        (folder / f"{number}.md").write_text(note, encoding="utf-8")
    return build_corpus(folder)


def test_columns_and_their_notes_are_kept_with_the_corpus(corpus, tiny_base, tmp_path):
    scored = score_corpus(corpus, tiny_base, "ppl,ifd,length,token-mask").corpus
    folder = scored.save(tmp_path / "scored")
    loaded = Corpus.load(folder)
    assert loaded.rows.column_names[-5:] == ["ppl", "ifd", "length", "token-mask", "unscored"]
    assert loaded.hash == scored.hash != corpus.hash
    rows = {row["messages"][0]["content"]: row for row in loaded.rows.to_pylist()}
    assert rows["How?"]["ifd"] is None
    (why,) = rows["How?"]["unscored"]
    assert why["column"] == "ifd"
    assert "one token" in why["reason"]
    assert rows["Why?"]["unscored"] == []
    (mask,) = rows["Why?"]["token-mask"]
    assert mask["message"] == 1
    assert tiny_base.tokenizer.decode(mask["ids"]) == "Because the tide turns."
    assert len(mask["loss"]) == len(mask["hard"]) == rows["Why?"]["length"] == len(mask["ids"])
    assert mask["hard"] == [loss > math.log(2.5) for loss in mask["loss"]]
    assert math.exp(np.mean(mask["loss"])) == pytest.approx(rows["Why?"]["ppl"])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    notes = {note["column"]: note for note in manifest["scores"]}
    assert notes["ifd"]["metric"] == "ifd-loss-ratio"
    assert notes["ifd"]["base"]["fingerprint"] == tiny_base.fingerprint
    assert (notes["ifd"]["scored"], notes["ifd"]["unscored"], notes["ifd"]["version"]) == (2, 1, 1)
    assert notes["token-mask"]["settings"]["above"] == 2.5


def test_the_hash_covers_who_scored(corpus, tiny_base, tmp_path):
    scored = score_corpus(corpus, tiny_base, "ppl").corpus
    folder = scored.save(tmp_path / "scored")
    manifest = (folder / "manifest.json").read_text(encoding="utf-8")
    forged = manifest.replace(tiny_base.fingerprint, "sha256:another")
    (folder / "manifest.json").write_text(forged, encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        Corpus.load(folder)


def test_scoring_again_replaces_its_own_columns_only(corpus, tiny_base):
    first = score_corpus(corpus, tiny_base, "ifd,ppl").corpus
    other = Base.of(*make_tiny(seed=9), name="other")
    second = score_corpus(first, other, "ppl").corpus
    assert second.rows.column("ifd").equals(first.rows.column("ifd"))
    assert not second.rows.column("ppl").equals(first.rows.column("ppl"))
    assert [(note.column, note.base.name) for note in second.report.scores] == [
        ("ifd", "tiny"),
        ("ppl", "other"),
    ]
    (row,) = [row for row in second.rows.to_pylist() if row["unscored"]]
    assert [entry["column"] for entry in row["unscored"]] == ["ifd"]
