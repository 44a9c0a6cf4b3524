"""Repair, measured: lines restored exactly by pair and language, and clean lines changed.

    python -m bench.repair [--lines 60] [--clean 12000] [--prose own|machine]
                           [--texts FOLDER] [--seed 11]

``--texts`` takes clean lines from the .txt files of a folder, for text that nobody here has seen.

A line is damaged alone and mended alone: no neighbour is evidence for it. A pair counts where it
can write the line without loss and changes it. Ambiguous are damaged lines that clean text may hold
as they are: whoever sees one cannot say that it was damaged; they are counted apart.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

from bench.damage import (
    PAIRS,
    ROOT,
    Pair,
    docstrings,
    long_enough,
    manuals,
    misread,
    name,
    sample,
    translations,
    typographic,
    vault,
)
from loratelier.corpus.repair import repair_text

SEED = 11
_UNCLEAN = re.compile(r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]|[\x00-\x1f\x7f-\x9f\ufffd]")
# Signs and single letters that stand between spaces in clean text too, where a dash was.
_SIGN = re.compile(r"(?<![^\s])[≈СРË](?![^\s])")


def ambiguous(line: str, damaged: str) -> bool:
    """Say whether everything that the damage changed could stand in clean text as it is."""
    signs = {match.start() for match in _SIGN.finditer(damaged)}
    if len(line) != len(damaged):
        return False
    changed = [n for n, (a, b) in enumerate(zip(line, damaged, strict=True)) if a != b]
    return all(place in signs for place in changed)


def prose(
    kind: str, size: int, folder: Path | None = None, seed: int = SEED
) -> dict[str, list[str]]:
    """Return lines to damage for each language: our notes, what the machine holds, or a folder."""
    if folder is not None:
        found = lines_in(folder)
        russian = [line for line in found if is_russian(line) and not re.search("[A-Za-z]", line)]
        mixed = [line for line in found if is_russian(line) and re.search("[A-Za-z]{4}", line)]
        english = [typographic(line) for line in found if not re.search("[\u0370-\uffff]", line)]
    elif kind == "own":
        # Some of these notes are damaged on purpose, for the demo.
        russian = [line for line in vault("russian") if not repair_text(line).changed]
        english = [typographic(line) for line in vault("everyday", "philosophical")]
        mixed = [f"{a} — {b}" for a, b in zip(russian, vault("philosophical"), strict=False)]
    else:
        found = translations()
        russian = [line for line in found if not re.search("[A-Za-z]", line)]
        mixed = [line for line in found if re.search("[A-Za-z]{4}", line)]
        english = [typographic(line) for line in docstrings()]
    english = [line for line in english if not line.isascii()]
    lines = {"Russian": russian, "English": english, "mixed": mixed}
    return {language: sample(each, size, seed) for language, each in lines.items()}


def lines_in(folder: Path) -> list[str]:
    """Return the clean lines of a folder's texts: long enough, and no letters of two alphabets."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob("*.txt")):
        found.update(dict.fromkeys(long_enough(iter(path.read_text("utf-8").split("\n")))))
    return [line for line in found if not _UNCLEAN.search(line)]


def is_russian(line: str) -> bool:
    return re.search("[а-яё]{3}", line) is not None


def restored(lines: Iterable[str], damage: Callable[[str], str | None]) -> Counter[str]:
    """Count lines by what became of them: exact, ambiguous, wrong."""
    counts: Counter[str] = Counter()
    for line in lines:
        damaged = damage(line)
        if damaged is None or damaged == line:
            continue
        if repair_text(damaged).text == line:
            counts["exact"] += 1
        else:
            counts["ambiguous" if ambiguous(line, damaged) else "wrong"] += 1
    return counts


def once(lines: dict[str, list[str]]) -> dict[tuple[Pair, str], Counter[str]]:
    return {
        (pair, language): restored(each, lambda line, pair=pair: misread(line, pair))
        for pair in PAIRS
        for language, each in lines.items()
    }


