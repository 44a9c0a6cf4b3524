"""Where texts come from: files and folders, found, named and decoded."""

import codecs
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loratelier.corpus.codecs import LOST, NAMES
from loratelier.corpus.language import Model, model
from loratelier.corpus.report import KIND
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OLD = ("cp1251", "koi8-r", "cp866", "cp1252", "mac_cyrillic")
# Codecs of texts; a page may name any other that Python knows, zip included.
_DECLARABLE = re.compile(r"(?i)(?:windows|cp|iso-8859|koi8|mac|gb|big5|shift_jis|euc)[\w.:-]*\Z")
_SAMPLE = 20_000  # bytes on which codecs are compared


@dataclass(frozen=True)
class Found:
    """A file to read, and the name under which lineage knows it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Decoded:
    """The text of a file.

    ``text`` is ``data.decode(encoding, errors="replace")``, line ends as they are; spans in lineage
    count its characters. ``steps`` says what decoding needed beyond UTF-8.
    """

    text: str
    encoding: str
    steps: tuple[str, ...] = ()


def find(sources: Sequence[str | Path]) -> list[Found]:
    """Return the files to read, each once, in a fixed order; content tells what they are.

    In a folder every file counts, at any depth; what begins with a dot does not, nor does a corpus
    that was written there. A file is named by its path inside the folder that was given, or by its
    own name when it was given itself; when two would have one name, the folders above are added
    until they differ.

    Raises:
        InputError: nothing was given, a path that does not exist, a folder without files, or one
            that is a corpus already.
    """
    if not sources:
        raise InputError("No source was given", "Name a file or a folder: notes, an export, texts")
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
        raise InputError(
            f"{root} does not exist", "Name a file or a folder: notes, an export, texts"
        )
    if _is_corpus(root):
        raise InputError(f"{root} is a corpus already", "Name what it was built from")
    paths = sorted(_walk(root))
    if not paths:
        raise InputError(f"{root} holds no notes", "It has no files; name another folder")
    yield from ((path, path.relative_to(root).as_posix()) for path in paths)


def _walk(folder: Path) -> Iterator[Path]:
    for place, below, files in os.walk(folder):
        here = Path(place)
        for name in [name for name in below if _is_corpus(here / name)]:
            remark(f"{here / name} is a corpus that was built, no source: left out")
            below.remove(name)
        below[:] = [name for name in below if not name.startswith(".")]
        paths = (here / name for name in files if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _is_corpus(folder: Path) -> bool:
    """Say whether a folder is our own output: reading it again would learn everything twice."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def _unique(name: str, path: Path, taken: set[str]) -> str:
    depth = len(Path(name).parts)
    parts = path.parts[1:]
    while name in taken and depth < len(parts):
        depth += 1
        name = "/".join(parts[-depth:])
    return name


def unicode_form(head: bytes) -> str | None:
    """Return the encoding that a byte order mark names, or None without one."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def decode(data: bytes, language: str | None = None, *, declared: str = "") -> Decoded:
    """Decode a file: by its byte order mark, what it declares, as UTF-8, or as reads best.

    Args:
        data: the whole file.
        language: ``ru`` or ``en`` when it is known.
        declared: an encoding that a page names; believed when every byte agrees.
    """
    marked = unicode_form(data)
    if marked:
        return _decoded(data, marked, (f"decoded as {marked}",))
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    if _DECLARABLE.match(declared):
        try:
            return Decoded(data.decode(declared), declared.lower(), (f"decoded as {declared}",))
        except (LookupError, UnicodeError):
            pass
    return _guessed(data, model(language))


def _guessed(data: bytes, language: Model) -> Decoded:
    """Decode bytes that are not UTF-8 with whatever reads best; broken UTF-8 competes too."""
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE]
    scores = {
        encoding: float(language.per_character(sample.decode(encoding, errors="replace")).sum())
        for encoding in ("utf-8", *_OLD)
    }
    best = max(scores, key=lambda encoding: scores[encoding])
    return _decoded(data, best, (f"decoded as {NAMES[best]}",))


def _decoded(data: bytes, encoding: str, steps: tuple[str, ...]) -> Decoded:
    text = data.decode(encoding, errors="replace")
    lost = text.count(LOST)
    if lost:
        steps = (*steps, f"{lost} undecodable bytes became U+FFFD")
    return Decoded(text, encoding, steps)
