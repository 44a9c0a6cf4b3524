"""The bank against PEFT and against the base itself."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from tests.conftest import our_hooks

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(base, folder, seed, **options):
    """Make an adapter with PEFT whose B is not zero, and save it as PEFT does."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ALL} | options)
    torch.manual_seed(seed)
    model = get_peft_model(copy.deepcopy(base.model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def two(tiny_base, tmp_path):
    first = save_adapter(tiny_base, tmp_path / "first", 1)
    second = save_adapter(
        tiny_base, tmp_path / "second", 2, r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"]
    )
    return first, second


@pytest.fixture
def bank(tiny_base, two):
    bank = AdapterBank(tiny_base.model)
    bank.add("first", two[0])
    bank.add("second", two[1])
    return bank


@pytest.fixture
def ids(tiny_base):
    torch.manual_seed(0)
    return torch.randint(0, tiny_base.model.config.vocab_size, (3, 12))


def peft(base, folder):
    return PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval()


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


def test_one_adapter_gives_pefts_logits(tiny_base, bank, two, ids):
    for name, folder in zip(("first", "second"), two, strict=True):
        with bank.activate(name):
            ours = logits(tiny_base.model, ids)
        torch.testing.assert_close(ours, logits(peft(tiny_base, folder), ids), atol=1e-5, rtol=0)


def test_a_mixture_is_the_sum_of_the_deltas_in_the_weights(tiny_base, bank, two, ids):
    merged = copy.deepcopy(tiny_base.model)
    for folder, gate in zip(two, (0.3, -1.5), strict=True):
        for site, delta in Adapter.load(folder).deltas.items():
            merged.get_submodule(site).weight.data += gate * delta
    with bank.activate({"first": 0.3, "second": -1.5}):
        ours = logits(tiny_base.model, ids)
    torch.testing.assert_close(ours, logits(merged, ids), atol=1e-4, rtol=0)


def test_rows_of_a_batch_are_as_if_alone(tiny_base, bank, ids):
    mixes = [None, "first", {"first": 0.5, "second": 2.0}]
    with bank.activate(mixes):
        together = logits(tiny_base.model, ids)
    for row, mix in enumerate(mixes):
        with bank.activate(mix):
            alone = logits(tiny_base.model, ids[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_greedy_tokens_with_a_cache_equal_pefts(tiny_base, bank, two, ids):
    settings = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    with bank.activate("first"):
        ours = tiny_base.model.generate(ids, **settings)
    assert torch.equal(ours, peft(tiny_base, two[0]).generate(input_ids=ids, **settings))


def test_off_is_the_model_untouched(tiny_base, bank, ids):
    before = logits(tiny_base.model, ids)
    with bank.activate("first"):
        assert not torch.equal(logits(tiny_base.model, ids), before)
    assert torch.equal(logits(tiny_base.model, ids), before)
    with bank.activate(None):
        assert torch.equal(logits(tiny_base.model, ids), before)
    assert not our_hooks(tiny_base.model)


def test_blocks_nest_and_give_way_again(tiny_base, bank, ids):
    with bank.activate("first"):
        outer = logits(tiny_base.model, ids)
        with bank.activate("second"):
            inner = logits(tiny_base.model, ids)
        assert torch.equal(logits(tiny_base.model, ids), outer)
    with bank.activate("second"):
        assert torch.equal(logits(tiny_base.model, ids), inner)


def test_an_error_inside_a_block_closes_the_gates(tiny_base, bank, ids):
    before = logits(tiny_base.model, ids)
    with pytest.raises(RuntimeError), bank.activate("first"):
        raise RuntimeError
    assert torch.equal(logits(tiny_base.model, ids), before)


def test_before_the_opening_token_the_hidden_states_are_the_bases_to_the_bit(tiny_base, bank, ids):
    with torch.no_grad():
        base = tiny_base.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        with bank.activate("first", from_token=7):
            ours = tiny_base.model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(ours[:, :7], base[:, :7])
    assert not torch.equal(ours[:, 7:], base[:, 7:])


def test_the_opening_token_counts_what_lies_in_the_cache(tiny_base, bank, ids):
    with bank.activate("first", from_token=[5, 9, 20]), torch.no_grad():
        whole = tiny_base.model(input_ids=ids).logits
        start = tiny_base.model(input_ids=ids[:, :6], use_cache=True)
        rest = tiny_base.model(input_ids=ids[:, 6:], past_key_values=start.past_key_values)
    torch.testing.assert_close(rest.logits, whole[:, 6:], atol=1e-5, rtol=0)


def test_a_gate_may_carry_a_gradient(tiny_base, bank, ids):
    gate = torch.tensor(0.7, requires_grad=True)
    with bank.activate({"first": gate}):
        value = tiny_base.model(input_ids=ids).logits[0, -1, 3]
    value.backward()
    step = 1e-2
    with torch.no_grad():
        sides = []
        for moved in (0.7 + step, 0.7 - step):
            with bank.activate({"first": moved}):
                sides.append(float(tiny_base.model(input_ids=ids).logits[0, -1, 3]))
    slope = (sides[0] - sides[1]) / (2 * step)
    assert float(gate.grad) == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_a_gate_may_differ_by_site(tiny_base, bank, two, ids):
    site = Adapter.load(two[0]).sites[3]
    merged = copy.deepcopy(tiny_base.model)
    merged.get_submodule(site).weight.data += 0.5 * Adapter.load(two[0]).deltas[site]
    with bank.activate({"first": {site: 0.5}}):
        ours = logits(tiny_base.model, ids)
    torch.testing.assert_close(ours, logits(merged, ids), atol=1e-5, rtol=0)


def test_replacing_and_removing(tiny_base, bank, two, ids):
    with bank.activate("second"):
        second = logits(tiny_base.model, ids)
    bank.add("first", two[1])
    with bank.activate("first"):
        assert torch.equal(logits(tiny_base.model, ids), second)
    bank.remove("first")
    assert bank.names == ("second",)
    with pytest.raises(InputError, match="no adapter 'first'"), bank.activate("first"):
        pass


def test_an_unknown_name_names_the_nearest(bank):
    with pytest.raises(InputError, match="Did you mean 'first'"), bank.activate("frist"):
        pass


@pytest.mark.parametrize(
    "gate", [float("nan"), float("inf"), torch.ones(3, 2, 1), torch.ones(0), "high"]
)
def test_a_gate_that_is_no_number_is_refused(bank, gate):
    with pytest.raises(InputError, match="gate of 'first'"), bank.activate({"first": gate}):
        pass


def test_rows_that_do_not_match_the_batch_are_refused(tiny_base, bank, ids):
    with (
        bank.activate(["first", "second"]),
        pytest.raises(InputError, match="2 rows and the batch 3"),
    ):
        logits(tiny_base.model, ids)


def test_an_adapter_for_other_shapes_is_refused(tiny_base, tmp_path):
    other = save_adapter(tiny_base, tmp_path / "narrow", 3)
    from safetensors.torch import load_file, save_file

    path = other / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if "lora_A" in key)
    tensors[key] = tensors[key][:, :-1].contiguous()
    save_file(tensors, path)
    with pytest.raises(InputError):
        AdapterBank(tiny_base.model).add("narrow", other)
