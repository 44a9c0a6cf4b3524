"""Loading fails closed: each fault has its message, and the bank holds nothing after it."""

import json
import re
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from loratelier.kit.progress import report_to
from tests.bank.models import tiny, variants, write

pytestmark = pytest.mark.filterwarnings("ignore")
FILE = "adapter_model.safetensors"


def retensor(folder, change):
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file({key: each.contiguous() for key, each in tensors.items()}, folder / FILE)


def reconfig(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(part):
    """Leave out every tensor whose name has a part."""

    def change(tensors):
        gone = [key for key in tensors if part in key]
        assert gone
        for key in gone:
            del tensors[key]

    return change


def put(part, make):
    """Put another tensor in place of the first whose name has a part."""

    def change(tensors):
        key = next(key for key in sorted(tensors) if part in key)
        tensors[key] = make(tensors[key])

    return change


def narrower(tensor):
    return tensor[..., :-1]


def extra(tensors):
    for side, shape in (("A", (4, 32)), ("B", (16, 4))):
        key = f"base_model.model.model.layers.0.self_attn.k_proj.lora_{side}.weight"
        tensors[key] = torch.ones(shape)


FAULTS = [
    # what PEFT would quietly leave at the base's values
    ("llama", "plain", drop("layers.1.mlp.up_proj"), {}, "targets model.layers.1.mlp.up_proj, and"),
    ("llama", "layers", None, {"layers_to_transform": [0, 1]}, "targets model.layers.0"),
    ("llama", "tokens", drop("trainable_tokens"), {}, "trains tokens, and the file has no rows"),
    ("qwen2", "bias of all", drop("k_proj.bias"), {}, "has none for model.layers.0.self_attn.k_"),
    ("llama", "module norm", drop("layers.1.input"), {}, "saves the module model.layers.1.input"),
    ("llama", "module mlp", drop("1.mlp.up_proj"), {}, "lacks model.layers.1.mlp.up_proj.weight"),
    ("moe", "experts", drop("0.mlp.experts"), {}, "targets model.layers.0.mlp.experts"),
    ("moe", "experts", drop("experts.base_layer"), {}, "targets 2 parameters of .* the file has 1"),
    ("llama", "dora", drop("0.self_attn.q_proj.lora_mag"), {}, "q_proj has no lora_magnitude_vec"),
    ("llama", "bias of B", drop("0.self_attn.q_proj.lora_B.bias"), {}, "has no lora_B.bias"),
    # what it would quietly leave out
    ("llama", "bias of all", extra, {}, "layers.0.self_attn.k_proj, which its config does not tar"),
    ("llama", "plain", put("", lambda t: t), {"target_modules": ["q_proj"]}, "does not target"),
    ("llama", "dora", None, {"use_dora": False}, "lora_magnitude_vector belongs to no LoRA"),
    ("llama", "module head", None, {"modules_to_save": None}, "lm_head.weight belongs to no LoRA"),
    ("llama", "tokens", None, {"trainable_token_indices": None}, "tokens_delta belongs to no LoRA"),
    ("qwen2", "bias of all", None, {"bias": "none"}, "bias belongs to no LoRA"),
    # what would not fit
    ("llama", "plain", put("lora_A", narrower), {}, "is \\[32, 48\\] in this base"),
    ("llama", "embedding", put("embedding_A", narrower), {}, "embed_tokens is \\[32, 96\\]"),
    ("llama", "tokens", put("tokens_delta", narrower), {}, "rows of 32, and the file of 31"),
    ("llama", "tokens", None, {"trainable_token_indices": [3, 4, 96]}, "token 96, and .* has 96"),
    ("llama", "tokens", None, {"trainable_token_indices": [3, 4]}, "names 2 tokens"),
    (
        "llama",
        "module head",
        put("lm_head", narrower),
        {},
        "head.weight is \\[96, 32\\] in",
    ),
    (
        "qwen2",
        "bias of all",
        put("q_proj.base_layer.bias", narrower),
        {},
        "q_proj.bias is \\[32\\] in this",
    ),
    ("llama", "dora", put("magnitude", narrower), {}, "lora_magnitude_vector is \\[31\\] instead"),
    ("moe", "one expert parameter", None, {"r": 2}, "for rank 2"),
    ("moe", "one expert parameter", put("lora_A", narrower), {}, "down_proj is \\[4, 32, 16\\] in"),
    ("gpt2", "plain", put("c_attn.lora_B", lambda t: t[:-1]), {}, "c_attn is \\[96, 32\\] in this"),
    ("gpt2", "bias of all", put("ln_f.bias", narrower), {}, "ln_f.bias is \\[32\\] in this base"),
    # what would bring in something else
    (
        "llama",
        "embedding",
        put("base_layer.weight", lambda t: t + 1),
        {},
        "carries a weight of",
    ),
    ("llama", "plain", put("lora_B", lambda t: t * torch.inf), {}, "values that are no numbers"),
    ("llama", "module head", put("lm_head", lambda t: t / 0), {}, "values that are no numbers"),
    ("llama", "plain", None, {"target_modules": "("}, "targets no modules that can be read"),
]


@pytest.mark.parametrize(
    ("arch", "variant", "change", "config", "message"),
    FAULTS,
    ids=[f"{number}-{fault[4][:28]}" for number, fault in enumerate(FAULTS)],
)
def test_each_fault_is_named(arch, variant, change, config, message, tmp_path):
    folder = write(arch, variant, tmp_path / "it")
    bank = AdapterBank(tiny(arch))
    bank.add("whole", folder)
    if change:
        retensor(folder, change)
    if config:
        reconfig(folder, **config)
    with pytest.raises(InputError) as refused:
        bank.add("it", folder)
    assert re.search(message, str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)
    assert bank.names == ("whole",)


def test_an_adapter_for_another_kind_of_model_is_refused(tmp_path):
    bank = AdapterBank(tiny("gpt2"))
    for variant in variants("llama"):
        folder = write("llama", variant, tmp_path / variant.replace(" ", "-"))
        with pytest.raises(InputError, match="does not fit|no parameter|no module"):
            bank.add("it", folder)


def test_a_file_larger_than_base_and_config_imply_is_not_read(tmp_path):
    """Its header is right for its config; its 64 GiB of values are never touched."""
    folder = write("llama", "plain", tmp_path / "it")
    reconfig(folder, target_modules=["q_proj"])
    width, at, header = 2**31, 0, {}
    for side, shape in (("A", [4, width]), ("B", [width, 4])):
        size = 4 * 4 * width
        key = f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight"
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with (folder / FILE).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    with pytest.raises(InputError, match="is \\[32, 32\\] in this base"):
        AdapterBank(tiny("llama")).add("huge", folder)


def test_a_config_of_absurd_size_is_not_read(tmp_path):
    folder = write("llama", "plain", tmp_path / "it")
    with (folder / "adapter_config.json").open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match="bytes, which no config is"):
        AdapterBank(tiny("llama")).add("it", folder)


