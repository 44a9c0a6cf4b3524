"""The training bench runs: its figures stand in docs/benchmarks.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_our_steps_and_the_padded_loop_have_the_same_losses(demo_base):
    """Two steps of two rows, each contender in its own process, as a reader would start them."""
    command = [sys.executable, "-m", "bench.train", "--rows", "4", "--batch", "2"]
    ended = subprocess.run(
        [*command, "--peers", "ours,plain"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    ours, plain = told["result"]
    assert (ours["contender"], plain["contender"], told["steps"]) == ("ours", "plain", 2)
    assert plain["loss_differs_by"] < 1e-3
