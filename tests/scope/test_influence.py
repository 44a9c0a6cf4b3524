"""Rows behind a change: against gradients taken by hand, and against training without the rows."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from loratelier.adapter import Card
from loratelier.corpus import Corpus, build_corpus
from loratelier.kit.errors import InputError
from loratelier.scope.influence import rows_behind
from loratelier.scope.prompt import encode_prompt
from loratelier.train import load_recipe, train
from loratelier.train.objective import Sft
from tests.conftest import our_hooks

NOTE = """>[!nexus_user] **User** - 01.02.2025 at 10:00
> {question}
<!-- UID: 00000000-0000-4000-8000-{number:012d} -->

>[!nexus_agent] **Assistant** - 01.02.2025 at 10:01
> {answer}
<!-- UID: 00000000-0000-4000-9000-{number:012d} -->
"""

# Three voices, so that it is known which rows teach what.
TALK = {
    "sea": ("What does the {thing} say?", "The tide, the tide, the salt tide."),
    "clock": ("When is the {thing}?", "At nine. Tick, tick, at nine."),
    "лес": ("Куда ушёл {thing}?", "В лес, в тёмный лес, за ель."),
}
THINGS = ("door", "cup", "boat", "lamp", "shoe", "bell", "stone", "rope")


def write_notes(folder, without=frozenset()):
    folder.mkdir()
    number = 0
    for voice, (question, answer) in TALK.items():
        for thing in THINGS:
            number += 1
            name = f"{voice}-{thing}.md"
            if name not in without:
                text = NOTE.format(
                    number=number,
                    question=question.format(thing=thing),
                    answer=answer + " Yes." * (number % 3),
                )
                (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("influence")
    return build_corpus(write_notes(place / "notes"), holdout=0.1).save(place / "rows")


def quick(base, corpus, home, name="mine", **changes):
    """Train on the tiny base; it is random, so general text is there for the machinery only."""
    from loratelier.train import run

    given = {
        "base": "tiny",
        "corpus": str(corpus),
        "name": name,
        "rank": 2,
        "targets": "q,down",
        "epochs": 20,
        "max_steps": 12,
        "batch_tokens": 400,
        "learning_rate": 1e-2,
        "guards.drift_budget": "off",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORATELIER_HOME", str(home))
        patch.setattr(run, "general_text", lambda: ["The tide comes in.", "Bread rises."])
        return train(load_recipe(None, given | changes), base=base, replace=True)


@pytest.fixture(scope="module")
def trained(tiny_base, corpus_folder, tmp_path_factory):
    return quick(tiny_base, corpus_folder, tmp_path_factory.mktemp("home"))


def by_hand(base, adapter, rows, prompt, target, tmp_path):
    """Each row's push by PEFT alone: row by row, logits of the whole row, plain autograd."""
    import copy

    adapter.save(tmp_path / "by-hand", replace=True)
    model = PeftModel.from_pretrained(
        copy.deepcopy(base.model), tmp_path / "by-hand", is_trainable=True
    ).eval()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    over = list(named.values())

    def likelihood(ids, learned):
        ids = torch.tensor([ids])
        logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
        picked = logp[:-1].gather(1, ids[0, 1:, None])[:, 0]
        return (picked * torch.tensor(learned[1:])).sum()

    def slope(value):
        return torch.cat([g.flatten().double() for g in torch.autograd.grad(value, over)])

    ids = list(encode_prompt(base, prompt).ids)
    wanted = base.tokenizer(target, add_special_tokens=False)["input_ids"]
    aim = slope(likelihood(ids + wanted, [0] * len(ids) + [1] * len(wanted)))
    slopes = {row.row: slope(-likelihood(list(row.ids), list(row.learned))) for row in rows}
    return aim, slopes, {name: p.numel() for name, p in named.items()}


def learned_rows(base, corpus, adapter):
    from loratelier.train import Recipe

    recipe = Recipe.model_validate({**adapter.card.recipe, "corpus": "x"})
    return Sft().rows(base, corpus, recipe)[0]


ASKED = "What does the window say?"
WANTED = "The tide"


def test_a_push_is_the_inner_product_of_gradients_taken_by_hand(
    trained, tiny_base, corpus_folder, tmp_path
):
    corpus = Corpus.load(corpus_folder)
    seen = rows_behind(tiny_base, trained, corpus, ASKED, WANTED)
    rows = learned_rows(tiny_base, corpus, trained)
    aim, slopes, _ = by_hand(tiny_base, trained, rows, ASKED, WANTED, tmp_path)
    largest = max(float(abs(aim @ slope)) for slope in slopes.values())
    assert {one.row for one in seen.rows} == slopes.keys()
    for one in seen.rows:
        slope = slopes[one.row]
        expected = -float(aim @ slope)
        assert abs(one.push - expected) < 1e-4 * largest
        assert one.cosine == pytest.approx(expected / float(aim.norm() * slope.norm()), abs=1e-4)
        assert one.per_token == pytest.approx(one.push / one.tokens)


