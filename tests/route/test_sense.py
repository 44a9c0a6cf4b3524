"""Routing by sense: wording, hidden states, the learned router, mixtures, abstention."""

import numpy as np
import pytest
import torch
import yaml

from loratelier import AdapterBank, InputError, Router
from loratelier.base import Base
from loratelier.route.learned import LowRank, request_state, token_shares, train_router
from loratelier.route.policy import read_policy
from loratelier.route.requests import asked_of, general_requests
from loratelier.route.sense import BASE
from tests.compose.adapters import make
from tests.conftest import make_tiny
from tests.route.adapters import ASKED, write_policy


def policy_of(path):
    return read_policy(path, path.read_bytes())


@pytest.mark.parametrize(
    ("said", "worn"),
    [
        ("How do I prune my plum trees?", "garden"),
        ("Can the landlord terminate my contract?", "court"),
        ("Как запечь утку?", "кухня"),
        ("Who painted the Mona Lisa?", None),
        ("Сколько лететь до Парижа?", None),
    ],
)
def test_a_request_goes_where_its_like_is_asked(corpora, said, worn):
    decision = Router.load(write_policy(corpora)).route(said)
    assert list(decision.mix or {None: 1}) == [worn]
    assert decision.stage in ("embedding", "base")
    scores = next(each.scores for each in decision.considered if each.stage == "embedding")
    assert set(scores) == {*ASKED, BASE}
    assert sum(scores.values()) == pytest.approx(1)


def test_words_about_an_adapter_stand_in_for_a_corpus(tmp_path):
    path = tmp_path / "p.yaml"
    about = {"a": {"about": "football, goals, referees"}, "b": {"about": "сонеты, рифмы, стихи"}}
    path.write_text(yaml.safe_dump({"adapters": about}, allow_unicode=True), encoding="utf-8")
    router = Router.load(path)
    assert router.route("Which referee gave most goals in football?").mix == {"a": 1.0}
    assert router.route("Стихи, рифмы, сонеты о море").mix == {"b": 1.0}


def test_what_a_caller_may_not_use_takes_no_share(corpora):
    router = Router.load(write_policy(corpora))
    said = "Can the landlord terminate my contract?"
    assert router.route(said).mix == {"court": 1.0}
    denied = router.route(said, allowed=["garden", "кухня"])
    assert "court" not in (denied.mix or {})
    scores = next(each.scores for each in denied.considered if each.stage == "embedding")
    assert "court" not in scores and sum(scores.values()) == pytest.approx(1)


def test_a_doubt_is_worn_as_a_mixture_with_shares_that_add_up(corpora):
    more = {"mixture": {"most": 2, "least": 0.1}, "embedding": {"threshold": 0.3}}
    router = Router.load(write_policy(corpora, **more))
    decision = router.route("Plant roses, prune the hedge; the lease, the deposit")
    assert set(decision.mix) == {"garden", "court"}
    assert sum(decision.mix.values()) == pytest.approx(1)
    scores = next(each.scores for each in decision.considered if each.stage == "embedding")
    ratio = decision.mix["garden"] / decision.mix["court"]
    assert ratio == pytest.approx(scores["garden"] / scores["court"])


def test_a_weak_lead_leaves_on_what_was_worn(corpora):
    router = Router.load(write_policy(corpora, sticky={"margin": 1.0}))
    first = router.route("How do I prune my plum trees?")
    second = router.route("Can the landlord terminate my contract?", previous=first)
    assert (second.stage, second.mix) == ("sticky", {"garden": 1.0})


@pytest.fixture(scope="module")
def trained(corpora, tiny_base):
    return train_router(tiny_base, asked_of(policy_of(write_policy(corpora))), rank=3)


def test_a_router_learns_its_adapters_and_states_its_size(trained, tiny_base):
    facts = trained.facts
    classes, hidden = len(ASKED) + 1, tiny_base.model.config.hidden_size
    assert facts.names == (*ASKED, BASE)
    assert facts.parameters == 3 * (hidden + classes) + classes
    assert facts.fingerprint == tiny_base.fingerprint
    assert all(count > 0 for count in facts.held.values())
    # By chance it would be 1 in 4.
    assert facts.accuracy > 0.7


