"""The store: adapters by name, in the home folder."""

import dataclasses
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loratelier.adapter.adapter import Adapter
from loratelier.adapter.card import FILE as CARD_FILE
from loratelier.adapter.model_card import FILE as README
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.files import UNFINISHED, write_atomic
from loratelier.kit.home import room

_NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """A name in the store: the adapter, or what is wrong with it."""

    name: str
    adapter: Adapter | None
    error: str | None


def path_of(name: str) -> Path:
    """Return where an adapter of that name lives, whether it is there or not.

    Raises:
        InputError: a name that could be a path, or is too long.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' is no name for an adapter",
            "Letters, digits, '.', '_' and '-', 64 at most, beginning with a letter or a digit",
        )
    return room("adapters") / name


def names() -> list[str]:
    """Return the names in the store; a folder that is being written is not among them."""
    return sorted(
        path.name
        for path in room("adapters").iterdir()
        if path.is_dir() and not path.name.startswith((UNFINISHED, "."))
    )


def entries() -> list[Entry]:
    """Return every adapter of the store; a damaged one with what is wrong."""
    return [_entry(name) for name in names()]


def _entry(name: str) -> Entry:
    try:
        return Entry(name, Adapter.load(room("adapters") / name), None)
    except InputError as error:
        return Entry(name, None, str(error))


def find(name_or_path: str | Path) -> Path:
    """Return the folder of an adapter, by its name in the store or by its path.

    Raises:
        InputError: neither is there; the nearest name is named.
    """
    text = str(name_or_path)
    if _NAME.fullmatch(text) and path_of(text).is_dir():
        return path_of(text)
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path
    raise InputError(f"There is no adapter '{text}'", did_you_mean(text, names()))


def open(name_or_path: str | Path) -> Adapter:
    """Load an adapter by its name in the store or by its path.

    Raises:
        InputError: see :func:`find` and :meth:`Adapter.load`.
    """
    return Adapter.load(find(name_or_path))


def import_adapter(source: str | Path, name: str, *, replace: bool = False) -> Adapter:
    """Copy an adapter into the store: its config, tensors and card, and nothing else.

    Returns:
        What is in the store now; ``ignored`` names what lay in the source and was left there.

    Raises:
        InputError: it is damaged or refused, or the name is taken.
    """
    target = path_of(name)
    adapter = Adapter.load(source)
    adapter.save(target, replace=replace)
    return dataclasses.replace(Adapter.load(target), ignored=adapter.ignored)


def export_adapter(name: str, folder: str | Path, *, replace: bool = False) -> Path:
    """Copy an adapter out of the store, as a PEFT folder with its card.

    Raises:
        InputError: no such adapter, or the folder exists and may not be replaced.
    """
    target = Path(folder).expanduser()
    open(require_stored(name)).save(target, replace=replace)
    return target.resolve()


def update_card(folder: Path, changes: Mapping[str, Any]) -> Adapter:
    """Write something new on an adapter's card, and leave everything else in its folder alone.

    The README.md is written anew where the adapter has a card of ours; another tool's stays.

    Raises:
        InputError: the folder holds no adapter, or cannot be written.
    """
    adapter = Adapter.load(folder)
    ours = (folder / CARD_FILE).exists()
    adapter = dataclasses.replace(adapter, card=adapter.card.model_copy(update=dict(changes)))
    try:
        write_atomic(folder / CARD_FILE, adapter.card.model_dump_json(indent=2))
        if ours:
            write_atomic(folder / README, adapter.describe())
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror})") from error
    return adapter


def remove(name: str) -> None:
    """Delete an adapter from the store.

    Raises:
        InputError: no such adapter.
    """
    path = require_stored(name)
    # Out of sight first: a removal that is interrupted leaves no half adapter to be listed.
    aside = path.with_name(f"{UNFINISHED}{name}-{secrets.token_hex(4)}")
    path.rename(aside)
    if aside.is_symlink():
        aside.unlink()  # what a person linked into the store stays where it is
    else:
        shutil.rmtree(aside)


def require_stored(name: str) -> Path:
    """Return the folder of an adapter of the store.

    Raises:
        InputError: no such adapter; the nearest name is named.
    """
    path = path_of(name)
    if not path.is_dir():
        raise InputError(f"There is no adapter '{name}' in the store", did_you_mean(name, names()))
    return path
