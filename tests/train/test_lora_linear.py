"""The fused LoRA product, against PEFT's layer and a dense closed form."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.train.lora_linear import LoraLinear, gated, product
from tests.conftest import make_tiny


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_gate", [True, False])
def test_the_product_and_its_gradients_are_those_of_the_plain_formula(with_bias, with_gate):
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, generator=chance, requires_grad=True)
    weight, a = torch.randn(7, 5, generator=chance), torch.randn(2, 5, generator=chance)
    b, bias = torch.randn(7, 2, generator=chance), torch.randn(7, generator=chance)
    gate = torch.rand(6, generator=chance) if with_gate else None
    a.requires_grad_(), b.requires_grad_()
    bias = bias if with_bias else None
    ours = product(x, weight, bias, a, b, 1.7, gate)
    opened = gate.view(2, 3, 1) if gate is not None else 1.0
    theirs = x @ weight.T + 1.7 * opened * (x @ a.T @ b.T) + (0 if bias is None else bias)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    slope = torch.randn(2, 3, 7, generator=chance)
    mine = torch.autograd.grad(ours, (x, a, b), slope)
    other = torch.autograd.grad(theirs, (x, a, b), slope)
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def wrapped(fast):
    model, _ = make_tiny()
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    if fast:
        config._register_custom_module({torch.nn.Linear: LoraLinear})
    torch.manual_seed(3)
    return get_peft_model(model, config).train()


def test_a_model_of_our_layers_is_the_model_of_pefts():
    ours, theirs = wrapped(True), wrapped(False)
    assert sum(isinstance(m, LoraLinear) for m in ours.modules()) == 4
    ids = torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    for model in (ours, theirs):
        model(input_ids=ids, labels=ids).loss.backward()
    other = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, other[name].grad, atol=1e-6, rtol=1e-4)
    with torch.no_grad(), ours.disable_adapter():
        off = ours(input_ids=ids).logits
    plain = copy.deepcopy(make_tiny()[0])(input_ids=ids).logits
    assert torch.equal(off, plain)


def test_a_closed_gate_leaves_the_base():
    ours = wrapped(True)
    ids = torch.randint(3, 200, (1, 9), generator=torch.Generator().manual_seed(0))
    base, _ = make_tiny()
    opens = torch.tensor([0.0] * 5 + [1.0] * 4)
    with torch.no_grad(), gated(opens):
        half = ours(input_ids=ids).logits
    with torch.no_grad():
        full, plain = ours(input_ids=ids).logits, base(input_ids=ids).logits
    torch.testing.assert_close(half[:, :5], plain[:, :5], atol=1e-6, rtol=0)
    assert (half[:, 5:] - plain[:, 5:]).abs().max() > 1e-3
    assert (half[:, 5:] - full[:, 5:]).abs().max() > 1e-4
