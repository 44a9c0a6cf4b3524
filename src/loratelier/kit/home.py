"""LORATELIER_HOME: where bases, corpora and adapters live."""

import os
from pathlib import Path

from loratelier.kit.errors import InputError

VARIABLE = "LORATELIER_HOME"


def home() -> Path:
    """Return the home folder, made if it is missing.

    Raises:
        InputError: the folder cannot be made or written.
    """
    named = os.environ.get(VARIABLE)
    path = Path(named).expanduser() if named else Path.home() / ".loratelier"
    mend = f"Point {VARIABLE} at a folder that you can write"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The home folder {path} cannot be made ({error.strerror})", mend
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"The home folder {path} cannot be written", mend)
    return path.resolve()


def room(name: str) -> Path:
    """Return the folder ``name`` under the home, made if it is missing."""
    path = home() / name
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be made ({error.strerror})",
            f"Point {VARIABLE} at a folder that you can write",
        ) from error
    return path
