"""Atomic writes: a file or a folder is there whole, or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loratelier.kit.errors import InputError

# A folder that is still being written starts with this, and nothing lists it.
UNFINISHED = ".unfinished-"


def _scratch(target: Path) -> Path:
    return target.with_name(f"{UNFINISHED}{target.name}-{secrets.token_hex(4)}")


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a scratch folder beside ``target`` and rename it there when the block ends well.

    When the block raises, the scratch folder is removed and ``target`` is as it was. With
    ``replace`` an existing ``target`` is set aside first and put back if the rename fails.

    Raises:
        InputError: ``target`` exists and ``replace`` is false, before the block or after it, or
            its parent cannot be written.
    """
    _require_free(target, replace)
    scratch = _scratch(target)
    try:
        scratch.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror})") from error
    try:
        yield scratch
        # Somebody else may have made it meanwhile.
        _require_free(target, replace)
        _swap_in(scratch, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _require_free(target: Path, replace: bool) -> None:
    if target.exists() and not replace:
        raise InputError(f"{target} exists already", "Choose another name, or remove it first")


def _swap_in(scratch: Path, target: Path) -> None:
    if not target.exists():
        scratch.rename(target)
        return
    aside = _scratch(target)
    target.rename(aside)
    try:
        scratch.rename(target)
    except OSError:
        aside.rename(target)
        raise
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()


def write_atomic(target: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``target`` so that no reader sees half of it."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_file(target) as scratch:
        scratch.write_bytes(data)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a scratch path beside ``target``; what is written there is put in its place at the end.

    When the block raises, what it wrote is removed and ``target`` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(target)
    try:
        yield scratch
        with scratch.open("rb+") as stream:
            os.fsync(stream.fileno())
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
