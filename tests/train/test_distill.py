"""Distillation: its loss against a dense closed form, its teachers, and the file of shares."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from loratelier.adapter import store
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.base.packed import rows_apart
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.train import load_recipe, train
from loratelier.train.distill import Distillation
from loratelier.train.learner import Learner
from loratelier.train.model import wrap
from loratelier.train.rows import examples
from loratelier.train.steps import Cut, step_of
from loratelier.train.teacher import teach
from tests.conftest import make_tiny


@pytest.fixture(scope="module")
def able_base():
    """A tiny base with an output layer that can tell tokens apart: the plain one's is too faint."""
    model, tokenizer = make_tiny(tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(15)
    return Base.of(model, tokenizer, name="tiny")


@pytest.fixture
def distilled(corpus):
    def make(**changes):
        given = {
            "base": "tiny",
            "corpus": str(corpus),
            "name": "pupil",
            "objective": "distill",
            "rank": 8,
            "epochs": 3,
            "batch_tokens": 400,
            "learning_rate": 1e-2,
            "guards.drift_budget": "off",
        }
        return load_recipe(None, given | changes)

    return make


@pytest.fixture
def teacher_dir(tmp_path):
    """A base of another shape with the same tokenizer."""
    model, tokenizer = make_tiny(seed=9, hidden_size=32, num_hidden_layers=1)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # so that its distributions are far from even
    model.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.mark.parametrize(("temperature", "hard"), [(1.0, 0.0), (2.0, 0.3), (0.5, 0.0)])
@pytest.mark.parametrize("adapted_head", [False, True])
def test_loss_and_gradient_are_those_of_whole_distributions(
    distilled, teacher_dir, temperature, hard, adapted_head, home
):
    """With every token of the vocabulary kept, nothing is approximate."""
    model, tokenizer = make_tiny(seed=2, tie_word_embeddings=False)
    base = Base.of(model, tokenizer, name="tiny")
    given = {"distill.teacher": str(teacher_dir), "distill.top": 259}
    given |= {"distill.temperature": temperature, "distill.hard": hard}
    recipe = distilled(**given)
    corpus = Corpus.load(recipe.corpus)
    objective = Distillation.of(base, corpus, recipe, recipe.distill)
    rows = objective.rows(base, corpus, recipe)[0]
    peft = wrap(base, recipe)
    if adapted_head:
        model.lm_head.weight.requires_grad_(True)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in peft.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn_like(p) * 0.1)
    trained = [p for p in peft.parameters() if p.requires_grad]
    with rows_apart(model) as apart:
        learner = Learner(model, peft, apart, recipe)
        packs = step_of(rows, Cut(step=10_000, pack=300), objective.lay).packs
        assert len(packs) > 2
        losses = [objective.loss(learner, pack) for pack in packs]
        ours = torch.autograd.grad(sum(losses), trained)
    other = type(model).from_pretrained(teacher_dir).eval()
    wanted, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.ids])
        places = torch.tensor([n for n, flag in enumerate(row.learned) if flag])
        with torch.no_grad():
            q = (other(ids).logits[0, places - 1] / temperature).softmax(-1)
        logits = model(ids).logits[0, places - 1]
        soft = -(q * (logits / temperature).log_softmax(-1)).sum() * temperature**2
        own = -logits.log_softmax(-1).gather(1, ids[0, places][:, None]).sum()
        wanted = wanted + (1 - hard) * soft + hard * own
        count += len(places)
    wanted = wanted / count
    theirs = torch.autograd.grad(wanted, trained)
    assert float(sum(losses).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for one, another in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, another, atol=1e-5, rtol=1e-4)


def test_another_base_teaches(able_base, distilled, teacher_dir, home):
    wanted = distilled(epochs=8, **{"distill.teacher": str(teacher_dir)})
    metrics = train(wanted, base=able_base).card.metrics
    assert metrics["held_out_kl"] < 0.8 * metrics["held_out_kl_base"]
    assert metrics["held_out_loss"] < metrics["held_out_loss_base"]
    best = min(metrics["curve"][1:], key=lambda point: point["held_out"]["loss"])
    assert metrics["kept_step"] == best["step"]


def test_an_adapter_teaches_what_it_expects(able_base, recipe, distilled, home):
    made = train(recipe(name="master", epochs=4), base=able_base)
    wanted = distilled(epochs=8, **{"distill.teacher": "master"})
    rows = examples(able_base, Corpus.load(wanted.corpus), wanted)
    objective = Distillation.of(able_base, Corpus.load(wanted.corpus), wanted, wanted.distill)
    row = rows[0]
    place = max(n for n, flag in enumerate(row.learned) if flag)
    bank = AdapterBank(able_base.model)
    bank.add("master", made)
    with torch.no_grad(), bank.activate("master"):
        likely = able_base.model(torch.tensor([row.ids])).logits[0, place - 1].softmax(-1)
    ids, shares = objective._given[row.row].places[place]
    assert len(ids) == 32
    torch.testing.assert_close(shares, likely[ids], atol=1e-5, rtol=1e-3)
    metrics = train(wanted, base=able_base).card.metrics
    assert metrics["held_out_kl"] < 0.3 * metrics["held_out_kl_base"]
    assert metrics["held_out_nll"] < metrics["held_out_nll_base"]


