"""What each guard is, against a dense reference; and what it does to a run."""

import copy
import dataclasses
from itertools import chain

import pytest
import torch
from torch.nn import functional as F

from loratelier.adapter import store
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.base.likelihood import bits_per_byte
from loratelier.base.packed import rows_apart
from loratelier.corpus import Corpus
from loratelier.corpus.score import score_corpus
from loratelier.kit.errors import InputError
from loratelier.train import load_recipe, train
from loratelier.train import loop as loop_module
from loratelier.train import run as run_module
from loratelier.train import token_mask as token_mask_module
from loratelier.train.learner import Learner
from loratelier.train.model import wrap
from loratelier.train.packing import pack
from loratelier.train.replay import general_rows, with_replay
from loratelier.train.rows import examples, split
from loratelier.train.steps import Cut, epoch_steps
from loratelier.train.token_mask import mask_tokens
from tests.conftest import make_tiny

PROSE = (
    "Wool is washed before it is spun, since it is full of fat.\n\n"
    "Пароход отходил в семь, и на пристани уже стояли люди с корзинами.\n\n"
    "A tide table is made for one harbour, and is of no use in the next one along the coast."
)
ALL_ON = {
    "guards.drift_budget": 0.02,
    "guards.strength": "auto",
    "guards.replay": 0.25,
    "guards.replay_kl": 2.0,
    "guards.kl": 0.3,
    "guards.token_mask": 250,
    "guards.norm": 1e-3,
}


@pytest.fixture
def prose(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path


@pytest.fixture
def worn(tiny_base, recipe):
    """A learner over a tiny model whose adapter has an effect, and two packs of rows."""
    opened = []

    def make(**guards):
        given = recipe(**{f"guards.{key}": value for key, value in guards.items()})
        base = dataclasses.replace(tiny_base, model=copy.deepcopy(tiny_base.model))
        peft = wrap(base, given)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        apart = rows_apart(base.model)
        opened.append(apart)
        learner = Learner(base.model, peft, apart.__enter__(), given)
        rows = examples(base, Corpus.load(given.corpus), given)[:4]
        (packed,) = pack(rows, 10_000)
        return learner, dataclasses.replace(packed, weights=packed.weights / packed.targets), peft

    yield make
    for apart in opened:
        apart.__exit__(None, None, None)


def gradients(learner, loss):
    learner.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}


def dense_logits(learner, each):
    return learner.reader.logits(each.ids, each.lengths, each.places)


def dense_kl(learner, each):
    with torch.no_grad(), learner.gate_closed():
        base = dense_logits(learner, each).log_softmax(-1)
    ours = dense_logits(learner, each).log_softmax(-1)
    return (base.exp() * (base - ours)).sum(-1)


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert any("lora_A" in name for name in ours)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-6, rtol=1e-4)


def test_the_kl_term_is_the_dense_one_and_so_is_its_gradient(worn):
    learner, each, _ = worn(kl=0.7)
    logits = dense_logits(learner, each)
    nll = F.cross_entropy(logits, each.labels, reduction="none")
    expected = ((nll + 0.7 * dense_kl(learner, each)) * each.weights).sum()
    theirs = gradients(learner, expected)
    loss = learner(Learner.loss, each)
    assert float(dense_kl(learner, each).detach().min()) > 1e-4  # there is something to measure
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    same(gradients(learner, loss), theirs)


def test_replayed_rows_are_held_to_the_base_or_learned(worn):
    learner, each, _ = worn(replay=0.2, replay_kl=3)
    replayed = dataclasses.replace(each, replayed=True)
    expected = 3 * (dense_kl(learner, each) * each.weights).sum()
    theirs = gradients(learner, expected)
    torch.testing.assert_close(learner(Learner.loss, replayed), expected, atol=1e-6, rtol=1e-5)
    same(gradients(learner, learner(Learner.loss, replayed)), theirs)
    learner, each, _ = worn(replay=0.2, replay_kl="off")
    nll = F.cross_entropy(dense_logits(learner, each), each.labels)
    replayed = dataclasses.replace(each, replayed=True)
    torch.testing.assert_close(learner(Learner.loss, replayed), nll * 0.25, atol=1e-6, rtol=1e-5)


def test_an_adapter_without_effect_has_no_kl_and_no_norm(worn):
    learner, each, _ = worn(kl=5, norm=5)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    torch.testing.assert_close(
        learner(Learner.loss, each), (learner.nll(each) * each.weights).sum()
    )


