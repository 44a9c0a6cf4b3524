"""Decoding with many adapters in one batch: the base alone, PEFT's ``adapter_names``, the bank.

    python bench/bank.py [--base demo] [--rows 16] [--tokens 16] [--rounds 5] [--resident 256]

Seeded random adapters of rank 8 on all linear layers, greedy decoding of ``--rows`` rows. All ways
take turns within each round, so that a machine whose speed drifts treats them alike; ratios are
formed within a round, and their median is what counts. The first round warms up and is not counted.
In every round the bank's tokens must be PEFT's. ``--without-peft`` leaves PEFT out, and with it
that check. A base whose weights cannot be fetched where the device is may be drawn at random in its
true shapes: ``--shape HIDDEN,INTERMEDIATE,LAYERS,HEADS,KV_HEADS,VOCABULARY``.
"""

import argparse
import json
import platform
import statistics
import sys
from importlib.metadata import version
from time import perf_counter

import torch
from peft import LoraConfig, get_peft_model

from loratelier import Adapter, AdapterBank, load_base
from loratelier.adapter import Card

RANK = 8
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def random_model(shape, device):
    """A Llama of random weights in given shapes, in bfloat16 on a GPU and float32 elsewhere."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, intermediate, layers, heads, kv_heads, vocabulary = map(int, shape.split(","))
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def random_adapter(model, seed):
    """An adapter of rank 8 on every linear layer but the output, its update small and not zero."""
    chance = torch.Generator().manual_seed(seed)
    pairs = {
        name: (
            torch.randn(RANK, module.in_features, generator=chance) / module.in_features**0.5,
            torch.randn(module.out_features, RANK, generator=chance) * 0.01,
        )
        for name, module in model.named_modules()
        if name.endswith(tuple(LAYERS))
    }
    return Adapter.from_tensors(pairs, Card(), f"a{seed}", alphas=2.0 * RANK)


def with_peft(model, adapters):
    """The same adapters over the same model, held by PEFT."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LAYERS)
    names = list(adapters)
    wrapped = get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        wrapped.add_adapter(name, config)
    for site in adapters[names[0]].sites:
        layer = wrapped.base_model.model.get_submodule(site)
        for name, adapter in adapters.items():
            down, up = adapter.tensors[site]
            layer.lora_A[name].weight.data.copy_(down)
            layer.lora_B[name].weight.data.copy_(up)
    return wrapped.eval()


def rows_of(count, rows):
    return [f"a{row % count}" for row in range(rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="demo")
    parser.add_argument("--shape")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resident", type=int, default=256)
    parser.add_argument("--without-peft", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def make():
        if options.shape:
            return random_model(options.shape, options.device)
        return load_base(options.base, device=options.device).model

    model = make()
    adapters = {f"a{seed}": random_adapter(model, seed) for seed in range(options.resident)}
    few, many = AdapterBank(model), AdapterBank(model)
    for name, adapter in adapters.items():
        many.add(name, adapter)
        many.pin(name)
        if int(name[1:]) < 16:
            few.add(name, adapter)
    reference = None
    if not options.without_peft:
        reference = with_peft(make(), {name: adapters[name] for name in rows_of(16, 16)})

    vocabulary = model.config.vocab_size
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(10, vocabulary, (options.rows, options.prompt), generator=chance)
    ids = ids.to(model.device)
    settings = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": options.tokens,
        "min_new_tokens": options.tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }

    def decode(bank=None, names=None):
        if bank is None:
            return model.generate(ids, **settings)
        with bank.activate(names):
            return model.generate(ids, **settings)

    def decode_peft(names):
        return reference.generate(input_ids=ids, adapter_names=names, **settings)

    eight, sixteen = rows_of(8, options.rows), rows_of(16, options.rows)
    # Of 256, other ones than the few that the small bank holds.
    spread = [f"a{(37 * row) % options.resident}" for row in range(8)] * (options.rows // 8)
    ways = {
        "base": lambda: decode(),
        "base, bank attached and off": lambda: decode(many, None),
        "bank, 8 distinct": lambda: decode(few, eight),
        "bank, 16 distinct": lambda: decode(few, sixteen),
        f"bank, 8 distinct of {options.resident}": lambda: decode(many, spread),
        "bank, mixture of 8 in every row": lambda: decode(few, dict.fromkeys(eight[:8], 0.125)),
    }
    if reference is not None:
        ways["PEFT adapter_names, 8 distinct"] = lambda: decode_peft(eight)
        ways["PEFT adapter_names, 16 distinct"] = lambda: decode_peft(sixteen)
    seconds = {name: [] for name in ways}
    with torch.no_grad():
        for number in range(options.rounds + 1):
            made = {}
            for name, way in ways.items():
                if options.device == "cuda":
                    torch.cuda.synchronize()
                began = perf_counter()
                made[name] = way()
                if options.device == "cuda":
                    torch.cuda.synchronize()
                if number:
                    seconds[name].append(perf_counter() - began)
            for count in (8, 16) if reference is not None else ():
                ours = made[f"bank, {count} distinct"]
                if not torch.equal(ours, made[f"PEFT adapter_names, {count} distinct"]):
                    sys.exit(f"round {number}: the bank's tokens are not PEFT's")
            print(f"round {number} of {options.rounds} done", file=sys.stderr)
    report(options, model, seconds)


def report(options, model, seconds):
    distinct = f"bank, 8 distinct of {options.resident}"
    wanted = [
        ("base, bank attached and off", "base", "at most 1.02"),
        ("bank, 8 distinct", "base", "at most 1.20"),
        (distinct, "bank, 8 distinct", "at most 1.15"),
        ("bank, 16 distinct", "base", ""),
        ("bank, mixture of 8 in every row", "base", ""),
        ("PEFT adapter_names, 8 distinct", "bank, 8 distinct", "at least 2"),
        ("PEFT adapter_names, 16 distinct", "bank, 16 distinct", "at least 3"),
    ]
    rates = {
        name: options.rows * options.tokens / statistics.median(took)
        for name, took in seconds.items()
    }
    ratios = {
        f"time of [{one}] / [{other}]": {
            "median": round(statistics.median(pairs), 3),
            "lowest": round(min(pairs), 3),
            "highest": round(max(pairs), 3),
            "wanted": bar,
        }
        for one, other, bar in wanted
        if one in seconds
        for pairs in [[a / b for a, b in zip(seconds[one], seconds[other], strict=True)]]
    }
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "loratelier")}
    document = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {options.device}",
        "dtype": str(model.dtype),
        "versions": versions,
        "rows": options.rows,
        "tokens": options.tokens,
        "rounds": options.rounds,
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "ratios": ratios,
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{document['machine']}; {versions}; {options.rows} rows, {options.tokens} tokens each")
    for name, rate in rates.items():
        print(f"  {name:<42} {rate:8.1f} tokens/s")
    for name, each in ratios.items():
        span = f"{each['lowest']:.2f} to {each['highest']:.2f}"
        print(f"  {name}: {each['median']:.3f} ({span}) {each['wanted']}")


if __name__ == "__main__":
    main()
