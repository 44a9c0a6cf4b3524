"""The memory plan beside the memory that training took, one configuration a process.

    python -m bench.plan [--only demo-lora,qwen-full] [--steps 3] [--json]

Each configuration is trained for a few steps through ``train`` in a process of its own. Measured is
the highest resident memory from the first line on that says what is planned (when the base is
loaded) to the end of the last step and its evaluation. ``beyond`` leaves out of both figures what
the process had after its imports, before there was a model, so that the constant part does not
flatter the plan. Bases that are not the demo base are drawn at random in the given shapes and wear
the demo base's tokenizer. Nothing of the allocator is configured. Of the general text a few texts
are measured, which saves time and changes no peak.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

# Shapes of about 100 million parameters.
SHAPES = {
    "qwen": {"model_type": "qwen3", "hidden_size": 768, "intermediate_size": 2304,
             "num_hidden_layers": 10, "num_attention_heads": 12, "num_key_value_heads": 4,
             "head_dim": 64, "tie_word_embeddings": False},
    "gptneox": {"model_type": "gpt_neox", "hidden_size": 768, "intermediate_size": 3072,
                "num_hidden_layers": 12, "num_attention_heads": 12, "tie_word_embeddings": False},
    "moe": {"model_type": "qwen3_moe", "hidden_size": 512, "intermediate_size": 1024,
            "moe_intermediate_size": 256, "num_experts": 16, "num_experts_per_tok": 4,
            "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 64, "tie_word_embeddings": True},
}  # fmt: skip
# name: base, recipe keys
RUNS = {
    "demo-lora": ("demo", {"batch_tokens": 512}),
    "demo-lora-1024": ("demo", {"batch_tokens": 1024}),
    "demo-lora-r64-packs": ("demo", {"rank": 64, "batch_tokens": 1024, "pack_tokens": 384}),
    "demo-top-attention": ("demo", {"targets": "q k v o", "layers": "20-29", "batch_tokens": 1024}),
    "demo-checkpointing": ("demo", {"checkpointing": True, "batch_tokens": 1024}),
    "demo-qlora": ("demo", {"quantization": "nf4", "dtype": "float32", "batch_tokens": 512}),
    "demo-full": ("demo", {"objective": "full", "batch_tokens": 512}),
    "qwen-lora": ("qwen", {"batch_tokens": 1024}),
    "qwen-full": ("qwen", {"objective": "full", "batch_tokens": 512}),
    "qwen-qlora": ("qwen", {"quantization": "nf4", "dtype": "float32", "batch_tokens": 1024}),
    "gptneox-lora": ("gptneox", {"targets": "query_key_value dense", "batch_tokens": 512}),
    "moe-lora": ("moe", {"targets": "q k v o", "batch_tokens": 512}),
}


def main():
    """Run the configurations one after the other and print the table, or one that is asked for."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--only", default=",".join(RUNS))
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--json", action="store_true")
    options.add_argument("--one", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(measured(given.one, given.steps)))
        return
    lines = [one(name, given.steps) for name in given.only.split(",")]
    if given.json:
        print(json.dumps({"machine": machine(), "result": lines}, indent=2))
        return
    print(machine())
    print("| run | packs of tokens | planned MiB | measured MiB | off | beyond the imports, off |")
    print("|---|---|---|---|---|---|")
    for line in lines:
        print(
            f"| {line['run']} | {line['tokens']} | {line['planned']:,} | {line['measured']:,} | "
            f"{line['planned'] / line['measured'] - 1:+.1%} | {off(line):+.1%} |"
        )


def off(line):
    """Return how far the plan is off, leaving out what was there before the model."""
    start = line["imports"]
    return (line["planned"] - start) / (line["measured"] - start) - 1


def machine():
    """Return the machine and the versions."""
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, {versions}"


def one(name, steps):
    """Run a configuration as a process."""
    command = [sys.executable, "-m", "bench.plan", "--one", name, "--steps", str(steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {off(line):+.1%} {line}", file=sys.stderr, flush=True)
    return line


class Heard:
    """Resets the highest memory when the plan is said, and reads it after every step."""

    def __init__(self):
        self.peak, self.plan_said, self.at = 0, False, {}

    def task(self, description, total):
        return nullcontext(self)

    def advance(self, amount=1):
        if self.plan_said:
            self.peak = memory("VmHWM")

    def say(self, note, left=None):
        pass

    def remark(self, text):
        print(text, file=sys.stderr)
        if text.startswith("Memory: "):
            Path("/proc/self/clear_refs").write_text("5")
            self.plan_said = True


def measured(name, steps):
    """Train a configuration and return what was planned and what was measured, in MiB."""
    import loratelier.train.run  # noqa: F401 - what is there before there is a model
    from loratelier.kit.progress import report_to
    from loratelier.train import estimate

    imports = memory("VmRSS")
    plans = []
    before = estimate.foresee
    estimate.foresee = lambda *given: plans.append(before(*given)) or plans[-1]
    heard = Heard()
    with tempfile.TemporaryDirectory() as place, report_to(heard):
        run(name, steps, Path(place))
    plan = plans[0]
    return {
        "run": name,
        "tokens": plan.tokens,
        "planned": plan.total >> 20,
        "measured": heard.peak,
        "imports": imports,
        "parts": {part: size >> 20 for part, size in plan.parts.items() if size >> 20},
        "moment": plan.fullest.name,
    }


def run(name, steps, place):
    """Train a configuration for a few steps."""
    from loratelier.corpus import build_corpus
    from loratelier.kit.home import room
    from loratelier.train import load_recipe, train
    from loratelier.train import run as training

    texts = training.general_text()[:4]
    training.general_text = lambda: texts
    base, changes = RUNS[name]
    if base != "demo":
        base = str(drawn(base, place / "base"))
    build_corpus(Path("examples/vault/everyday"), holdout=0.2).save(place / "corpus")
    bases = room("bases")
    os.environ["LORATELIER_HOME"] = str(place / "home")
    (place / "home").mkdir()
    (place / "home" / "bases").symlink_to(bases)
    given = {"base": base, "corpus": str(place / "corpus"), "name": name, "epochs": 1}
    train(load_recipe(None, given | {"dtype": "float32", "max_steps": steps} | changes))


def drawn(shape, folder):
    """Write a base with random weights, in a process of its own, and return its folder."""
    code = (
        "import sys, json, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "from transformers.models.auto.configuration_auto import CONFIG_MAPPING\n"
        "from loratelier.base.demo import demo_folder\n"
        "told = json.loads(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(demo_folder())\n"
        "torch.manual_seed(0)\n"
        "config = CONFIG_MAPPING[told['model_type']].from_dict(told)\n"
        "AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[2])\n"
        "tokenizer.save_pretrained(sys.argv[2])\n"
    )
    told = json.dumps(SHAPES[shape] | {"vocab_size": 49152, "eos_token_id": 2})
    subprocess.run([sys.executable, "-c", code, told, str(folder)], check=True)
    return folder


def memory(key):
    """Return a figure of this process' memory in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{key}:\s+(\d+)", status)[1]) // 1024


if __name__ == "__main__":
    main()
