"""A twin reads with the same weights and without what the other wears."""

import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base.twin import twin
from tests.serve.conftest import make


def test_a_twin_shares_weights_and_wears_nothing(tiny_base, tmp_path):
    other = twin(tiny_base)
    pairs = zip(tiny_base.model.parameters(), other.model.parameters(), strict=True)
    assert all(one is two for one, two in pairs)
    bank = AdapterBank(tiny_base.model)
    bank.add("loud", Adapter.load(make(tiny_base, tmp_path / "loud", 1)))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = tiny_base.model(ids).logits
        with bank.activate("loud"):
            assert not torch.equal(tiny_base.model(ids).logits, plain)
            assert torch.equal(other.model(ids).logits, plain)