def test_a_file_takes_the_teachers_place_exactly(tiny_base, distilled, teacher_dir, home, tmp_path):
    asked = distilled(**{"distill.teacher": str(teacher_dir), "distill.temperature": 2.0})
    file = teach(asked, tmp_path / "shares.parquet", base=tiny_base)
    read = distilled(name="other", **{"distill.file": str(file), "distill.temperature": 2.0})
    assert train(read, base=tiny_base).digest == train(asked, base=tiny_base).digest


def test_a_hand_written_file_moves_what_it_names(able_base, distilled, home, tmp_path):
    """One place of each row: 'Turn' may as well be 'Look' there."""
    wanted = distilled(epochs=20, patience=9, **{"distill.file": str(tmp_path / "hand.parquet")})
    first = {}
    for row in examples(able_base, Corpus.load(wanted.corpus), wanted):
        first[row.row] = row.learned.index(True)
    turn, look = (able_base.tokenizer.convert_tokens_to_ids(letter) for letter in "TL")
    lines = [
        {"row": name, "place": place, "ids": [turn, look], "shares": [1.0, 3.0]}
        for name, place in first.items()
    ]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "hand.parquet")
    adapter = train(wanted, base=able_base)
    assert adapter.card.metrics["held_out_kl"] < 0.1
    bank = AdapterBank(able_base.model)
    bank.add("pupil", store.path_of("pupil"))
    row = examples(able_base, Corpus.load(wanted.corpus), wanted)[0]
    ids = torch.tensor([row.ids[: first[row.row]]])
    with torch.no_grad(), bank.activate("pupil"):
        likely = able_base.model(ids).logits[0, -1].softmax(-1)
    assert float(likely[turn]) == pytest.approx(0.25, abs=0.1)
    assert float(likely[look]) == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"row": "nobody"}, "the corpus has no such row"),
        ({"place": 0}, "the token there is not learned"),
        ({"place": 9999}, "the row has the places 0 to"),
        ({"ids": [5]}, "it has 1 ids and 2 shares"),
        ({"ids": [5, 5]}, "a token stands there twice"),
        ({"ids": [5, 70000]}, "the base has no token 70000"),
        ({"shares": [0.5, -0.1]}, "a share is no number from 0 up"),
        ({"shares": [0.5, float("nan")]}, "a share is no number from 0 up"),
        ({"shares": [0.0, 0.0]}, "all shares are 0"),
        ({}, "the place stands there twice"),
    ],
)
def test_a_bad_line_is_named(tiny_base, distilled, home, tmp_path, change, told):
    file = tmp_path / "shares.parquet"
    wanted = distilled(**{"distill.file": str(file)})
    row = examples(tiny_base, Corpus.load(wanted.corpus), wanted)[3]
    good = {"row": row.row, "place": row.learned.index(True), "ids": [5, 6], "shares": [0.5, 0.2]}
    pq.write_table(pa.Table.from_pylist([good, good | change]), file)
    with pytest.raises(InputError, match=rf"shares\.parquet, line 2 \(row .*\): {told}"):
        train(wanted, base=tiny_base)


def test_files_and_teachers_that_do_not_fit_are_refused(
    tiny_base, distilled, home, tmp_path, teacher_dir
):
    with pytest.raises(InputError, match="There is no file .*none.parquet"):
        train(distilled(**{"distill.file": str(tmp_path / "none.parquet")}), base=tiny_base)
    pq.write_table(pa.table({"row": ["a"], "place": [1]}), tmp_path / "short.parquet")
    with pytest.raises(InputError, match="has no column 'ids'"):
        train(distilled(**{"distill.file": str(tmp_path / "short.parquet")}), base=tiny_base)
    words = json.loads((teacher_dir / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (teacher_dir / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match="another tokenizer than tiny"):
        train(distilled(**{"distill.teacher": str(teacher_dir)}), base=tiny_base)


def test_recipes_say_where_distributions_come_from(distilled):
    with pytest.raises(InputError, match=r"learns from distill\.teacher or from distill\.file"):
        distilled()
    with pytest.raises(InputError, match="distill: give either teacher or file"):
        distilled(**{"distill.teacher": "a", "distill.file": "b"})
    with pytest.raises(InputError, match="'distill' is read by objective distill"):
        distilled(objective="sft", **{"distill.teacher": "a"})