def twice(lines: dict[str, list[str]]) -> dict[tuple[str, str], Counter[str]]:
    """Damage one line of each language by every two pairs, and count by their kinds.

    A second reading that changes nothing, or takes the first back, is none.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    for number, (first, second) in enumerate(product(PAIRS, PAIRS)):
        kind = " then ".join("UTF-8" if p[0] == "utf-8" else "single byte" for p in (first, second))
        for language, each in lines.items():
            line = each[number % len(each)]
            found = restored([line], lambda line, a=first, b=second: _both(line, a, b))
            counts.setdefault((kind, language), Counter()).update(found)
    return counts


def _both(line: str, first: Pair, second: Pair) -> str | None:
    damaged = misread(line, first)
    if damaged is None or damaged == line:
        return None
    again = misread(damaged, second)
    return None if again == damaged else again


def clean_lines(size: int, seed: int) -> dict[str, list[str]]:
    """Return clean lines: our notes, and what the machine has in prose, Markdown and code."""
    code = [
        line
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    licences = Path("/usr/share/common-licenses").glob("*")
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(licences)]
    markdown = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    lines = {
        "our notes": vault("everyday", "philosophical"),
        "Russian messages": translations(),
        "Russian manuals": manuals("ru"),
        "English docstrings, typeset": [typographic(line) for line in docstrings()],
        "English manuals": manuals("."),
        "licences": [line for text in texts for line in text.splitlines()],
        "our code": code,
        "our Markdown": [line for text in markdown for line in text.splitlines()],
    }
    return {
        what: sample([x for x in each if x.strip()], size // 4, seed)
        for what, each in lines.items()
    }


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").split("\n") if line.strip()]


def _row(cells: Iterable[object]) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def _share(counts: Counter[str]) -> str:
    total = counts["exact"] + counts["wrong"]
    if not total and not counts["ambiguous"]:
        return "·"
    apart = f" (+{counts['ambiguous']} ambiguous)" if counts["ambiguous"] else ""
    return f"{counts['exact']}/{total}{apart}"


def _table(title: str, counts: dict[tuple[str, str], Counter[str]], languages: list[str]) -> None:
    print(f"\n### {title}\n")
    _row(["damage", *languages])
    _row(["---"] * (len(languages) + 1))
    for what in dict.fromkeys(what for what, _ in counts):
        _row([what, *(_share(counts[what, language]) for language in languages)])
    totals = [
        sum((each for (_, one), each in counts.items() if one == language), Counter())
        for language in languages
    ]
    _row(["**all**", *map(_share, totals)])
    everything: Counter[str] = sum(totals, Counter())
    exact, wrong = everything["exact"], everything["wrong"]
    print(f"\n{exact} of {exact + wrong} exactly: {exact / max(1, exact + wrong):.2%}")


def speed(texts: dict[str, list[str]], lines: dict[str, list[str]]) -> None:
    """Print lines a second of processor time: clean texts, and Russian damaged throughout."""
    clean = [line for each in texts.values() for line in each]
    damaged = [misread(line, ("utf-8", "cp1251")) or "" for line in lines["Russian"]]
    print("\n### Lines a second, as one text\n")
    for what, each in (("clean", clean), ("UTF-8 as Windows-1251", damaged)):
        started = time.process_time()
        repair_text("\n".join(each))
        print(f"{what}: {len(each) / (time.process_time() - started):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=60, help="lines of each language")
    parser.add_argument("--clean", type=int, default=12000, help="clean lines, about")
    parser.add_argument("--prose", choices=("own", "machine"), default="own")
    parser.add_argument("--seed", type=int, default=SEED, help="which lines are taken")
    parser.add_argument("--texts", type=Path, help="a folder of clean .txt files")
    chosen = parser.parse_args()
    started = time.perf_counter()
    lines = prose(chosen.prose, chosen.lines, chosen.texts, chosen.seed)
    languages = list(lines)
    single = {(name(pair), one): counts for (pair, one), counts in once(lines).items()}
    _table(f"Misread once ({chosen.texts or chosen.prose})", single, languages)
    _table("Misread twice, every two pairs", twice(lines), languages)
    print("\n### Clean lines changed\n")
    _row(["text", "lines", "changed"])
    _row(["---"] * 3)
    total = changed = 0
    texts = clean_lines(chosen.clean, chosen.seed)
    if chosen.texts:
        texts |= {
            path.stem: sample(lines_of(path), chosen.clean // 4, chosen.seed)
            for path in sorted(chosen.texts.glob("*.txt"))
        }
    for what, each in texts.items():
        touched = [line for line in each if repair_text(line).changed]
        _row([what, len(each), len(touched)])
        for line in touched:
            print(f"    {line!r} became {repair_text(line).text!r}")
        total, changed = total + len(each), changed + len(touched)
    _row(["**all**", total, changed])
    speed(texts, lines)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
