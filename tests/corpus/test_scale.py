"""A gigabyte of export in two of memory: made, built in a process of its own, and measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_an_export_of_a_gigabyte_is_built_in_two_of_memory():
    command = [sys.executable, "-m", "bench.big_export", "--megabytes", "1000"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    took = json.loads(done.stdout)
    assert took["conversations"] == took["rows"] == took["made_conversations"]
    assert took["broken"] == 0
    assert took["peak_resident_mib"] <= 2048
