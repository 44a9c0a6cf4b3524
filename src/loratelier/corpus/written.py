"""Files of scenes and structures: recognised by what is in them, validated, made into rows."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from loratelier.corpus.lineage import Row
from loratelier.corpus.located import Located, Place, load
from loratelier.corpus.report import count
from loratelier.corpus.scenes.model import Hyperlexeme, Scene, check_names, check_once
from loratelier.corpus.scenes.rows import hyperlexeme_rows, scene_rows, whole_scene_row
from loratelier.corpus.structures.model import Structure
from loratelier.corpus.structures.rows import check_rows, structure_rows
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.models import problem

SCENES, HYPERLEXEMES, STRUCTURES = "scenes", "hyperlexemes", "structures"
_KEYS = ("language", SCENES, HYPERLEXEMES, STRUCTURES)

_LISTS = f"{SCENES}|{HYPERLEXEMES}|{STRUCTURES}"
# The first line that says something is a key of ours, and one of the lists stands at the margin.
_YAML = re.compile(rf"(?:[ \t]*(?:#.*)?\r?\n|---[ \t]*\r?\n)*(?:{'|'.join(_KEYS)})[ \t]*:")
_LIST = re.compile(rf"^(?:{_LISTS})[ \t]*:[ \t]*(?:#.*|\[.*)?\r?$", re.MULTILINE)
# Front matter: a note, whatever its keys are.
_RULES = re.compile(r"^---[ \t]*\r?$", re.MULTILINE)
_JSON = re.compile(rf'\s*\{{\s*"(?:language"\s*:\s*"\w+"\s*,\s*"(?:{_LISTS})|{_LISTS})"\s*:\s*\[')

_Model = TypeVar("_Model", bound=BaseModel)


SCRIPT = {"en": "Latn", "ru": "Cyrl"}


@dataclass(frozen=True)
class Made:
    """A row made of a written item, and the script of the item's language.

    Said and not counted: the notation has English words in it whatever the scene's language.
    """

    row: Row
    script: str


@dataclass(frozen=True)
class WrittenFile:
    """The scenes, hyperlexemes and structures of a file."""

    scenes: tuple[Scene, ...]
    hyperlexemes: tuple[Hyperlexeme, ...]
    structures: tuple[Structure, ...]
    located: Located

    @property
    def title(self) -> str:
        """Say what the file holds, counted."""
        counts = (
            (len(self.scenes), "scene"),
            (len(self.hyperlexemes), "hyperlexeme"),
            (len(self.structures), "structure"),
        )
        return ", ".join(count(number, noun) for number, noun in counts if number)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The new tokens that its rows use."""
        return tuple(each.token for each in self.hyperlexemes)

    @property
    def names(self) -> tuple[str, ...]:
        """What must stand once in a corpus: the ids of scenes and structures, and the tokens."""
        scenes = (f"scene '{each.id}'" for each in self.scenes)
        structures = (f"structure '{each.id}'" for each in self.structures)
        tokens = (f"hyperlexeme '{each.name}'" for each in self.hyperlexemes)
        return (*scenes, *tokens, *structures)


def is_written(text: str) -> bool:
    """Say whether a text is a file of scenes or structures, as YAML or JSON."""
    if _JSON.match(text):
        return True
    head = _YAML.match(text) is not None and _LIST.search(text) is not None
    return head and len(_RULES.findall(text)) < 2


