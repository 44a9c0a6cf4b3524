"""Runs seen as whole processes: two at once, killed and resumed, with a disk that fills up."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.train import Recipe
from tests.conftest import make_tiny
from tests.train.conftest import NOTE

BEGIN = [sys.executable, "-m", "loratelier", "train"]


@pytest.fixture
def ground(tmp_path):
    """A folder with a tiny base, a corpus, and an empty home."""
    from loratelier.corpus import build_corpus

    model, tokenizer = make_tiny()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(16):
        answer = "Turn it over. Now it moves." + " The step: go." * (1 + number % 3)
        text = NOTE.format(number=number, question=f"What is thing {number}?", answer=answer)
        (notes / f"{number}.md").write_text(text, encoding="utf-8")
    build_corpus(notes, holdout=0.2).save(tmp_path / "rows")
    return tmp_path


def command(ground, name, *changes):
    given = ["--corpus", str(ground / "rows"), "--base", str(ground / "base"), "--name", name]
    keys = ["rank=4", "epochs=3", "batch_tokens=400", "learning_rate=1e-2", *changes]
    return [*given, *(part for key in keys for part in ("--set", key))]


def run(ground, *arguments, launch=(), home="home", **options):
    surroundings = os.environ | {
        "LORATELIER_HOME": str(ground / home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen(
        [*(launch or BEGIN), *arguments],
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def done(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-3000:]
    return out + err


def adapter(ground, name, home="home"):
    return Adapter.load(ground / home / "adapters" / name)


def assert_equal(one, other, tolerance=0.0):
    assert one.sites == other.sites
    for site in one.sites:
        for a, b in zip(one.tensors[site], other.tensors[site], strict=True):
            assert torch.equal(a, b) if not tolerance else torch.allclose(a, b, atol=tolerance)


GUARDS = ["replay=0.2", "kl=0.2", "norm=1e-3", "token_mask=250"]


@pytest.mark.parametrize("guards", [[], GUARDS], ids=["plain", "guarded"])
def test_two_processes_equal_one(ground, guards):
    keys = [f"guards.{guard}" for guard in guards]
    done(run(ground, *command(ground, "one", *keys)))
    launch = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"),
        *("--num_machines", "1", "--main_process_port", "0", "-m", "loratelier", "train"),
    ]
    told = done(run(ground, *command(ground, "two", *keys), launch=launch))
    assert told.count("Training 'two':") == 1  # one of the two speaks
    one, two = adapter(ground, "one"), adapter(ground, "two")
    assert_equal(one, two, tolerance=1e-4)
    for a, b in zip(one.card.metrics["losses"], two.card.metrics["losses"], strict=True):
        assert abs(a - b) < 1e-4


def kill_and_resume(ground, kills, changes=()):
    """Kill a run at random moments, resume it, and return what it made."""
    dice = random.Random(7)
    first = time.monotonic()
    done(run(ground, *command(ground, "whole", *changes)))
    whole = time.monotonic() - first
    killed = 0
    while killed < kills:
        process = run(
            ground, *command(ground, "parts", "save_seconds=0", *changes), "--resume", home="other"
        )
        try:
            process.wait(timeout=dice.uniform(0.4, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        if process.returncode == 0:
            break
    if not (ground / "other" / "adapters" / "parts").exists():
        done(
            run(
                ground,
                *command(ground, "parts", "save_seconds=0", *changes),
                "--resume",
                home="other",
            )
        )
    return adapter(ground, "whole"), adapter(ground, "parts", "other"), killed


def test_a_killed_run_goes_on_exactly(ground):
    whole, parts, killed = kill_and_resume(ground, 2, ["epochs=12", "patience=20"])
    assert killed > 0
    assert_equal(whole, parts)
    assert whole.card.metrics["losses"] == parts.card.metrics["losses"]


@pytest.mark.long
def test_a_run_that_is_killed_ten_times_goes_on_exactly(ground):
    whole, parts, killed = kill_and_resume(ground, 10, ["epochs=60", "patience=99"])
    assert killed == 10
    assert_equal(whole, parts)
    assert whole.card.metrics["losses"] == parts.card.metrics["losses"]


def test_a_full_disk_loses_nothing(ground):
    """Files may not grow beyond a few kilobytes: states cannot be saved, the run goes on and says
    so; the adapter cannot be written, and that is one line that says how to go on."""
    import resource

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    given = [*command(ground, "tight"), "--set", "save_seconds=0"]
    process = run(ground, *given, preexec_fn=small_files)
    _, told = process.communicate(timeout=240)
    assert process.returncode == 2
    assert "could not be saved" in told
    assert told.strip().splitlines()[-1].endswith("go on with --resume")
    assert not list(Path(ground / "home" / "adapters").glob("*tight*"))
    done(run(ground, *given, "--resume"))
    done(run(ground, *command(ground, "wide")))
    assert_equal(adapter(ground, "tight"), adapter(ground, "wide"))


def test_a_sharded_model_equals_a_whole_one(ground):
    """FSDP2 over two processes: weights, moments and the adapter are put together when saved."""
    launch = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--standalone", str(Path(__file__).with_name("sharded.py")), "train"),
    ]
    done(run(ground, *command(ground, "one")))
    done(run(ground, *command(ground, "two"), launch=launch))
    assert_equal(adapter(ground, "one"), adapter(ground, "two"), tolerance=1e-4)


def test_deepspeed_is_refused_before_anything_is_trained(monkeypatch):
    """A launch that we cannot resume exactly must not begin."""
    from accelerate.utils import DistributedType

    from loratelier.kit.errors import InputError
    from loratelier.train import processes

    class Launched:
        distributed_type = DistributedType.DEEPSPEED

        def __init__(self, **_):
            pass

    model, tokenizer = make_tiny()
    base = Base.of(model, tokenizer, name="tiny")
    recipe = Recipe(base="tiny", corpus=Path(), name="shared")
    monkeypatch.setattr(processes, "Accelerator", Launched)
    with pytest.raises(InputError, match="DeepSpeed") as refused:
        processes.make_accelerator(recipe, base)
    assert "fsdp2.yaml" in str(refused.value)