def test_the_norm_penalty_is_the_dense_frobenius_norm(worn):
    learner, each, peft = worn(norm=0.01)
    dense = sum(
        (module.get_delta_weight("default") ** 2).sum()
        for module in peft.modules()
        if hasattr(module, "get_delta_weight")
    )
    expected = (learner.nll(each) * each.weights).sum() + 0.01 * dense
    theirs = gradients(learner, expected)
    assert float(dense.detach()) > 0.1
    torch.testing.assert_close(learner(Learner.loss, each), expected, atol=1e-6, rtol=1e-5)
    same(gradients(learner, learner(Learner.loss, each)), theirs)
    # However a step is cut, it has the penalty once; replayed rows do not have it.
    halves = [each.weighing(0.3), each.weighing(0.7)]
    torch.testing.assert_close(
        sum(learner(Learner.loss, half) for half in halves), expected, atol=1e-6, rtol=1e-5
    )
    general = dataclasses.replace(each, replayed=True)
    assert not {"lora_A", "lora_B"} & set(gradients(learner, learner(Learner.loss, general) * 0))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_the_share_of_replay_is_kept_within_a_row(tiny_base, recipe, prose, share):
    given = recipe(**{"guards.replay": share, "guards.replay_from": str(prose)})
    rows = examples(tiny_base, Corpus.load(given.corpus), given)
    cut = Cut(step=given.batch_tokens, pack=given.batch_tokens)
    plain = [epoch_steps(rows, 0, epoch, cut) for epoch in range(3)]
    general = general_rows(tiny_base, given)
    made = with_replay(plain, general, given, cut)
    longest, own, replayed, weights, wanted = max(map(len, general)), 0, 0, 0.0, 0
    for step, before in zip(chain(*made), chain(*plain), strict=True):
        assert step.packs[: len(before.packs)] == before.packs
        own += before.tokens
        added = [each for each in step.packs if each.replayed]
        replayed += sum(each.tokens for each in added)
        weights += sum(float(each.weights.sum()) for each in added)
        wanted += 1
        assert abs(replayed - own * share / (1 - share)) <= longest / 2
    # Steps weigh their replayed tokens so that the mean over the run is 1.
    assert weights == pytest.approx(wanted, rel=0.1 if share > 0.05 else 0.6)


def test_what_the_drift_is_measured_with_is_never_replayed(tiny_base, recipe, tmp_path):
    from loratelier.base.likelihood import general_text

    path = tmp_path / "general.txt"
    path.write_text("\n\n".join([*general_text(), "Only this is left."]), encoding="utf-8")
    given = recipe(**{"guards.replay": 0.1, "guards.replay_from": str(path)})
    (row,) = general_rows(tiny_base, given)
    assert tiny_base.tokenizer.decode(row.ids) == "Only this is left."


def test_our_own_prose_shares_nothing_with_what_is_measured(tiny_base, recipe):
    from loratelier.base.likelihood import general_text

    given = recipe(**{"guards.replay": 0.9, "batch_tokens": 2048})
    ours = " ".join(tiny_base.tokenizer.decode(row.ids) for row in general_rows(tiny_base, given))
    sentences = {s.strip() for text in general_text() for s in text.split(".") if len(s) > 20}
    assert len(ours) > 15_000
    assert "Пчёлы" in ours
    assert not [sentence for sentence in sentences if sentence in ours]


def test_chats_of_a_corpus_may_be_replayed(tiny_base, recipe, corpus):
    given = recipe(**{"guards.replay": 0.1, "guards.replay_from": str(corpus)})
    rows = general_rows(tiny_base, given)
    plain = examples(tiny_base, Corpus.load(corpus), given)
    assert sorted(row.ids for row in rows) == sorted(row.ids for row in plain)
    assert all(row.row.startswith("replay ") for row in rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guards.replay": 0.1, "guards.replay_from": "/nowhere.txt"}, "nowhere.txt is neither"),
        ({"guards.replay": "off", "guards.replay_from": "x.txt"}, "replay is off"),
        ({"guards.replay": 1.5}, "guards.replay"),
        ({"guards.token_mask": 0.5}, "guards.token_mask"),
    ],
)
def test_guards_that_cannot_be_are_refused(tiny_base, recipe, home, changes, message):
    with pytest.raises(InputError, match=message):
        train(recipe(**changes), base=tiny_base)


def test_every_guard_may_be_off():
    given = {"base": "demo", "corpus": "rows", "name": "mine"}
    off = {f"guards.{key.removeprefix('guards.')}": False for key in ALL_ON}
    guards = load_recipe(None, given | off).guards
    assert set(guards.model_dump().values()) == {None}


def test_masked_tokens_are_no_targets_and_the_rest_weighs_1(worn, tiny_base, recipe):
    learner, _, _ = worn()
    corpus = Corpus.load(recipe().corpus)
    learned, _ = split(corpus, examples(tiny_base, corpus, recipe()), recipe())
    with learner.gate_closed():
        nll = {row.row: learner.nll(pack([row], 10_000)[0]) for row in learned}
    above = float(torch.cat(list(nll.values())).exp().median())
    masked = mask_tokens(tiny_base, corpus, learner, learned, above, 300)
    assert 0.3 < masked.share < 0.7
    end = tiny_base.tokenizer.eos_token_id
    for before, after in zip(learned, masked.rows, strict=True):
        assert after.ids == before.ids
        places = [place for place, flag in enumerate(before.learned) if flag]
        for place, loss in zip(places, nll[before.row], strict=True):
            if abs(float(loss.exp()) / above - 1) > 1e-4:
                keeps = before.ids[place] == end or float(loss.exp()) <= above
                assert after.learned[place] == keeps
    (step,) = epoch_steps(masked.rows, 0, 0, Cut(step=100_000, pack=300))
    assert sum(float(each.weights.sum()) for each in step.packs) == pytest.approx(1)
    assert step.targets == sum(row.targets for row in masked.rows)


