"""Where texts come from: files and folders, found, named and decoded."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loratelier.corpus.codecs import LOST, NAMES
from loratelier.corpus.language import Model, model
from loratelier.kit.errors import InputError

SUFFIXES = frozenset({".md", ".markdown", ".txt", ".yaml", ".yml"})

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OLD = ("cp1251", "koi8-r", "cp866", "cp1252", "mac_cyrillic")
_SAMPLE = 20_000  # bytes on which codecs are compared


@dataclass(frozen=True)
class Found:
    """A file to read, and the name under which lineage knows it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Source:
    """A file that was read.

    ``text`` is ``path.read_bytes().decode(encoding, errors="replace")``, line ends as they are;
    spans in lineage count its characters. ``steps`` says what decoding needed beyond UTF-8.
    """

    name: str
    text: str
    encoding: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Unread:
    """A file that holds no text."""

    name: str
    why: str


def find(sources: Sequence[str | Path]) -> list[Found]:
    """Return the notes that files and folders hold, each once, in a fixed order.

    In a folder the :data:`SUFFIXES` count, at any depth; what begins with a dot does not. A file is
    named by its path inside the folder that was given, or by its own name when it was given itself;
    when two would have one name, the folders above are added until they differ.

    Raises:
        InputError: nothing was given, a path that does not exist, or a folder without notes.
    """
    if not sources:
        raise InputError("No source was given", "Name a note or a folder of notes")
    found: dict[Path, Found] = {}
    names: set[str] = set()
    for source in sources:
        root = Path(source)
        for path, name in _notes(root):
            real = path.resolve()
            if real not in found:
                unique = _unique(name, real, names)
                names.add(unique)
                found[real] = Found(path, unique)
    return list(found.values())


def _notes(root: Path) -> Iterator[tuple[Path, str]]:
    if root.is_file():
        yield root, root.name
        return
    if not root.is_dir():
        raise InputError(f"{root} does not exist", "Name a note or a folder of notes")
    empty = True
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and path.suffix.lower() in SUFFIXES and path.is_file():
            empty = False
            yield path, relative.as_posix()
    if empty:
        raise InputError(f"{root} holds no notes", f"Notes end in {', '.join(sorted(SUFFIXES))}")


def _unique(name: str, path: Path, taken: set[str]) -> str:
    depth = len(Path(name).parts)
    parts = path.parts[1:]
    while name in taken and depth < len(parts):
        depth += 1
        name = "/".join(parts[-depth:])
    return name


def read(found: Found, language: str | None = None) -> Source | Unread:
    """Read and decode a file; a binary one comes back unread.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        data = found.path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{found.path} cannot be read ({error.strerror})",
            "Check its permissions, or leave it out",
        ) from error
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decoded(found.name, data, encoding, (f"decoded as {encoding}",))
    if b"\0" in data:
        return Unread(found.name, "a binary file, not text")
    try:
        return Source(found.name, data.decode("utf-8"), "utf-8", ())
    except UnicodeDecodeError:
        return _guessed(found.name, data, model(language))


def _guessed(name: str, data: bytes, language: Model) -> Source:
    """Decode bytes that are not UTF-8 with whatever reads best; broken UTF-8 competes too."""
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE]
    scores = {
        encoding: float(language.per_character(sample.decode(encoding, errors="replace")).sum())
        for encoding in ("utf-8", *_OLD)
    }
    best = max(scores, key=lambda encoding: scores[encoding])
    return _decoded(name, data, best, (f"decoded as {NAMES[best]}",))


def _decoded(name: str, data: bytes, encoding: str, steps: tuple[str, ...]) -> Source:
    text = data.decode(encoding, errors="replace")
    lost = text.count(LOST)
    if lost:
        steps = (*steps, f"{lost} undecodable bytes became U+FFFD")
    return Source(name, text, encoding, steps)
