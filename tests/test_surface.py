"""The public surface, as others call it."""

import subprocess
import sys

import loratelier


def test_every_public_name_is_there():
    for name in loratelier.__all__:
        assert getattr(loratelier, name) is not None
    assert set(loratelier.__all__) <= set(dir(loratelier))


def test_importing_and_help_do_not_wait_for_torch():
    code = "import sys, loratelier, loratelier.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
