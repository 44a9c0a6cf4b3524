"""Training step by step: TRL's SFTTrainer, a plain padded PEFT loop, and ours, on the same rows.

    python -m bench.train [--rows 64] [--batch 8] [--passes 1] [--peers ours,plain,trl]
    python -m bench.train --shape 2048,8192,16,32,8,128256 --device cuda [--checkpointing]

Each contender runs in a process of its own, so that its peak memory is its own, and takes a step
when it is told to: they take turns, step by step, so that a machine whose speed drifts treats them
alike. Every step is the same rows, the same targets, the same learning rate and the same first
weights; the losses must agree. Tokens are real ones, without padding. TRL has its own defaults but
for the learning rate, the order of the rows, and what a CPU cannot do. Model FLOPs are those of the
decoder's matrices and the head: 2 per weight and token forward and 2 backward (the base's weights
take no gradient), without attention and without the adapter; the machine's peak is the fastest of
square matrix products of 512 to 4096, measured between the steps of the same run.

On a GPU the base is drawn at random in true shapes, rows are random ids of chat-like lengths, TRL
uses Liger's kernels where they are installed, and memory is what was allocated at most.
"""

import argparse
import ctypes
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

RATE, RANK, ALPHA = 5e-4, 8, 16.0
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main():
    """Run the contenders in turns and print a table, or one of them when asked by ourselves."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rows", type=int, default=64)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--passes", type=int, default=1)
    options.add_argument("--peers", default="ours,plain,trl")
    options.add_argument("--shape")
    options.add_argument("--device", default="cpu")
    options.add_argument("--pack", type=int, help="tokens at once in memory, ours")
    options.add_argument("--checkpointing", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--one", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        contend(given)
    else:
        compare(given)


def compare(given):
    """Let the contenders take turns and print what was measured."""
    peers = given.peers.split(",")
    processes = {peer: start(peer) for peer in peers}
    steps = math.ceil(given.rows / given.batch) * given.passes
    told = {peer: read(processes[peer]) for peer in peers}
    taken = {peer: [] for peer in peers}
    for number in range(steps):
        order = peers[number % len(peers) :] + peers[: number % len(peers)]
        for peer in order:
            print("go", file=processes[peer].stdin, flush=True)
            taken[peer].append(read(processes[peer]))
            print(peer, number, taken[peer][-1], file=sys.stderr, flush=True)
    for peer in peers:
        told[peer] |= read(processes[peer])
        processes[peer].wait()
    report(given, told, taken)


def start(peer):
    """Start a contender as a process."""
    command = [sys.executable, "-m", "bench.train", *sys.argv[1:], "--one", peer]
    log = (Path(tempfile.gettempdir()) / f"bench-train-{peer}.log").open("w")
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
    )


def read(process):
    """Return the next line that a contender says to us; others print too."""
    for line in process.stdout:
        # TRL prints the dicts of its own log, which are no JSON.
        if line.startswith('{"'):
            return json.loads(line)
    raise SystemExit(f"a contender ended early: see bench-train-*.log in {tempfile.gettempdir()}")


def report(given, told, taken):
    """Print the table and the agreement of the losses."""
    peers = list(taken)
    first = peers[0]
    worst = {
        peer: max(
            abs(a["loss"] - b["loss"]) for a, b in zip(taken[first], taken[peer], strict=True)
        )
        for peer in peers
    }
    # The first step warms up.
    speed = {
        peer: sum(s["tokens"] for s in taken[peer][1:]) / sum(s["seconds"] for s in taken[peer][1:])
        for peer in peers
    }
    ratios = {
        peer: [
            other["seconds"] / ours["seconds"]
            for ours, other in zip(taken[first][1:], taken[peer][1:], strict=True)
        ]
        for peer in peers
    }
    peak = max(s["peak"] for peer in peers for s in taken[peer])
    lines = [
        {
            "contender": peer,
            "tokens_per_second": round(speed[peer], 1),
            "seconds_of_it_per_ours_median": round(statistics.median(ratios[peer]), 2),
            "lowest": round(min(ratios[peer]), 2),
            "highest": round(max(ratios[peer]), 2),
            "peak_memory_mib": told[peer]["memory"],
            "after_loading_mib": told[peer]["before"],
            "share_of_peak": round(
                statistics.median(s["flops"] / s["seconds"] / s["peak"] for s in taken[peer][1:]), 3
            ),
            "loss_differs_by": round(worst[peer], 6),
        }
        for peer in peers
    ]
    facts = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "device": told[first]["device"],
        "peak_gflops": round(peak / 1e9),
        "versions": {n: installed(n) for n in ("torch", "transformers", "peft", "trl")},
        "rows": given.rows,
        "padding": round(told[first]["padding"], 3),
        "steps": len(taken[first]),
        "result": lines,
    }
    print(json.dumps(facts, indent=2))


def installed(name):
    """Return a package's version, or None."""
    try:
        return version(name)
    except Exception:
        return None