def test_what_ships_along_is_ignored_and_said(tmp_path):
    folder = write("llama", "plain", tmp_path / "it")
    for name in ("modeling_evil.py", "chat_template.jinja", "tokenizer.json", "training_args.bin"):
        (folder / name).write_text("raise SystemExit")
    said = []

    class Reporter:
        def remark(self, text):
            said.append(text)

    with report_to(Reporter()):
        bank = AdapterBank(tiny("llama"))
        bank.add("it", folder)
    names = ("chat_template.jinja", "modeling_evil.py", "tokenizer.json", "training_args.bin")
    assert bank.held["it"].ignored == names
    assert any("ignored beside the adapter: " + ", ".join(names) in line for line in said)
    assert any("unproven" in line for line in said)
    assert Adapter.load(folder).ignored == names


def test_a_copy_of_the_bases_weight_is_compared_after_it_was_left_out_too(tmp_path):
    folder = write("llama", "embedding", tmp_path / "it")
    retensor(folder, put("base_layer.weight", lambda t: t + 1))
    Adapter.load(folder).save(tmp_path / "again")
    assert not any("base_layer" in key for key in load_file(tmp_path / "again" / FILE))
    with pytest.raises(InputError, match="carries a weight of its own"):
        AdapterBank(tiny("llama")).add("it", tmp_path / "again")
