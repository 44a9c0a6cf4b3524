"""A tiny base that can be made to say something: its logits have a range."""

import pytest

from tests.scope.changes import build, on


@pytest.fixture(scope="session")
def tiny_base():
    return build("llama", hidden_size=64, intermediate_size=128, max_position_embeddings=512)


@pytest.fixture
def adapter(tiny_base):
    sites = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
    return on(tiny_base, *sites, name="worn", scale=0.05)