def read_written(text: str, name: str) -> WrittenFile:
    """Read and validate a file of scenes and structures.

    Raises:
        InputError: what is wrong, with the file, the line, and the scene, node, relation,
            structure or row.
    """
    located = load(text, name)
    top = located.value
    if not isinstance(top, dict):
        raise InputError(f"{name} is no file of scenes", "Begin it with 'scenes:'")
    for key in top:
        if key not in _KEYS:
            raise InputError(f"{name}: unknown key '{key}'", did_you_mean(key, _KEYS))
    if top.get("language", "en") not in ("en", "ru"):
        raise InputError(f"{name}: language '{top['language']}' is unknown", "Known: en, ru")
    read = _Reader(name, located)
    scenes = tuple(read.each(SCENES, "scene", "id", Scene))
    hyperlexemes = tuple(read.each(HYPERLEXEMES, "hyperlexeme", "name", Hyperlexeme))
    structures = tuple(read.each(STRUCTURES, "structure", "id", Structure, check_rows))
    try:
        check_names(scenes, hyperlexemes)
        check_once("structure", [each.id for each in structures])
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    if not (scenes or hyperlexemes or structures):
        raise InputError(f"{name} holds no scene and no structure")
    return WrittenFile(scenes, hyperlexemes, structures, located)


def written_rows(file: WrittenFile, name: str, steps: tuple[str, ...], format: str) -> list[Made]:
    """Make the rows of a file; in the format ``scene`` each scene is one row, whole.

    ``steps`` says what decoding the file needed.
    """

    def place(list_name: str, number: int, uid: str) -> Place:
        return Place(name, uid, file.located, (list_name, number), steps)

    made: list[Made] = []
    by_id = {scene.id: scene for scene in file.scenes}
    for number, scene in enumerate(file.scenes):
        at = place(SCENES, number, scene.id)
        rows = [whole_scene_row(scene, at)] if format == "scene" else scene_rows(scene, at)
        made += [Made(row, SCRIPT[scene.language]) for row in rows]
    for number, each in enumerate(file.hyperlexemes):
        rows = hyperlexeme_rows(each, place(HYPERLEXEMES, number, each.name), by_id)
        made += [Made(row, SCRIPT[each.language]) for row in rows]
    for number, structure in enumerate(file.structures):
        at = place(STRUCTURES, number, structure.id)
        made += [Made(row, SCRIPT[language]) for language, row in structure_rows(structure, at)]
    return made


def check_apart(files: Mapping[str, WrittenFile]) -> None:
    """Hold that a scene, a hyperlexeme or a structure stands in one file only.

    Raises:
        InputError: it and both files are named.
    """
    first: dict[str, str] = {}
    for name, file in files.items():
        for what in file.names:
            if what in first:
                raise InputError(
                    f"The {what} stands in {first[what]} and in {name}", "Rename or remove one"
                )
            first[what] = name


class _Reader:
    def __init__(self, name: str, located: Located) -> None:
        self._name, self._located = name, located

    def each(
        self,
        key: str,
        what: str,
        id_key: str,
        model: type[_Model],
        check: Callable[[_Model], None] = lambda _: None,
    ) -> Iterator[_Model]:
        """Yield the validated items of one list."""
        items = self._located.value.get(key) or []
        if not isinstance(items, list):
            raise InputError(f"{self._name}: '{key}' must be a list", "Begin each item with '- '")
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                raise self._fault((key, number), f"{what} {number + 1} is no list of keys")
            label = f"{what} '{item[id_key]}'" if item.get(id_key) else f"{what} {number + 1}"
            yield self._item(model, item, (key, number), label, check)

    def _item(
        self,
        model: type[_Model],
        item: dict[str, Any],
        path: tuple[str, int],
        label: str,
        check: Callable[[_Model], None],
    ) -> _Model:
        if "language" in model.model_fields:
            item = {"language": self._located.value.get("language", "en"), **item}
        try:
            made = model.model_validate(item)
            check(made)
        except ValidationError as error:
            where = (*path, *error.errors()[0]["loc"])
            raise self._fault(where, f"{label}: {problem(error)}") from error
        except InputError as error:
            raise self._fault(path, f"{label}: {error.what}", error.mend) from error
        except ValueError as error:
            raise self._fault(path, f"{label}: {error}") from error
        return made

    def _fault(self, path: tuple[str | int, ...], what: str, mend: str | None = None) -> InputError:
        line = self._located.span(*path).line
        return InputError(f"{self._name}, line {line}: {what}", mend)