def test_a_scored_corpus_brings_its_own_mask(worn, tiny_base, recipe, monkeypatch, home):
    learner, _, _ = worn()
    corpus = Corpus.load(recipe().corpus)
    rows = examples(tiny_base, corpus, recipe())
    read = mask_tokens(tiny_base, corpus, learner, rows, 240, 300)
    scored = score_corpus(corpus, tiny_base, ["token-mask"]).corpus

    def unread(_learner, unknown, _size):
        assert not unknown
        return {}

    monkeypatch.setattr(token_mask_module, "_read", unread)
    stored = mask_tokens(tiny_base, scored, learner, rows, 240, 300)
    assert [row.learned for row in stored.rows] == [row.learned for row in read.rows]
    # Another base has other losses: its scores say nothing here.
    monkeypatch.undo()
    model = copy.deepcopy(tiny_base.model)
    other = dataclasses.replace(tiny_base, model=model, fingerprint="sha256:other")
    assert mask_tokens(other, scored, learner, rows, 240, 300).rows == read.rows


@pytest.fixture(scope="module")
def sure_base():
    """A tiny base that is sure of itself, and text that it finds likely: something to forget."""
    model, tokenizer = make_tiny(seed=3, initializer_range=0.25)
    base = Base.of(model, tokenizer, name="sure")
    letters = tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))
    texts = []
    for first in "abcdefgh":
        ids = tokenizer(first, add_special_tokens=False)["input_ids"]
        for _ in range(24):
            with torch.no_grad():
                logits = base.model(input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(letters[int(logits[letters].argmax())])
        texts.append(tokenizer.decode(ids))
    return base, texts


def test_what_is_kept_is_within_the_budget_at_the_strength_it_is_worn(
    sure_base, recipe, home, monkeypatch
):
    base, texts = sure_base
    monkeypatch.setattr(run_module, "general_text", lambda: texts)
    free = train(recipe(name="free", epochs=4), base=base)
    budget = free.card.metrics["curve"][1]["drift"] / 3
    assert budget > 0.005
    guards = {"guards.drift_budget": budget, "guards.strength": "auto", "patience": 9}
    adapter = train(recipe(epochs=4, **guards), base=base)
    metrics = adapter.card.metrics
    assert 0 < metrics["strength"] < 1
    *curve, worn_point = metrics["curve"]
    assert worn_point["strength"] == metrics["strength"]
    assert worn_point["drift"] <= budget
    # Of full strength nothing is within the budget, so without strengths the least drift is kept.
    assert all(point["drift"] > budget for point in curve[1:])
    unable = train(
        recipe(name="unable", epochs=4, **guards | {"guards.strength": "off"}), base=base
    )
    assert unable.card.metrics["curve"][-1]["strength"] == 1
    # The strength is the adapter's own: as it is loaded it is what was measured.
    site = adapter.sites[0]
    assert adapter.scaling(site) == pytest.approx(4 * metrics["strength"])
    assert free.scaling(site) == pytest.approx(4)
    bank = AdapterBank(base.model)
    bank.add("mine", store.path_of("mine"))
    with bank.activate("mine"):
        found = bits_per_byte(base.model, base.tokenizer, texts[::2]).value
    assert found == pytest.approx(worn_point["general_bpb"], rel=1e-4)


def test_a_stopped_run_goes_on_exactly_with_every_guard_on(
    tiny_base, recipe, prose, home, monkeypatch
):
    given = ALL_ON | {"guards.replay_from": str(prose), "epochs": 3, "batch_tokens": 200}
    whole = train(recipe(name="whole", **given), base=tiny_base)
    assert whole.card.metrics["masked"] > 0
    assert whole.card.metrics["replayed"].startswith("sha256:")
    steps, real = 0, loop_module._step

    def stopping(*args):
        nonlocal steps
        steps += 1
        if steps == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop_module, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(name="halves", **given), base=tiny_base)
    monkeypatch.setattr(loop_module, "_step", real)
    resumed = train(recipe(name="halves", **given), base=tiny_base, resume=True)
    assert resumed.digest == whole.digest
    assert resumed.card.metrics["curve"] == whole.card.metrics["curve"]


def test_resuming_with_other_text_to_replay_is_refused(tiny_base, recipe, prose, home, monkeypatch):
    given = {"guards.replay": 0.2, "guards.replay_from": str(prose)}
    monkeypatch.setattr(loop_module, "_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(recipe(**given), base=tiny_base)
    monkeypatch.undo()
    monkeypatch.setenv("LORATELIER_HOME", str(home))
    prose.write_text("Another text altogether.", encoding="utf-8")
    with pytest.raises(InputError, match="replayed"):
        train(recipe(**given), base=tiny_base, resume=True)
