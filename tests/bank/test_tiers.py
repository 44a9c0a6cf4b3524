"""Resident, host, disk: what moves when, and that wearing never shows it."""

import copy

import pytest
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from tests.bank.models import batch, tiny, write
from tests.conftest import our_hooks

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = [f"a{seed}" for seed in range(6)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {name: write("llama", "plain", root / name, int(name[1:])) for name in NAMES}


@pytest.fixture
def size(folders):
    return Adapter.load(folders["a0"]).bytes


def bank_of(folders, **budgets):
    bank = AdapterBank(tiny("llama"), **budgets)
    for name, folder in folders.items():
        bank.add(name, folder)
    return bank


@torch.no_grad()
def logits():
    ids, mask = batch()
    return tiny("llama")(input_ids=ids, attention_mask=mask).logits


def tiers(bank):
    return {name: held.tier for name, held in bank.held.items()}


def test_more_adapters_than_memory_are_worn_from_disk_with_the_same_logits(folders, size):
    roomy = bank_of(folders)
    # A worn adapter takes its own bytes and, side by side with others, as much again.
    tight = bank_of(folders, resident_bytes=4 * size, host_bytes=2 * size)
    assert tiers(roomy) == dict.fromkeys(NAMES, "host")
    assert sorted(tiers(tight).values()) == ["disk"] * 4 + ["host"] * 2
    for mix in [*NAMES, {"a0": 0.5, "a5": 0.5}, *reversed(NAMES)]:
        with roomy.activate(mix):
            expected = logits()
        with tight.activate(mix):
            assert torch.equal(logits(), expected)
        held = list(tiers(tight).values())
        assert held.count("host") <= 2
        assert held.count("resident") <= 3
    assert roomy.counts.reads == roomy.counts.to_disk == roomy.counts.to_host == 0
    assert tight.counts.reads >= 6
    assert tight.counts.to_disk >= tight.counts.reads
    assert tight.counts.to_host >= 6
    assert set(tight.counts.to_json()) >= {"reads", "to_host", "to_disk", "stacks_evicted"}


def test_what_was_worn_longest_ago_goes_first(folders, size):
    bank = bank_of(folders, resident_bytes=4 * size)
    for name in ("a0", "a1", "a2", "a0", "a3"):
        with bank.activate(name):
            pass
    held = tiers(bank)
    assert held["a1"] == "host"
    assert held["a0"] == held["a3"] == "resident"


def test_a_pinned_adapter_stays(folders, size):
    bank = bank_of(folders, resident_bytes=4 * size, host_bytes=0)
    assert set(tiers(bank).values()) == {"disk"}
    bank.pin("a4")
    for name in NAMES[:4]:
        with bank.activate(name):
            pass
        assert bank.held["a4"].tier == "resident"
    assert bank.held["a4"].pinned
    bank.unpin("a4")
    for name in NAMES[:4]:
        with bank.activate(name):
            pass
    assert bank.held["a4"].tier == "disk"
    with pytest.raises(InputError, match="no adapter 'b4'"):
        bank.pin("b4")


def test_what_is_worn_stays_whatever_is_added(folders, size):
    bank = AdapterBank(tiny("llama"), resident_bytes=3 * size, host_bytes=size)
    bank.add("a0", folders["a0"])
    with bank.activate("a0"):
        expected = logits()
        for name in NAMES[1:]:
            bank.add(name, folders[name])
        with bank.activate(None):
            pass
        assert bank.held["a0"].tier == "resident"
        assert torch.equal(logits(), expected)


def test_a_mix_beyond_the_budget_is_refused_and_leaves_nothing_behind(folders, size):
    bank = bank_of(folders, resident_bytes=3 * size)
    beyond = pytest.raises(InputError, match="more than the resident budget")
    with beyond, bank.activate({"a0": 1.0, "a1": 1.0}):
        pass
    assert not our_hooks(tiny("llama"))
    with bank.activate("a1"):
        logits()


def test_a_folder_that_changed_while_it_was_on_disk_is_refused(folders, size, tmp_path):
    bank = AdapterBank(tiny("llama"), host_bytes=0)
    bank.add("mine", write("llama", "plain", tmp_path / "mine", 1))
    write("llama", "plain", tmp_path / "mine", 2)
    changed = pytest.raises(InputError, match="has changed since 'mine' was added")
    with changed, bank.activate("mine"):
        pass
    bank.add("mine", tmp_path / "mine")
    with bank.activate("mine"):
        logits()


def test_an_adapter_without_a_folder_has_nowhere_to_go(folders, size):
    bank = AdapterBank(tiny("llama"), resident_bytes=2 * size, host_bytes=2 * size)
    first, second, third = (Adapter.load(folders[name]) for name in NAMES[:3])
    bank.add("first", first)
    bank.add("second", second)
    with pytest.raises(InputError, match="without a folder"):
        bank.add("third", third)
    for name in ("first", "second", "first"):
        with bank.activate(name):
            logits()
    assert set(tiers(bank).values()) <= {"resident", "host"}


def test_outfits_of_the_latest_mixes_are_reused(folders):
    bank = bank_of(folders)
    for _ in range(3):
        with bank.activate(["a0", "a1", "a2", None]):
            logits()
        with bank.activate(["a2", "a0", None, "a1"]):  # the same set in other rows
            logits()
    assert (bank.counts.stacks_built, bank.counts.stacks_reused) == (1, 5)
    for one in NAMES:
        for other in NAMES:
            with bank.activate({one: 0.5, other: 0.5}):
                pass
    assert bank.counts.stacks_evicted > 10


def test_closing_leaves_the_model_as_it_came(folders):
    model = copy.deepcopy(tiny("llama"))
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with AdapterBank(model) as bank:
        bank.add("a0", folders["a0"])
        block = bank.activate("a0")
        block.__enter__()
        assert our_hooks(model)
    assert not our_hooks(model)
    assert bank.names == ()
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()


def test_two_banks_over_one_model_add_up(folders):
    first, second = bank_of(folders), bank_of(folders)
    with first.activate({"a0": 1.0, "a1": 0.5}):
        expected = logits()
    with first.activate("a0"), second.activate({"a1": 0.5}):
        torch.testing.assert_close(logits(), expected, atol=1e-4, rtol=0)
    assert not our_hooks(tiny("llama"))


def test_what_is_held_says_whether_it_is_proven(folders):
    bank = bank_of(folders)
    assert {held.proven for held in bank.held.values()} == {False}  # made by PEFT, without a card
    assert bank.held["a0"].ignored == ()
