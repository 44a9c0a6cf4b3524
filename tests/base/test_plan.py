"""Plans without weights: against published sizes, hand-worked cases and torch itself."""

import json

import pytest
import torch
from transformers import LlamaConfig

from loratelier.base.plan import Training, plan_training
from loratelier.base.plan.figures import gpu, gpus, shape_of
from loratelier.kit.errors import InputError

SMALL = LlamaConfig(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
# q and o, k and v, gate up and down, two norms; the embedding and the last norm.
BLOCK = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64
PARAMETERS = 3 * BLOCK + 1000 * 64 + 64


def on_cpu(**asked):
    return plan_training(SMALL, Training(device="cpu", **asked))


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [("1b", 1.24, 1.24), ("7b", 7.62, 7.62), ("30b-a3b", 30.5, 3.35), ("70b", 70.6, 70.6)],
)
def test_our_shapes_have_the_parameters_that_their_makers_publish(name, billions, active):
    asked = Training(layers=(0,), targets=("q",), pack_tokens=16)
    plan = plan_training(shape_of(name).config, asked)
    assert plan.parameters / 1e9 == pytest.approx(billions, rel=0.005)
    assert plan.active / 1e9 == pytest.approx(active, rel=0.005)


def test_what_lora_keeps_is_counted_as_by_hand():
    plan = on_cpu(rank=4)
    linear = 2 * (64 + 64) + 2 * (64 + 32) + 2 * (64 + 128) + (128 + 64)
    assert plan.parameters == PARAMETERS
    assert plan.trained == 3 * 4 * linear
    parts = plan.moments[1].parts
    assert parts["adapter"] == parts["gradients"] == parts["kept state"] == 4 * plan.trained
    assert parts["optimizer"] == 8 * plan.trained
    inverse = 8 * 4  # of the positions' frequencies, twice
    assert parts["weights"] == pytest.approx(4 * PARAMETERS, abs=4 * inverse)


