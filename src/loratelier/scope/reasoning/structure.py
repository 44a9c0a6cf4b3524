"""Structures of thought in a chain, by the signs of the corpus' own templates.

The templates (``examples/structures``) are the one definition: their rows teach a structure and
their signs find it again, here and where the corpus is built.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from loratelier.corpus.structures import Structure, recognise
from loratelier.corpus.written import read_written
from loratelier.kit.errors import InputError
from loratelier.scope.reasoning.problems import Language


@dataclass(frozen=True)
class Shown:
    """What of a structure a chain shows: ``whole``, and the number of its ``signs``."""

    whole: bool
    signs: int


@lru_cache(maxsize=1)
def shipped() -> tuple[Structure, ...]:
    """Return the structures that come along, by the name of their file.

    Raises:
        InputError: the templates are missing.
    """
    package = Path(__file__).parents[2]
    for place in (package.parents[1], package):
        folder = place / "examples" / "structures"
        if folder.is_dir():
            return read_structures(folder)
    raise InputError("The templates of structures are missing", "Reinstall loratelier")


def read_structures(folder: Path) -> tuple[Structure, ...]:
    """Return the structures of a folder's YAML files.

    Raises:
        InputError: a file that cannot be read; its line is named.
    """
    files = sorted(folder.glob("*.yaml"))
    texts = {file.name: file.read_text(encoding="utf-8") for file in files}
    return tuple(
        each for name, text in texts.items() for each in read_written(text, name).structures
    )


def shown_in(text: str, language: Language, structures: Sequence[Structure]) -> Mapping[str, Shown]:
    """Return what a chain shows of each structure that has signs in its language."""
    found = {
        each.id: recognise(each, text, language) for each in structures if language in each.rows
    }
    return {name: Shown(one.complete, len(one.marks)) for name, one in found.items()}
