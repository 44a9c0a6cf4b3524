"""Merging into the base and back, and what is said about the rounding."""

import copy

import pytest
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from tests.bank.models import CASES, batch, peft, tiny, write

pytestmark = pytest.mark.filterwarnings("ignore")

# What a merge cannot say: it acts from a token on; or only one of two layers that share a weight.
_UNMERGEABLE = {"alora", "bias of B"}
_TIED = {"embedding", "head", "embedding and head", "tied embedding", "dora embedding"} | {
    "module head",
    "module embedding",
}
MERGEABLE = [
    (arch, variant)
    for arch, variant in CASES
    if variant not in _UNMERGEABLE
    and not (arch in ("qwen2", "gemma3", "gpt2") and variant in _TIED)
    and (arch, variant) != ("gpt2", "tied module")  # PEFT saves one of the two there
]


@torch.no_grad()
def logits(model, ids, mask):
    return model(input_ids=ids, attention_mask=mask).logits.float() * mask[..., None]


@pytest.mark.parametrize(("arch", "variant"), MERGEABLE)
def test_merged_it_is_pefts_and_unmerged_the_base_to_the_bit(arch, variant, tmp_path):
    folder = write(arch, variant, tmp_path / "it")
    model, (ids, mask) = copy.deepcopy(tiny(arch)), batch()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    bank = AdapterBank(model)
    bank.add("it", folder)
    merge = bank.merge("it")
    theirs = logits(peft(arch, folder), ids, mask)
    torch.testing.assert_close(logits(model, ids, mask), theirs, atol=2e-4, rtol=0)
    assert merge.dtype == "float32"
    assert merge.forward.relative < 1e-5
    bank.unmerge()
    assert merge.back.relative == merge.back.largest == 0
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_mixture_merged_is_the_mixture_worn(tmp_path):
    model, (ids, mask) = copy.deepcopy(tiny("llama")), batch()
    bank = AdapterBank(model)
    bank.add("one", write("llama", "plain", tmp_path / "one", 1))
    bank.add("two", write("llama", "embedding and head", tmp_path / "two", 2))
    bank.add("norms", write("llama", "module norm", tmp_path / "norms", 3))
    mix = {"one": 0.5, "two": -0.3, "norms": 0.7}
    with bank.activate(mix):
        worn = logits(model, ids, mask)
    bank.merge(mix)
    torch.testing.assert_close(logits(model, ids, mask), worn, atol=2e-4, rtol=0)


@pytest.mark.parametrize("keep", [True, False])
def test_the_errors_in_bfloat16_are_those_that_can_be_measured_from_outside(tmp_path, keep):
    folder = write("llama", "plain", tmp_path / "one", 1)
    model = copy.deepcopy(tiny("llama")).bfloat16()
    before = {name: each.clone() for name, each in model.named_parameters()}
    bank = AdapterBank(model)
    bank.add("one", folder)
    merge = bank.merge("one", keep=keep)
    deltas = {f"{site}.weight": delta for site, delta in Adapter.load(folder).deltas.items()}
    now = dict(model.named_parameters())
    lost = [now[n].float() - (before[n].float() + d) for n, d in deltas.items()]
    norm = sum(float(d.double().square().sum()) for d in deltas.values()) ** 0.5
    error = sum(float(each.double().square().sum()) for each in lost) ** 0.5
    assert merge.dtype == "bfloat16"
    assert merge.forward.relative == pytest.approx(error / norm, rel=1e-5)
    assert merge.forward.largest == pytest.approx(max(float(e.abs().max()) for e in lost))
    assert merge.forward.relative > 1e-3  # bfloat16 has 8 bits
    worst = merge.forward.worst_site
    assert worst in deltas
    bank.unmerge()
    back = [dict(model.named_parameters())[n].float() - before[n].float() for n in deltas]
    returned = sum(float(each.double().square().sum()) for each in back) ** 0.5
    assert merge.back.relative == pytest.approx(returned / norm, rel=1e-5, abs=1e-12)
    assert (merge.back.relative == 0) == keep
    assert (merge.kept_bytes > 0) == keep


@pytest.mark.parametrize(
    ("arch", "variant", "message"),
    [
        ("llama", "alora", "waits for its invocation tokens cannot be merged"),
        ("llama", "bias of B", "this base's layer has none"),
        ("qwen2", "embedding", "they share one weight"),
        ("gemma3", "module head", "they share one weight"),
    ],
)
def test_what_no_weights_can_say_is_refused_and_nothing_is_written(
    arch, variant, message, tmp_path
):
    model, (ids, mask) = copy.deepcopy(tiny(arch)), batch()
    bank = AdapterBank(model)
    bank.add("it", write(arch, variant, tmp_path / "it"))
    before = logits(model, ids, mask)
    with pytest.raises(InputError, match=message):
        bank.merge("it")
    assert torch.equal(logits(model, ids, mask), before)
    with bank.activate("it"):
        logits(model, ids, mask)


def test_while_merged(tmp_path):
    model = copy.deepcopy(tiny("llama"))
    bank = AdapterBank(model)
    bank.add("one", write("llama", "plain", tmp_path / "one", 1))
    bank.add("two", write("llama", "plain", tmp_path / "two", 2))
    with pytest.raises(InputError, match="Nothing is merged"):
        bank.unmerge()
    for mix in (["one", "two"], {"one": torch.ones(3)}):
        with pytest.raises(InputError, match="differs by row or token"):
            bank.merge(mix)
    with bank.activate("one"), pytest.raises(InputError, match="active"):
        bank.merge("two")
    before = {name: each.clone() for name, each in model.state_dict().items()}
    bank.merge("one")
    with pytest.raises(InputError, match="one is merged into the base"), bank.activate("two"):
        pass
    for call in (lambda: bank.merge("two"), lambda: bank.remove("one")):
        with pytest.raises(InputError, match="merged"):
            call()
    with pytest.raises(InputError, match="merged"):
        bank.add("one", tmp_path / "two")
    bank.close()
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
