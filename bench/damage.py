"""Clean lines, and every way to misread them: what the repair bench and its tests run on.

The lines are our own (the vault, the tests' sentences) or stand on the machine already: Python's
docstrings, translated messages and manual pages. Nothing is copied anywhere.
"""

import gettext
import gzip
import random
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from loratelier.corpus.codecs import NAMES, SINGLE, UTF8

ROOT = Path(__file__).parents[1]
SHORTEST = 20

Pair = tuple[str, str]  # (right, wrong): bytes of `right` were read as `wrong`
PAIRS: tuple[Pair, ...] = tuple(
    (right, wrong) for right, wrong in product((UTF8, *SINGLE), SINGLE) if right != wrong
)


def name(pair: Pair) -> str:
    return f"{NAMES[pair[0]]} as {NAMES[pair[1]]}"


def misread(text: str, pair: Pair) -> str | None:
    """Damage a text without loss; None when it cannot be written in the right codec.

    A byte that the wrong codec leaves undefined becomes the control of its number, as in browsers.
    """
    right, wrong = pair
    data = written(text, right)
    return None if data is None else "".join(_character(byte, wrong) for byte in data)


def written(text: str, codec: str) -> bytes | None:
    """Return a text's bytes; a control that stands for an undefined byte is that byte again."""
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        pass
    out = bytearray()
    for char in text:
        try:
            out += char.encode(codec)
        except UnicodeEncodeError:
            if not "\x80" <= char <= "\x9f" or _character(ord(char), codec) != char:
                return None
            out.append(ord(char))
    return bytes(out)


def _character(byte: int, codec: str) -> str:
    char = bytes([byte]).decode(codec, errors="replace")
    return chr(byte) if char == "\ufffd" else char


def long_enough(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        line = line.strip()
        if len(line) >= SHORTEST and sum(char.isalpha() for char in line) >= len(line) // 2:
            yield line


def vault(*folders: str) -> list[str]:
    """Return the prose lines of our sample notes."""
    lines = []
    for folder in folders:
        for path in sorted((ROOT / "examples" / "vault" / folder).rglob("*.md")):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("> ") and not line.startswith(">["):
                    lines.append(line.removeprefix("> "))
    return list(dict.fromkeys(long_enough(iter(lines))))


def typographic(line: str) -> str:
    """Set straight English as a printer would: curly quotes, apostrophes, dashes, ellipses."""
    line = re.sub(r"(?<=\w)'(?=\w)", "’", line)
    line = re.sub(r'"([^"]+)"', "“\\1”", line)
    line = re.sub(r"(?<!\S)'([^']+)'(?!\w)", "‘\\1’", line)
    line = re.sub(r"\s--?\s", " — ", line)
    line = re.sub(r"(?<=\d)-(?=\d)", "–", line)
    return line.replace("...", "…")


def docstrings() -> list[str]:
    """Return the prose lines of the standard library's docstrings and comments."""
    folder = Path(gettext.__file__).parent
    found: dict[str, None] = {}
    for path in sorted(folder.glob("*.py")):
        for quoted in re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL):
            found.update(dict.fromkeys(long_enough(iter(quoted.splitlines()))))
    return [line for line in found if _is_prose(line)]


def _is_prose(line: str) -> bool:
    words = re.findall(r"[A-Za-z]{2,}", line)
    return len(words) >= 4 and not re.search(r"[\\{}<>=_|`]", line)


def translations() -> list[str]:
    """Return the lines of every Russian message catalogue that is installed."""
    found: dict[str, None] = {}
    for path in sorted(Path("/usr/share/locale/ru/LC_MESSAGES").glob("*.mo")):
        found.update(dict.fromkeys(long_enough(_messages(path))))
    return [line for line in found if re.search("[а-яё]{3}", line)]


def _messages(path: Path) -> Iterator[str]:
    with path.open("rb") as stream:
        try:
            catalogue = gettext.GNUTranslations(stream)
        except (OSError, UnicodeDecodeError):
            return
    for text in catalogue._catalog.values():  # type: ignore[attr-defined]
        yield from text.splitlines()


def manuals(language: str) -> list[str]:
    """Return the lines of the manual pages in a language (``ru``), or in English (``.``)."""
    found: dict[str, None] = {}
    for path in sorted((Path("/usr/share/man") / language).glob("man[1-8]/*.gz"))[:400]:
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found.update(dict.fromkeys(long_enough(iter(text.splitlines()))))
    return list(found)


def sample(lines: list[str], size: int, seed: int) -> list[str]:
    return random.Random(seed).sample(lines, min(size, len(lines)))
