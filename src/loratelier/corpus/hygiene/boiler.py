"""Boilerplate: lines that stand word for word in many conversations and say nothing of them."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_SHORTEST = 20  # characters; headings and list marks repeat by nature
_OFTEN = 5  # conversations
_SHARE = 0.02
_MARKUP = re.compile(r"^\s*(?:[#>|`*_-]|\d+[.)])")


@dataclass
class Boilerplate:
    """Counts lines first, then says which are boilerplate."""

    conversations: int = 0
    # By hash: most lines of a gigabyte stand there once and need not be kept.
    _counts: Counter[int] = field(default_factory=Counter)
    _lines: dict[int, str] = field(default_factory=dict)

    def count(self, texts: Iterable[str]) -> None:
        """Count the lines of one conversation, each once."""
        self.conversations += 1
        lines = {line.strip() for text in texts for line in text.split("\n")}
        for line in filter(_is_sentence, lines):
            key = hash(line)
            self._counts[key] += 1
            if self._counts[key] == _OFTEN:
                self._lines[key] = line
        # Lines seen once are forgotten when there are a million of them.
        if len(self._counts) > 1_000_000:
            self._counts = Counter({line: n for line, n in self._counts.items() if n > 1})

    def lines(self) -> dict[str, int]:
        """Return the lines that are boilerplate, and in how many conversations each stands."""
        least = max(_OFTEN, _SHARE * self.conversations)
        often = ((line, self._counts[key]) for key, line in self._lines.items())
        return dict(sorted((one for one in often if one[1] >= least), key=lambda one: -one[1]))


def _is_sentence(line: str) -> bool:
    return len(line) >= _SHORTEST and not _MARKUP.match(line)


def without(text: str, lines: Iterable[str]) -> tuple[str, int]:
    """Return a text without some lines, and how many were taken out."""
    gone = frozenset(lines)
    kept = [line for line in text.split("\n") if line.strip() not in gone]
    taken = text.count("\n") + 1 - len(kept)
    return (re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n"), taken) if taken else (text, 0)
