"""A draft: an adapter under the hand, with every step kept so that it can be gone back.

Steps are whole adapters under ``LORATELIER_HOME/studio/drafts``, so that a reload of the page and a
restart of the server lose nothing, and what is undone is the earlier one to the last bit.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loratelier.adapter import Adapter, store
from loratelier.kit.errors import InputError
from loratelier.kit.files import write_atomic
from loratelier.kit.home import room
from loratelier.studio.desk import opened, spec_of

STEPS = 30  # that are kept; the oldest go
_FILE = "draft.json"


class Draft:
    """An adapter of the store, or a base by itself, and the steps that were taken from it.

    ``what`` is ``adapter:NAME`` or ``base:SPEC``.
    """

    def __init__(self, what: str) -> None:
        kind, _, name = what.partition(":")
        if kind not in ("adapter", "base") or not name:
            raise InputError(f"'{what}' cannot be edited", "Choose an adapter or a base")
        self.what = what
        self.origin = opened(name) if kind == "adapter" else None
        self.spec = spec_of(self.origin) if self.origin is not None else name
        self._folder = room("studio") / "drafts" / re.sub(r"[^\w.-]", "_", what)
        self._steps: list[dict[str, Any]] = []
        self._at = 0
        self._held: dict[str, Adapter] = {}
        self._read()

    @property
    def now(self) -> Adapter | None:
        """What is worn at this step; None for the bare base."""
        if self._at == 0:
            return self.origin
        file = self._steps[self._at - 1]["file"]
        if file not in self._held:
            self._held[file] = Adapter.load(self._folder / file)
        return self._held[file]

    def view(self) -> dict[str, Any]:
        """Return the steps as plain data, and which of them is the present one (0: none)."""
        return {"what": self.what, "base": self.spec, "steps": self._steps, "at": self._at}

    def next_name(self) -> str:
        """Return a name for the next step that no earlier one has."""
        taken = [int(step["file"].rpartition("-")[2]) for step in self._steps]
        stem = self.origin.name if self.origin is not None else "base"
        return f"{stem[:40]}-edit-{max(taken, default=0) + 1}"

    def add(self, adapter: Adapter, said: Mapping[str, Any]) -> None:
        """Take a step; steps that were undone before it are gone."""
        for step in self._steps[self._at :]:
            self._drop(step)
        del self._steps[self._at :]
        file = self.next_name()
        adapter.save(self._folder / file, replace=True)
        self._held[file] = adapter
        self._steps.append({"file": file, **said})
        if len(self._steps) > STEPS:
            self._drop(self._steps.pop(0))
        self._at = len(self._steps)
        self._write()

    def move(self, by: int) -> None:
        """Undo (-1) or redo (+1) a step.

        Raises:
            InputError: there is none.
        """
        if not 0 <= self._at + by <= len(self._steps):
            raise InputError("There is no step that way")
        self._at += by
        self._write()

    def forget(self) -> None:
        """Drop every step."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._steps, self._at, self._held = [], 0, {}

    def save_as(self, name: str, *, replace: bool) -> None:
        """Put the present step into the store.

        Raises:
            InputError: there is no step, or the name is taken.
        """
        if self._at == 0 or self.now is None:
            raise InputError("Nothing was changed yet", "Drag a bar or move a slider first")
        target = store.path_of(name)
        if target.exists() and not replace:
            raise InputError(f"There is an adapter '{name}'", "Choose another name")
        self.now.save(target, replace=replace)

    def _drop(self, step: Mapping[str, Any]) -> None:
        self._held.pop(step["file"], None)
        shutil.rmtree(self._folder / step["file"], ignore_errors=True)

    def _path(self) -> Path:
        return self._folder / _FILE

    def _read(self) -> None:
        try:
            kept = json.loads(self._path().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        # Steps were taken from the adapter as it was: of another one they say nothing.
        if kept.get("origin") == self._digest():
            self._steps, self._at = kept["steps"], kept["at"]
        else:
            self.forget()

    def _write(self) -> None:
        kept = {"origin": self._digest(), "steps": self._steps, "at": self._at}
        write_atomic(self._path(), json.dumps(kept, ensure_ascii=False))

    def _digest(self) -> str | None:
        return self.origin.digest if self.origin is not None else None


class Drafts:
    """The drafts that are open."""

    def __init__(self) -> None:
        self._open: dict[str, Draft] = {}

    def of(self, what: str) -> Draft:
        """Return a draft; begun when there is none.

        Raises:
            InputError: no such adapter.
        """
        if what not in self._open:
            self._open[what] = Draft(what)
        return self._open[what]