def test_four_bits_take_half_a_byte_and_their_constants():
    plan = on_cpu(method="qlora")
    linear = [64 * 64] * 2 + [64 * 32] * 2 + [64 * 128] * 3
    constants = sum(n // 64 + 4 * -(-n // 64 // 256) + 4 * (16 + 256 + 1) for n in linear)
    parts = plan.parts
    assert parts["weights in 4 bits"] == 3 * (sum(linear) // 2 + constants)
    assert parts["weights"] == pytest.approx(2 * (PARAMETERS - 3 * sum(linear)), abs=200)


def test_all_weights_are_trained_with_two_moments_and_a_kept_copy():
    parts = on_cpu(method="full").moments[1].parts
    assert parts["gradients"] == parts["kept state"] == 4 * PARAMETERS
    assert parts["optimizer"] == 8 * PARAMETERS
    assert parts["adapter"] == 0


def saved(**asked):
    return on_cpu(pack_tokens=256, **asked).held.step.kept


def test_activations_grow_with_the_pack_and_with_the_layers_that_something_goes_back_to():
    kept = [on_cpu(pack_tokens=n, batch_tokens=n).held.step.kept for n in (128, 256, 512)]
    assert kept[2] - kept[1] == 2 * (kept[1] - kept[0])
    whole, upper = saved(), saved(layers=(1, 2))
    top = saved(layers=(2,))
    assert whole > upper > top
    assert whole - upper == pytest.approx(upper - top, rel=0.05)
    assert saved(layers=(2,), targets=("q", "v")) < top
    assert saved(checkpointing=True) < top


def test_a_step_of_several_packs_holds_the_gradients_all_the_time():
    one = on_cpu(method="full", pack_tokens=2048, batch_tokens=2048).moments[0].parts
    many = on_cpu(method="full", pack_tokens=2048, batch_tokens=4096).moments[0].parts
    assert one["activations"] == many["activations"]
    assert one["gradients"] < many["gradients"] == 4 * PARAMETERS


def test_a_longer_row_makes_a_pack_of_its_own():
    assert on_cpu(pack_tokens=128).tokens == 128
    assert on_cpu(pack_tokens=128, longest=300).tokens == 300


def test_what_autograd_saves_on_a_real_model_is_what_was_counted():
    # Our own layers save what they save: plain weights are trained here, so that torch's hooks see
    # every tensor that is saved, in a model that has its weights.
    from transformers import LlamaForCausalLM

    from loratelier.base.decoder import Reader
    from loratelier.base.packed import rows_apart

    torch.manual_seed(0)
    model = LlamaForCausalLM(SMALL).requires_grad_(True)
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.arange(256)[None] % 1000
    with rows_apart(model) as apart:
        reader = Reader(model, apart)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            states = reader.states(ids, (256,), torch.arange(256))
    kept = sum(size for key, size in found.items() if key not in own)
    assert states.requires_grad
    assert kept == pytest.approx(saved(method="full"), rel=0.05)


def test_gpus_share_out_all_but_what_a_pack_makes():
    plan = plan_training(SMALL, Training(method="full"))
    four = plan.over(4)
    for part in ("weights", "optimizer"):
        assert four.parts[part] == pytest.approx(plan.parts[part] / 4, abs=4)
    assert four.moments[0].parts["activations"] == plan.moments[0].parts["activations"]
    assert four.parts["kept state"] == plan.parts["kept state"]
    big = plan_training(shape_of("7b").config, Training(method="full"))
    needed = big.needed(gpu("A100 80").memory)
    assert big.over(needed).total <= gpu("A100 80").memory < big.over(needed - 1).total
    assert big.needed(gpu("T4").memory) is None  # the kept copy alone is more


def test_time_is_work_over_a_share_of_the_peak():
    plan = plan_training(SMALL, Training(batch_tokens=10**6, pack_tokens=10**4))
    h100 = gpus()["H100"]
    weights = BLOCK - 2 * 64
    attention = 3 * 2 * 10**4 * 4 * 16 * 3  # there and twice back, two products, half the keys
    work = 4 * 3 * weights + 4 * 1000 * 64 + attention
    pace = plan.burden.on(h100)
    assert pace.seconds == pytest.approx(1000 * work / (0.4 * 989e12))
    assert pace.bound == "arithmetic"
    # One token at a time reads all weights for it.
    alone = plan_training(SMALL, Training(pack_tokens=1, batch_tokens=1)).burden.on(h100)
    assert alone.bound == "memory"
    assert alone.seconds == pytest.approx(1000 * 2 * 2 * PARAMETERS / 3350e9)


def test_gpus_are_found_however_they_are_spelled():
    assert gpu("NVIDIA GeForce RTX 4090").name == gpu("rtx-4090").name == "RTX 4090"
    assert gpu("a100-80GB").memory == 80 * 2**30
    with pytest.raises(InputError, match="Did you mean 'H200'"):
        gpu("H20O")
    with pytest.raises(InputError, match="Known: cpu, RTX 3060"):
        gpu("abacus")


def test_configs_that_are_none_are_refused(tmp_path, home):
    file = tmp_path / "config.json"
    file.write_text("[1", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        shape_of(file)
    file.write_text('{"hidden_size": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="no model_type"):
        shape_of(tmp_path)
    file.write_text('{"model_type": "lama"}', encoding="utf-8")
    with pytest.raises(InputError, match="Did you mean 'llama'"):
        shape_of(tmp_path)
    file.write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(InputError, match="No language model can be made"):
        plan_training(shape_of(tmp_path).config, Training())
    with pytest.raises(InputError, match="fetch demo"):
        shape_of("demo")
    with pytest.raises(InputError, match=r"no config 'nobody/nothing'.*config\.json"):
        shape_of("nobody/nothing")
    with pytest.raises(InputError, match="no layer 7. Its layers are 0 to 2"):
        on_cpu(layers=(7,))
    with pytest.raises(InputError, match="no linear layer 'qq'"):
        on_cpu(targets=("qq",))


@pytest.mark.parametrize(
    "told",
    [
        {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4},
        {"model_type": "gemma2", "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 16},
        {"model_type": "phi3", "num_hidden_layers": 2, "hidden_size": 64, "pad_token_id": 0},
        {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 16},
        {"model_type": "mixtral", "num_hidden_layers": 2, "hidden_size": 64},
        {"model_type": "deepseek_v3", "num_hidden_layers": 2, "hidden_size": 64},
        {"model_type": "gpt_oss", "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 16},
        {"model_type": "granite", "num_hidden_layers": 2, "hidden_size": 64, "logits_scaling": 2.0},
    ],
    ids=lambda told: told["model_type"],
)
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_models_of_many_kinds_are_planned(told, method, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    plan = plan_training(shape_of(tmp_path).config, Training(method=method, pack_tokens=64))
    assert plan.trained > 0
    assert plan.held.step.kept > 64 * 64 * 2
    assert plan.total > plan.parts["weights"] > 0
