"""Tiny seeded models of five kinds, and adapters of every kind that PEFT writes for them."""

import copy
import warnings
from functools import cache

import torch
from peft import LoraConfig, PeftModel, get_peft_model

COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {
    "vocab_size": 96,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}


def _build(arch):
    import transformers as t

    match arch:
        case "llama":
            return t.LlamaForCausalLM(t.LlamaConfig(**COMMON, tie_word_embeddings=False))
        case "qwen2":
            return t.Qwen2ForCausalLM(t.Qwen2Config(**COMMON, tie_word_embeddings=True))
        case "gemma3":
            return t.Gemma3ForCausalLM(
                t.Gemma3TextConfig(**COMMON, head_dim=8, sliding_window=8, tie_word_embeddings=True)
            )
        case "gpt2":
            return t.GPT2LMHeadModel(t.GPT2Config(**GPT2))
        case "moe":
            return t.Qwen3MoeForCausalLM(
                t.Qwen3MoeConfig(**COMMON, **MOE, tie_word_embeddings=False)
            )
    raise KeyError(arch)


@cache
def tiny(arch):
    """The model of an architecture, made once; whoever writes to it takes a copy."""
    torch.manual_seed(11)
    model = _build(arch).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero when made, and a zero hides a missing term
            torch.nn.init.normal_(parameter, std=0.1)
        elif parameter.ndim > 1:  # large enough that greedy choices are no ties
            parameter.mul_(8)
    return model


ARCHS = ("llama", "qwen2", "gemma3", "gpt2", "moe")
ATTENTION = {arch: ["q_proj", "v_proj"] for arch in ARCHS} | {"gpt2": ["c_attn"]}
LINEAR = {arch: ["q_proj", "k_proj", "v_proj", "o_proj"] for arch in ARCHS}
for _arch in ("llama", "qwen2", "gemma3"):
    LINEAR[_arch] = [*LINEAR[_arch], "gate_proj", "up_proj", "down_proj"]
LINEAR["gpt2"] = ["c_attn", "c_proj", "c_fc"]
EMBEDDING = dict.fromkeys(ARCHS, "embed_tokens") | {"gpt2": "wte"}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
INVOCATION = [7, 8]


def variants(arch):
    """The keyword arguments of ``LoraConfig`` for every variant that an architecture can have."""
    linear, attention, embedding = LINEAR[arch], ATTENTION[arch], EMBEDDING[arch]
    one = {"target_modules": attention}
    found = {
        "plain": {"target_modules": linear},
        "rslora": {"target_modules": linear, "use_rslora": True},
        "patterns": {
            "target_modules": linear,
            "rank_pattern": {attention[0]: 2, f"1.*{linear[-1]}": 7},
            "alpha_pattern": {linear[-1]: 3},
        },
        "layers": {"target_modules": linear, "layers_to_transform": [1]},
        "regex": {"target_modules": rf".*\.1\..*({'|'.join(attention)})"},
        "bias of the adapted": {**one, "bias": "lora_only"},
        "bias of all": {**one, "bias": "all"},
        "bias of B": {**one, "lora_bias": True},
        "embedding": {"target_modules": [*attention, embedding]},
        "head": {"target_modules": [*attention, "lm_head"]},
        "embedding and head": {"target_modules": [embedding, "lm_head"]},
        "tokens": {**one, "trainable_token_indices": [3, 40, 95]},
        "tokens by layer": {**one, "trainable_token_indices": {embedding: [5, 6]}},
        "module head": {**one, "modules_to_save": ["lm_head"]},
        "module embedding": {**one, "modules_to_save": [embedding]},
        "module mlp": {**one, "modules_to_save": ["mlp"]},
        "module norm": {**one, "modules_to_save": ["ln_f" if arch == "gpt2" else "norm"]},
        "dora": {"target_modules": linear, "use_dora": True},
        "dora embedding": {"target_modules": [*attention, embedding], "use_dora": True},
        "alora": {"target_modules": linear, "alora_invocation_tokens": INVOCATION},
    }
    if arch in ("qwen2", "gemma3", "gpt2"):
        found["tied embedding"] = {"target_modules": [embedding], "ensure_weight_tying": True}
        found["tied module"] = {
            **one,
            "modules_to_save": [embedding],
            "ensure_weight_tying": True,
        }
    else:
        found["tokens of both"] = {
            **one,
            "trainable_token_indices": {embedding: [5, 6], "lm_head": [5, 9, 11]},
        }
    if arch == "gpt2":
        found["fan in"] = {"target_modules": linear, "fan_in_fan_out": True}
        del found["module mlp"]["target_modules"]
        found["module mlp"]["target_modules"] = ["c_attn"]
    if arch == "moe":
        found["experts"] = {"target_modules": attention, "target_parameters": EXPERTS}
        found["one expert parameter"] = {
            "target_modules": [],
            "target_parameters": EXPERTS[1:],
            "use_rslora": True,
        }
        found["expert patterns"] = {
            "target_modules": [],
            "target_parameters": EXPERTS,
            "rank_pattern": {EXPERTS[0]: 2},
            "alpha_pattern": {EXPERTS[1]: 5},
        }
        found["bare parameters"] = {
            "target_modules": attention,
            "target_parameters": ["gate_up_proj", "gate.weight", "down_proj"],
        }
        found["router"] = {"target_modules": attention, "target_parameters": ["gate.weight"]}
        found["module mlp"]["modules_to_save"] = ["input_layernorm"]
    return found


CASES = [(arch, variant) for arch in ARCHS for variant in variants(arch)]


def write(arch, variant, folder, seed=0):
    """Save an adapter with PEFT, everything that it trains moved away from where it began."""
    options = {"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"} | variants(arch)[variant]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = get_peft_model(copy.deepcopy(tiny(arch)), LoraConfig(**options))
        chance = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=chance)
        model.save_pretrained(folder)
    return folder


def peft(arch, folder):
    """The adapter as PEFT loads it, over a copy of the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(copy.deepcopy(tiny(arch)), folder).eval()


def batch(rows=4, length=14):
    """Token rows, of which some are padded on the left and some invoke an aLoRA, one twice."""
    ids = torch.randint(9, 96, (4, length), generator=torch.Generator().manual_seed(5))
    ids[0, 6:8] = torch.tensor(INVOCATION)
    ids[1, 3:5] = ids[1, 9:11] = torch.tensor(INVOCATION)
    mask = torch.ones_like(ids)
    for row, padding in ((1, 2), (2, 5)):
        ids[row, :padding], mask[row, :padding] = 0, 0
    ids[3, 3:6] = torch.tensor([3, 40, 95])
    ids[2, 8:11] = torch.tensor([5, 6, 11])
    return ids[:rows], mask[:rows]


GREEDY = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