def contend(given):
    """Be one contender: get ready, take a step at every "go", say what it took."""
    import torch

    if given.device == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    base = load(given)
    rows = chat_rows(given, base) if not given.shape else random_rows(given, base)
    batches = [
        rows[at : at + given.batch] for at in range(0, len(rows), given.batch)
    ] * given.passes
    forget_peak(given)
    weights = sum(
        p.numel() for n, p in base.model.named_parameters() if ".layers." in n and p.dim() > 1
    )
    head = base.model.get_output_embeddings().weight.numel()
    padded = sum(len(b) * max(map(len, b)) for b in batches)
    real = sum(len(row) for b in batches for row in b)
    say(device=name_of(given), before=memory(given), padding=1 - real / padded)

    def took(batch, loss, seconds):
        give_back()
        tokens, targets = sum(map(len, batch)), sum(row.targets for row in batch)
        say(
            loss=loss,
            seconds=seconds,
            tokens=tokens,
            flops=4 * weights * tokens + 4 * head * targets,
            peak=peak_flops(given),
        )

    {"ours": ours, "plain": plain, "trl": trl}[given.one](given, base, batches, took)
    say(memory=memory(given))


def give_back():
    """Give freed memory back to the system, so that contenders who wait leave room for the one that
    works: the peaks of three would not fit beside each other.
    """
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def say(**facts):
    print(json.dumps(facts), flush=True)


def wait():
    sys.stdin.readline()


def load(given):
    """Return the demo base, or a model of random weights in true shapes with its tokenizer."""
    from loratelier import load_base
    from loratelier.base import Base

    if not given.shape:
        return load_base("demo", device=given.device)
    from bench.bank import random_model

    return Base.of(random_model(given.shape, given.device), None, name="random")


