"""Which bases are on this machine already."""

import json
from dataclasses import dataclass
from pathlib import Path

from loratelier.base import hub
from loratelier.base.demo import NAME, demo_folder
from loratelier.base.gguf import FACTS
from loratelier.kit.files import UNFINISHED
from loratelier.kit.home import room


@dataclass(frozen=True)
class Shelved:
    """A base: what to call it in ``--base``, where it is from, and its size (0: absent)."""

    spec: str
    source: str
    size: int

    @property
    def present(self) -> bool:
        """Whether it can be loaded without a network."""
        return self.size > 0


def known_bases() -> list[Shelved]:
    """Return the demo base (there or not), converted GGUF files, and the hub's cached models."""
    demo = Shelved("demo", f"{NAME}, English only", _size(demo_folder()))
    converted = [
        Shelved(str(folder), f"converted from {_source(folder)}", _size(folder))
        for folder in sorted(room("bases").glob("gguf-*"))
        if not folder.name.startswith(UNFINISHED)
    ]
    cached = [
        Shelved(name, "cache of the Hugging Face hub", size)
        for name, size in sorted(hub.cached_models().items())
    ]
    return [demo, *converted, *cached]


def _source(folder: Path) -> str:
    try:
        return str(json.loads((folder / FACTS).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError):
        return "a GGUF file"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
