"""The residual stream, found without knowing a model by name."""

import pytest
import torch

from loratelier.base.stream import residual_stream, weight_of
from loratelier.kit.errors import InputError
from tests.bank.models import tiny
from tests.conftest import our_hooks

READ = {
    "llama": ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"),
    "qwen2": ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"),
    "gemma3": ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"),
    "gpt2": ("c_attn", "c_fc"),
}
WRITE = {"gpt2": ("c_proj",)}


@pytest.mark.parametrize("arch", READ)
def test_readers_and_writers_are_found(arch):
    model = tiny(arch)
    stream = residual_stream(model)
    assert {name.split(".")[-1] for name in stream.readers} == set(READ[arch])
    assert {name.split(".")[-1] for name in stream.writers} == set(
        WRITE.get(arch, ("o_proj", "down_proj"))
    )
    assert len(stream.readers) == 2 * len(READ[arch]) and len(stream.writers) == 4
    assert not our_hooks(model)


@pytest.mark.parametrize("arch", READ)
def test_a_norm_multiplies_as_its_scale_says(arch):
    """With random scales, what goes out of the last norm is what went in, stretched so."""
    import copy

    model = copy.deepcopy(tiny(arch))
    norms = [m for m in model.modules() if "norm" in type(m).__name__.lower()]
    for norm in norms:
        torch.nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    last = norms[-1]
    # Gemma stores the scale less one.
    own = last.weight + 1 if "Gemma" in type(last).__name__ else last.weight
    torch.testing.assert_close(residual_stream(model).final, own.detach(), rtol=1e-4, atol=1e-5)


def test_the_order_is_that_in_which_the_layers_are_called():
    order = residual_stream(tiny("llama")).order
    steps = [name.removeprefix("model.layers.").replace("self_attn.", "") for name in order]
    assert steps[:4] == ["0.q_proj", "0.k_proj", "0.v_proj", "0.o_proj"]
    assert steps[7:11] == ["1.q_proj", "1.k_proj", "1.v_proj", "1.o_proj"]


def test_a_weight_is_dense_and_the_right_way_round():
    model = tiny("gpt2")
    weight = weight_of(model, "transformer.h.0.mlp.c_fc")
    assert torch.equal(weight, model.transformer.h[0].mlp.c_fc.weight.T)
    with pytest.raises(InputError, match="no layer nowhere"):
        weight_of(model, "nowhere")