def test_training_again_gives_the_same_router(corpora, trained, tiny_base):
    again = train_router(tiny_base, asked_of(policy_of(write_policy(corpora))), rank=3)
    assert torch.equal(again.up, trained.up) and again.facts == trained.facts


def test_a_saved_router_decides_as_before(corpora, trained, tiny_base, tmp_path):
    folder = tmp_path / "router"
    trained.save(folder)
    with pytest.raises(InputError, match="exists already"):
        trained.save(folder)
    trained.save(folder, replace=True)
    settings = {"learned": {"folder": str(folder), "threshold": 0.3}}
    path = write_policy(corpora, stages=["signals", "learned"], **settings)
    router = Router.load(path, base=tiny_base)
    said = "Can the landlord terminate my contract?"
    decision = router.route(said)
    scores = next(each.scores for each in decision.considered if each.stage == "learned")
    # The formula of the docstring, once more in numpy.
    state = request_state(tiny_base, said)
    reduced = (state - trained.mean.numpy()) / float(trained.scale) @ trained.down.numpy().T
    logits = reduced @ trained.up.numpy().T + trained.bias.numpy()
    powers = np.exp(logits / trained.facts.temperature)
    for name, power in zip(trained.names, powers / powers.sum(), strict=True):
        assert scores[name] == pytest.approx(power, abs=1e-4)
    assert router.route(said, state=state) == decision


def test_a_damaged_router_or_one_of_another_base_is_refused(corpora, trained, tmp_path):
    folder = tmp_path / "router"
    trained.save(folder)
    path = write_policy(corpora, stages=["learned"], learned={"folder": str(folder)})
    model, tokenizer = make_tiny(seed=5)
    other = Base.of(model, tokenizer, name="other")
    with pytest.raises(InputError, match="hidden states of tiny"):
        Router.load(path, base=other).route("What shall we do?")
    (folder / "router.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="damaged"):
        Router.load(path)
    with pytest.raises(InputError, match="There is no router"):
        LowRank.load(tmp_path / "nowhere")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="would be deleted"):
        trained.save(tmp_path / "own", replace=True)
    assert (tmp_path / "own" / "thesis.txt").exists()


def test_shares_by_token_depend_on_nothing_that_follows_and_are_gates(trained, tiny_base):
    ids = torch.tensor(tiny_base.tokenizer("How do I prune my roses?")["input_ids"])
    whole = token_shares(trained, tiny_base, ids)
    part = token_shares(trained, tiny_base, ids[:9])
    for name in ASKED:
        assert whole[name].shape == (len(ids),)
        assert torch.allclose(whole[name][:9], part[name], atol=1e-5)
    state = torch.from_numpy(request_state(tiny_base, "How do I prune my roses?"))
    request = trained.logits(state).softmax(-1)
    for name, share in zip(trained.names, request, strict=True):
        if name != BASE:
            assert whole[name][-1] == pytest.approx(float(share), abs=1e-4)
    with AdapterBank(tiny_base.model) as bank:
        bank.add("garden", make(1, name="garden"))
        with bank.activate({"garden": whole["garden"]}), torch.no_grad():
            worn = tiny_base.model(input_ids=ids[None]).logits
        with torch.no_grad():
            bare = tiny_base.model(input_ids=ids[None]).logits
    assert not torch.allclose(worn, bare)


def test_general_requests_are_learned_from_or_held_out_and_never_both():
    learned, held = general_requests(held=False), general_requests(held=True)
    assert set(learned).isdisjoint(held)
    assert len(learned) == len(held) == 40


def test_a_policy_by_hidden_states_needs_a_base(corpora):
    path = write_policy(corpora, embedding={"by": "hidden"})
    with pytest.raises(InputError, match="names no base"):
        Router.load(path).route("hello there")


def test_hidden_states_route_on_the_demo_base(corpora, demo_base):
    router = Router.load(write_policy(corpora, embedding={"by": "hidden"}), base=demo_base)
    assert router.route("How do I prune my plum trees?").mix == {"garden": 1.0}
    assert router.route("Can the landlord terminate my contract?").mix == {"court": 1.0}