def test_datainf_is_its_closed_form_over_stored_gradients(
    trained, tiny_base, corpus_folder, tmp_path
):
    corpus = Corpus.load(corpus_folder)
    seen = rows_behind(tiny_base, trained, corpus, ASKED, WANTED, method="datainf")
    rows = learned_rows(tiny_base, corpus, trained)
    aim, slopes, sizes = by_hand(tiny_base, trained, rows, ASKED, WANTED, tmp_path)
    table = torch.stack(list(slopes.values()))
    sizes = list(sizes.values())
    expected = torch.zeros(len(table), dtype=torch.float64)
    # Dense inverses, block by block: what the closed form claims to be.
    for v, rows_here in zip(aim.split(sizes), table.split(sizes, dim=1), strict=True):
        damping = 0.1 * float(rows_here.square().sum(1).mean()) / len(v)
        eye = torch.eye(len(v), dtype=torch.float64)
        inverses = [torch.linalg.inv(torch.outer(g, g) + damping * eye) for g in rows_here]
        direction = torch.stack(inverses).mean(0) @ v
        expected -= rows_here @ direction
    got = {one.row: one.push for one in seen.rows}
    found = torch.tensor([got[name] for name in slopes], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


def test_a_step_on_a_row_moves_the_target_as_far_as_its_push_says(
    trained, tiny_base, corpus_folder, tmp_path
):
    corpus = Corpus.load(corpus_folder)
    seen = rows_behind(tiny_base, trained, corpus, ASKED, WANTED)
    rows = {row.row: row for row in learned_rows(tiny_base, corpus, trained)}
    one = seen.rows[0]
    _, slopes, sizes = by_hand(tiny_base, trained, [rows[one.row]], ASKED, WANTED, tmp_path)
    rate = 1e-5
    parts = dict(zip(sizes, slopes[one.row].float().split(list(sizes.values())), strict=True))
    stepped = {
        site: tuple(
            half - rate * parts[f"base_model.model.{site}.lora_{side}.default.weight"].view_as(half)
            for side, half in zip("AB", pair, strict=True)
        )
        for site, pair in trained.tensors.items()
    }
    later = rows_behind(tiny_base, replace(trained, tensors=stepped), corpus, ASKED, WANTED)
    assert later.after - seen.after == pytest.approx(rate * one.push, rel=0.1)


def test_the_rows_of_the_voice_that_is_asked_for_come_first(trained, tiny_base, corpus_folder):
    seen = rows_behind(tiny_base, trained, Corpus.load(corpus_folder), ASKED, WANTED)
    assert seen.moved > 0.5
    first = seen.ordered("cosine")[:5]
    assert all(one.sources[0].file.startswith("sea-") for one in first)
    one = first[0]
    assert one.asked.startswith("What does the")
    assert one.excerpt.startswith("The tide, the tide")
    assert [source.role for source in one.sources] == ["user", "assistant"]
    assert one.sources[1].uid.startswith("00000000-0000-4000-9000")
    text = (corpus_folder.parent / "notes" / one.sources[1].file).read_text(encoding="utf-8")
    assert "The tide" in text[one.sources[1].start : one.sources[1].end]


def test_russian_rows_stand_behind_a_russian_contrast(trained, tiny_base, corpus_folder):
    target = ("В лес", "The tide")
    seen = rows_behind(tiny_base, trained, Corpus.load(corpus_folder), "Куда ушёл кот?", target)
    by_file = [one.sources[0].file for one in seen.ordered("push")]
    assert all(file.startswith("лес-") for file in by_file[:3])
    assert all(file.startswith("sea-") for file in by_file[-3:])
    assert seen.rows[0].push > 0 > seen.rows[-1].push


def test_held_out_rows_pushed_nothing_and_are_not_named(trained, tiny_base, corpus_folder):
    corpus = Corpus.load(corpus_folder)
    seen = rows_behind(tiny_base, trained, corpus, ASKED, WANTED)
    splits = dict(
        zip(corpus.rows.column("id").to_pylist(), corpus.rows["split"].to_pylist(), strict=True)
    )
    assert "holdout" in splits.values()
    assert {splits[one.row] for one in seen.rows} == {"train"}


def test_the_start_of_training_is_drawn_again_and_added(trained, tiny_base, corpus_folder):
    corpus = Corpus.load(corpus_folder)
    end, start, both = (
        rows_behind(tiny_base, trained, corpus, ASKED, WANTED, points=points)
        for points in ("end", "start", "both")
    )
    pushes = [{one.row: one.push for one in seen.rows} for seen in (end, start, both)]
    for row, push in pushes[2].items():
        assert push == pytest.approx(pushes[0][row] + pushes[1][row], rel=1e-6, abs=1e-6)
    # Where training begins the adapter adds nothing: the value before is the base's all the same.
    assert start.before == end.before and start.after == end.after


def test_the_base_is_handed_back_as_it_came(trained, tiny_base, corpus_folder):
    ids = torch.arange(20)[None]
    before = tiny_base.model(input_ids=ids).logits
    rows_behind(tiny_base, trained, Corpus.load(corpus_folder), ASKED, WANTED, points="both")
    assert torch.equal(tiny_base.model(input_ids=ids).logits, before)
    assert not our_hooks(tiny_base.model)
    assert not any(p.requires_grad for p in tiny_base.model.parameters())
    assert not any("lora" in name for name, _ in tiny_base.model.named_parameters())


def test_the_document_is_json_and_keeps_both_ends(trained, tiny_base, corpus_folder):
    seen = rows_behind(tiny_base, trained, Corpus.load(corpus_folder), ASKED, WANTED)
    document = json.loads(json.dumps(seen.to_json(top=2, by="push"), allow_nan=False))
    assert [one["row"] for one in document["rows"]] == [
        one.row for one in (*seen.rows[:2], *seen.rows[-2:])
    ]
    assert document["rows_trained"] == len(seen.rows) > 4
    assert document["target"].startswith("log-probability of “The tide”")


def test_another_corpus_or_none_is_one_clear_line(
    trained, adapter, tiny_base, corpus_folder, tmp_path
):
    corpus = Corpus.load(corpus_folder)
    other = build_corpus(write_notes(tmp_path / "notes", {"sea-door.md"}), holdout=0.1)
    with pytest.raises(InputError, match="was trained on the corpus"):
        rows_behind(tiny_base, trained, other, ASKED, WANTED)
    with pytest.raises(InputError, match="names no corpus"):
        rows_behind(tiny_base, adapter, corpus, ASKED, WANTED)
    card = trained.card
    dpo = {**card.recipe, "objective": "dpo"}
    asked = replace(trained, card=card.model_copy(update={"recipe": dpo}))
    with pytest.raises(InputError, match="objective dpo"):
        rows_behind(tiny_base, asked, corpus, ASKED, WANTED)
    with pytest.raises(InputError, match="names no corpus"):
        rows_behind(tiny_base, replace(trained, card=Card()), corpus, ASKED, WANTED)


@pytest.mark.parametrize(
    ("target", "after", "says"),
    [
        ("", -1, "is empty"),
        (("a", "a"), -1, "with itself"),
        ("a", 999, "stands after number 999"),
    ],
)
def test_a_target_that_is_none_is_refused(target, after, says, trained, tiny_base, corpus_folder):
    with pytest.raises(InputError, match=says):
        rows_behind(tiny_base, trained, Corpus.load(corpus_folder), ASKED, target, after=after)


def test_guards_and_masks_of_the_training_are_those_of_the_gradients(
    tiny_base, corpus_folder, tmp_path
):
    corpus = Corpus.load(corpus_folder)
    masked = quick(tiny_base, corpus_folder, tmp_path, **{"guards.token_mask": 259.0})
    plain = learned_rows(tiny_base, corpus, masked)
    seen = rows_behind(tiny_base, masked, corpus, ASKED, WANTED)
    assert sum(one.tokens for one in seen.rows) < sum(row.targets for row in plain)


def leaving_out(base, tmp_path, files, name):
    """The target after training without some notes: same seed, same steps."""
    notes = write_notes(tmp_path / name, files)
    rows = build_corpus(notes, holdout=0.1).save(tmp_path / f"{name}-rows")
    made = quick(base, rows, tmp_path, name)
    return rows_behind(base, made, Corpus.load(rows), ASKED, WANTED).after


def test_training_without_the_rows_that_pushed_most_loses_most(
    trained, tiny_base, corpus_folder, tmp_path
):
    seen = rows_behind(tiny_base, trained, Corpus.load(corpus_folder), ASKED, WANTED)
    ordered = [one.sources[0].file for one in seen.ordered("cosine")]
    count = 6
    shuffled = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(0)).tolist()
    left_out = {
        "top": set(ordered[:count]),
        "random": {ordered[n] for n in shuffled[:count]},
        "bottom": set(ordered[-count:]),
    }
    after = {
        name: leaving_out(tiny_base, tmp_path, files, name) for name, files in left_out.items()
    }
    lost = {name: seen.after - value for name, value in after.items()}
    assert lost["top"] > lost["random"] and lost["top"] > lost["bottom"]
    assert lost["top"] > 0.3 * seen.moved
    assert lost["bottom"] < 0.1 * seen.moved
