"""Rows in one sequence, each for itself: against the same rows alone, on several models."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from loratelier.base.decoder import Reader, row_inputs
from loratelier.base.packed import rows_apart

SHAPE = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = {
    "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def made(kind):
    torch.manual_seed(0)
    return {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "mistral, window of 6": lambda: MistralForCausalLM(
            MistralConfig(**SHAPE, sliding_window=6)
        ),
        "gemma 2, capped": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, sliding_window=6)),
        "gemma 3, window of 6": lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(**SHAPE, sliding_window=6, layer_types=None)
        ),
        "gpt-2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=101, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
            )
        ),
        "qwen 3 moe": lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**SHAPE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
        ),
        "mamba": lambda: MambaForCausalLM(MambaConfig(**SMALL)),
    }[kind]().eval()


HOW = {
    "llama": "rows",
    "mistral, window of 6": "rows",
    "gemma 2, capped": "mask",
    "gemma 3, window of 6": "rows",
    "gpt-2": "rows",
    "qwen 3 moe": "rows",
    "mamba": "padding",
}


@pytest.mark.parametrize("kind", HOW)
def test_packed_rows_are_what_they_are_alone(kind):
    model = made(kind)
    chance = torch.Generator().manual_seed(1)
    lengths = (11, 3, 20, 1, 8)
    rows = [torch.randint(3, 101, (length,), generator=chance) for length in lengths]
    before = model.config._attn_implementation
    with torch.no_grad():
        alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    with rows_apart(model) as apart, torch.no_grad():
        assert apart == HOW[kind]
        if apart == "padding":
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            starts = [n * 20 for n in range(5)]
        else:
            ids, starts = torch.cat(rows)[None], [0, 11, 14, 34, 35]
        places = torch.cat([torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])
        ours = Reader(model, apart).logits(ids, lengths, places)
    torch.testing.assert_close(ours, alone.float(), atol=1e-4, rtol=1e-4)
    assert model.config._attn_implementation == before


def test_gradients_of_packed_rows_are_those_of_the_rows_alone():
    model = made("mistral, window of 6").train()
    ids = torch.randint(3, 101, (1, 25), generator=torch.Generator().manual_seed(2))
    with rows_apart(model) as apart:
        model(**row_inputs(ids, (15, 10), apart)).logits.square().mean().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    parts = [model(input_ids=part, use_cache=False).logits for part in (ids[:, :15], ids[:, 15:])]
    torch.cat(parts, 1).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_a_model_that_lets_rows_see_each_other_is_found_out():
    """A model whose layers forget the borders on the way to their attention."""
    model = made("llama")
    for layer in model.model.layers:
        real = layer.self_attn.forward

        def forgetful(*args, _real=real, **kwargs):
            for key in ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"):
                kwargs.pop(key, None)
            return _real(*args, **kwargs)

        layer.self_attn.forward = forgetful
    with rows_apart(model) as apart:
        assert apart == "mask"