def chat_rows(given, base):
    """Return rows of the sample vault, of lengths from short to long, in a fixed order."""
    from loratelier import build_corpus
    from loratelier.train.examples import to_example

    corpus = build_corpus(Path(__file__).parents[1] / "examples" / "vault").rows.to_pylist()
    made = [to_example(base, r["id"], r["conversation"], r["messages"]) for r in corpus]
    made.sort(key=lambda row: (len(row), row.row))
    chosen = [made[n * len(made) // given.rows] for n in range(given.rows)]
    random.Random(0).shuffle(chosen)
    return chosen


def random_rows(given, base):
    """Return rows of random ids, of lengths as chats have them (log-normal, median 300)."""
    from loratelier.train.examples import Example

    dice = random.Random(0)
    size = base.model.config.vocab_size
    rows = []
    for number in range(given.rows):
        length = min(2048, max(32, round(dice.lognormvariate(math.log(300), 0.8))))
        ids = tuple(dice.randrange(size) for _ in range(length))
        asked = length // 3
        learned = tuple(place >= asked for place in range(length))
        rows.append(Example(str(number), str(number), ids, learned))
    return rows


def peft_model(given, base):
    """Return the base under PEFT as every contender but ours trains it."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=LINEAR)
    torch.manual_seed(0)
    model = get_peft_model(base.model, config).train()
    if given.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def ours(given, base, batches, took):
    """Take the steps of our loop."""
    from accelerate import Accelerator

    from loratelier.base.packed import rows_apart, tokens_at_once
    from loratelier.kit.progress import task
    from loratelier.train import Recipe, loop, model
    from loratelier.train.learner import Learner
    from loratelier.train.objective import Sft
    from loratelier.train.steps import Cut, step_of

    recipe = Recipe(
        base="demo",
        corpus=Path(),
        name="bench",
        rank=RANK,
        alpha=ALPHA,
        learning_rate=RATE,
        checkpointing=given.checkpointing,
    )
    at_once = given.pack or tokens_at_once(given.device)
    peft = model.wrap(base, recipe)
    with rows_apart(base.model) as apart, task("bench", total=1) as bar:
        learner = Learner(base.model, peft, apart, recipe)
        optimizer = model.make_optimizer(learner, recipe)
        accelerator = Accelerator(cpu=given.device == "cpu")
        prepared, optimizer = accelerator.prepare(learner, optimizer)
        work = loop.Run(
            learner=learner,
            prepared=prepared,
            optimizer=optimizer,
            accelerator=accelerator,
            recipe=recipe,
            objective=Sft(),
            plan=None,  # the steps are told to us one by one, and nothing is measured or saved
            meter=None,
            save=None,
            told=Silent(),
            watch=Silent(),
        )
        state = loop.State()
        for batch in batches:
            wait()
            began = clock(given)
            step = step_of(batch, Cut(step=10**9, pack=at_once))
            loop._step(work, step, state, len(batches), bar)
            took(batch, state.losses[-1], clock(given) - began)


class Silent:
    """A journal that nobody keeps, and a watch that nobody looks at."""

    left = None

    def step(self, *_):
        """Forget a step."""

    def say(self, *_):
        """Say nothing."""
        return ""


def plain(given, base, batches, took):
    """Take the steps of the loop that a tutorial shows: padded batches, whole logits."""
    import torch

    from loratelier.train.loop import schedule

    model = peft_model(given, base)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    for number, batch in enumerate(batches):
        wait()
        began = clock(given)
        ids, mask, labels = (t.to(base.device) for t in padded(batch))
        optimizer.param_groups[0]["lr"] = RATE * schedule(number, len(batches))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        took(batch, float(loss.detach()), clock(given) - began)


def padded(batch):
    """Return ids, mask and labels of a batch padded on the right."""
    import torch

    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for n, row in enumerate(batch):
        own = torch.tensor(row.ids)
        ids[n, : len(row)], mask[n, : len(row)] = own, 1
        labels[n, : len(row)] = torch.where(torch.tensor(row.learned), own, -100)
    return ids, mask, labels


def trl(given, base, batches, took):
    """Take the steps of TRL's SFTTrainer, with its defaults."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from loratelier.base.demo import fetch_demo
    from loratelier.train.loop import schedule

    rows = [row for batch in batches for row in batch]
    data = Dataset.from_list(
        [
            {
                "input_ids": list(r.ids),
                "labels": [i if k else -100 for i, k in zip(r.ids, r.learned, strict=True)],
            }
            for r in rows
        ]
    )
    on_gpu = given.device == "cuda"
    model = peft_model(argparse.Namespace(checkpointing=False), base)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule(min(step, len(batches) - 1), len(batches))
    )
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=not on_gpu,
        bf16=on_gpu,
        use_liger_kernel=on_gpu and installed("liger-kernel") is not None,
        gradient_checkpointing=given.checkpointing if on_gpu else True,
        max_length=2048,
        per_device_train_batch_size=given.batch,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(fetch_demo()) if not on_gpu else _tokenizer()

    class Turns(TrainerCallback):
        number, began, seconds = 0, 0.0, 0.0

        def on_step_begin(self, *args, **kwargs):
            wait()
            self.began = clock(given)

        def on_step_end(self, *args, **kwargs):
            self.seconds = clock(given) - self.began

        def on_log(self, args, state, control, logs=None, **kwargs):
            if logs and "loss" in logs:
                took(batches[self.number], logs["loss"], self.seconds)
                self.number += 1

    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer,
        optimizers=(optimizer, scheduler),
        callbacks=[Turns()],
    )
    trainer.train()


def _tokenizer():
    """Return a tokenizer for a machine that has none: TRL wants one to pad with."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = models.WordLevel({"[PAD]": 0, "[EOS]": 1}, unk_token="[PAD]")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="[PAD]", eos_token="[EOS]"
    )


def clock(given):
    """Return the time once the device has done what it was asked."""
    if given.device == "cuda":
        import torch

        torch.cuda.synchronize()
    return perf_counter()


def peak_flops(given):
    """Return the floating-point operations a second of the fastest square matrix product."""
    import torch

    sizes = (512, 1024, 2048) if given.device == "cpu" else (4096, 8192)
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    best = 0.0
    for size in sizes:
        one = torch.randn(size, size, dtype=dtype, device=given.device)
        for _ in range(3):
            began = clock(given)
            one @ one
            best = max(best, 2 * size**3 / (clock(given) - began))
    return best


def forget_peak(given):
    """Start measuring memory anew: loading a base is not training it."""
    if given.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def memory(given):
    """Return the most memory that was in use, in MiB."""
    if given.device == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated() / 2**20)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def name_of(given):
    """Return what the device is called."""
    if given.device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
