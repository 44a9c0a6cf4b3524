"""Changes to look at: tiny bases of several architectures, and adapters made by hand."""

import torch

from loratelier.adapter import Adapter
from loratelier.adapter.card import BaseRef, Card
from loratelier.base import Base
from tests.bank.models import COMMON, GPT2, MOE
from tests.conftest import tiny_tokenizer


def build(arch, **changes):
    """A seeded tiny base whose vocabulary is the byte tokenizer's."""
    import transformers as t

    tokenizer = tiny_tokenizer()
    common = COMMON | {"vocab_size": len(tokenizer), "tie_word_embeddings": True}
    torch.manual_seed(3)
    match arch:
        case "llama":
            model = t.LlamaForCausalLM(t.LlamaConfig(**common | changes))
        case "mistral":
            model = t.MistralForCausalLM(t.MistralConfig(**common, sliding_window=5))
        case "gemma2":
            model = t.Gemma2ForCausalLM(
                t.Gemma2Config(
                    **common,
                    head_dim=8,
                    sliding_window=5,
                    final_logit_softcapping=2.0,
                    attn_logit_softcapping=3.0,
                )
            )
        case "gemma3":
            model = t.Gemma3ForCausalLM(t.Gemma3TextConfig(**common, head_dim=8, sliding_window=5))
        case "gpt2":
            model = t.GPT2LMHeadModel(t.GPT2Config(**GPT2 | {"vocab_size": len(tokenizer)}))
        case "gpt_oss":
            model = t.GptOssForCausalLM(
                t.GptOssConfig(**common, head_dim=8, num_local_experts=4, sliding_window=5)
            )
        case "qwen3_moe":
            model = t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**common | MOE | changes))
        case "mixtral":
            model = t.MixtralForCausalLM(t.MixtralConfig(**common, num_local_experts=4))
        case "olmoe":
            model = t.OlmoeForCausalLM(
                t.OlmoeConfig(**common, num_experts=4, num_experts_per_tok=2)
            )
        case _:
            raise KeyError(arch)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:  # attention that is all but even shows nothing
            parameter.data.mul_(8)
        elif name.endswith("bias") or "sink" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return Base.of(model.eval(), tokenizer, name=arch)


def by_hand(base, pairs, name="by hand"):
    """An adapter of given factors: site -> (A [r, d_in], B [d_out, r])."""
    spec = BaseRef(spec=base.spec, fingerprint=base.fingerprint)
    return Adapter.from_tensors(pairs, Card(base=spec), name)


def random_pair(base, site, rank=2, scale=0.3, seed=0, rows=None):
    """Factors for one site; ``rows`` are the outputs that may change."""
    weight = base.model.get_submodule(site).weight
    conv1d = type(base.model.get_submodule(site)).__name__ == "Conv1D"
    d_out, d_in = weight.shape[::-1] if conv1d else weight.shape
    chance = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, d_in, generator=chance)
    up = torch.randn(d_out, rank, generator=chance) * scale
    if rows is not None:
        kept = torch.zeros(d_out, 1)
        kept[rows] = 1
        up = up * kept
    return down, up


def on(base, *sites, name="by hand", **options):
    """An adapter by hand on some sites."""
    pairs = {
        site: random_pair(base, site, seed=number, **options) for number, site in enumerate(sites)
    }
    return by_hand(base, pairs, name)
