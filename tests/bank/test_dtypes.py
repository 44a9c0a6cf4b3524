"""The bank over bases in half precision, in 4 bits, and on a GPU, against PEFT."""

import copy

import pytest
import torch
from peft import PeftModel

from loratelier.bank import AdapterBank
from tests.bank.models import GREEDY, batch, tiny, write

pytestmark = pytest.mark.filterwarnings("ignore")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return [write("llama", "plain", root / f"{seed}", seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("base")


def in_4bit(folder, device="cpu"):
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if not (folder / "config.json").exists():
        tiny("llama").save_pretrained(folder)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config, device_map={"": device}
    )
    return model.eval()


def compare(model, reference, folders, tolerance, device="cpu"):
    """Alone, mixed by row, and while generating, the bank gives what PEFT gives."""
    ids, mask = (each.to(device) for each in batch())
    peft = PeftModel.from_pretrained(reference, folders[0], adapter_name="one").eval()
    peft.load_adapter(folders[1], adapter_name="two")
    names = ["one", "two", "__base__", "two"]
    bank = AdapterBank(model)
    for name, folder in zip(("one", "two"), folders, strict=True):
        bank.add(name, folder)
    with torch.no_grad(), bank.activate(["one", "two", None, "two"]):
        ours = model(input_ids=ids, attention_mask=mask).logits * mask[..., None]
        written = model.generate(input_ids=ids, attention_mask=mask, **GREEDY)
    with torch.no_grad():
        theirs = peft(input_ids=ids, attention_mask=mask, adapter_names=names).logits
        generated = peft.generate(input_ids=ids, attention_mask=mask, adapter_names=names, **GREEDY)
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs * mask[..., None], atol=tolerance, rtol=0)
    assert torch.equal(written, generated)


def test_in_bfloat16(folders):
    model = copy.deepcopy(tiny("llama")).bfloat16()
    # A bfloat16 near 2 has steps of 2^-7; sums that are rounded once or twice may be a few apart.
    compare(model, copy.deepcopy(model), folders, 0.1)


def test_over_a_4_bit_base_on_a_cpu(folders, folder):
    pytest.importorskip("bitsandbytes")
    compare(in_4bit(folder), in_4bit(folder), folders, 1e-4)


def test_dora_over_a_4_bit_base(folder, tmp_path):
    pytest.importorskip("bitsandbytes")
    write("llama", "dora", tmp_path / "dora")
    model, ids = in_4bit(folder), batch()[0]
    bank = AdapterBank(model)
    bank.add("dora", tmp_path / "dora")
    with torch.no_grad(), bank.activate("dora"):
        ours = model(input_ids=ids).logits
    reference = PeftModel.from_pretrained(in_4bit(folder), tmp_path / "dora").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours, reference(input_ids=ids).logits, atol=1e-3, rtol=0)


def test_a_merge_into_4_bits_says_what_it_lost_and_gives_the_base_back(folders, folder):
    pytest.importorskip("bitsandbytes")
    model, ids = in_4bit(folder), batch()[0]
    with torch.no_grad():
        base = model(input_ids=ids).logits
    bank = AdapterBank(model)
    bank.add("one", folders[0])
    merge = bank.merge("one")
    with torch.no_grad():
        assert not torch.allclose(model(input_ids=ids).logits, base, atol=1e-2)
    assert 0.05 < merge.forward.relative < 5  # 16 levels: much of a small update is lost
    bank.unmerge()
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, base)


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(folders, dtype):
    model = copy.deepcopy(tiny("llama")).to("cuda", dtype)
    compare(model, copy.deepcopy(model), folders, 1e-4 if dtype == torch.float32 else 0.1, "cuda")


@pytest.mark.gpu
@cuda
def test_over_a_4_bit_base_on_a_gpu(folders, folder):
    pytest.importorskip("bitsandbytes")
    compare(in_4bit(folder, "cuda"), in_4bit(folder, "cuda"), folders, 1e-3, "cuda")
