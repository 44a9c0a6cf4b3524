"""Losses without logits, against the losses that torch makes of whole logits."""

import pytest
import torch
from torch.nn import functional as F

from loratelier.base import losses


@pytest.fixture(params=[1, 7, 10_000])
def drawn(request, monkeypatch):
    """Hidden states, a head and labels; chunks of one, of a few and of all targets."""
    monkeypatch.setattr(losses, "CHUNK", request.param * 50)
    chance = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 8, generator=chance, dtype=torch.float64).float()
    weight = torch.randn(50, 8, generator=chance)
    bias = torch.randn(50, generator=chance)
    labels = torch.randint(0, 50, (20,), generator=chance)
    return hidden.requires_grad_(), weight, bias, labels


def assert_same(ours, theirs, hidden, weights):
    """The losses and, for any weighting of them, the gradients are the same."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    (mine,) = torch.autograd.grad(ours @ weights, hidden, retain_graph=True)
    (other,) = torch.autograd.grad(theirs @ weights, hidden)
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
def test_nll_is_cross_entropy(drawn, with_bias):
    hidden, weight, bias, labels = drawn
    bias = bias if with_bias else None
    ours = losses.linear_nll(hidden, weight, bias, labels)
    theirs = F.cross_entropy(F.linear(hidden, weight, bias), labels, reduction="none")
    assert_same(ours, theirs, hidden, torch.linspace(-1, 2, 20))


def test_soft_nll_is_the_cross_entropy_towards_shares(drawn):
    hidden, weight, bias, _ = drawn
    chance = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randperm(50, generator=chance)[:4] for _ in range(20)])
    shares = torch.rand(20, 4, generator=chance)  # they need not sum to 1
    ours = losses.linear_soft_nll(hidden, weight, bias, ids, shares)
    likely = F.linear(hidden, weight, bias).log_softmax(-1)
    theirs = -(shares * likely.gather(1, ids)).sum(1)
    assert_same(ours, theirs, hidden, torch.linspace(-1, 2, 20))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_is_the_kl_of_softmaxes(drawn, temperature):
    hidden, weight, bias, _ = drawn
    reference = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    ours = losses.linear_kl(hidden, weight, bias, reference, temperature=temperature)
    p = (F.linear(reference, weight, bias) / temperature).softmax(-1)
    q = (F.linear(hidden, weight, bias) / temperature).log_softmax(-1)
    theirs = F.kl_div(q, p, reduction="none").sum(-1)
    assert_same(ours, theirs, hidden, torch.linspace(-1, 2, 20))
    nothing = losses.linear_kl(hidden, weight, bias, hidden.detach())
    torch.testing.assert_close(nothing, torch.zeros(20), atol=1e-5, rtol=0)


def test_kl_may_look_up_to_another_head(drawn):
    hidden, weight, bias, _ = drawn
    chance = torch.Generator().manual_seed(3)
    reference, other = torch.randn(20, 5, generator=chance), torch.randn(50, 5, generator=chance)
    ours = losses.linear_kl(hidden, weight, bias, reference, reference_weight=other)
    p = F.linear(reference, other).softmax(-1)
    theirs = F.kl_div(F.linear(hidden, weight, bias).log_softmax(-1), p, reduction="none").sum(-1)
    assert_same(ours, theirs, hidden, torch.ones(20))


def test_a_trained_head_gets_its_gradient(drawn):
    hidden, weight, _, labels = drawn
    head = torch.nn.Linear(8, 50, bias=False)
    head.weight.data.copy_(weight)
    losses.head_nll(head, hidden, labels).sum().backward()
    mine, hidden.grad, head.weight.grad = (hidden.grad, head.weight.grad), None, None
    F.cross_entropy(head(hidden), labels, reduction="sum").backward()
    torch.testing.assert_close(mine[0], hidden.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mine[1], head.weight.grad, atol=1e-5, rtol=1e-5)


def test_logits_are_never_all_there(monkeypatch):
    """Of 4,000 targets over 3,000 tokens no tensor of that size is made."""
    monkeypatch.setattr(losses, "CHUNK", 3000 * 10)
    sizes = []
    real = F.linear

    def watching(*args):
        made = real(*args)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(losses.F, "linear", watching)
    hidden = torch.randn(400, 4, requires_grad=True)
    losses.linear_nll(hidden, torch.randn(3000, 4), None, torch.zeros(400, dtype=torch.long))
    assert max(sizes) == 3000 * 10
