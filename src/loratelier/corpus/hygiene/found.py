"""A finding in a text, and how findings become placeholders."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

PII, SECRETS = "pii", "secrets"


@dataclass(frozen=True)
class Finding:
    """Something private in a text: its class (``pii`` or ``secrets``), kind, and where it is."""

    of: str
    kind: str
    start: int
    end: int
    value: str

    @property
    def hint(self) -> str:
        """How it begins, and its length: enough to find it, too little to use it."""
        shown = self.value[:2] if self.of == PII else self.value[:4]
        return f"{shown}… ({len(self.value)} characters)"


@dataclass(frozen=True)
class Pattern:
    """A kind of finding: what matches, and what must hold of it besides.

    The finding is the group ``found`` where the pattern has one. ``hold`` gets its text. A text
    without any of the ``signs`` is not searched: most texts are, by most patterns, in vain.
    """

    of: str
    kind: str
    regex: re.Pattern[str]
    hold: Callable[[str], bool] = lambda value: True
    signs: tuple[str, ...] = ()

    def search(self, text: str) -> Iterable[Finding]:
        """Yield the findings of this kind."""
        if self.signs and not any(sign in text for sign in self.signs):
            return
        group = "found" if "found" in self.regex.groupindex else 0
        for match in self.regex.finditer(text):
            if self.hold(match[group]):
                yield Finding(self.of, self.kind, *match.span(group), match[group])


def apart(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings that do not overlap, in their order.

    Of two the secret stays, then the longer.
    """
    kept: list[Finding] = []
    for each in sorted(findings, key=lambda one: (one.of == PII, one.start - one.end, one.start)):
        if all(each.end <= other.start or each.start >= other.end for other in kept):
            kept.append(each)
    return sorted(kept, key=lambda one: one.start)


@dataclass
class Masker:
    """Puts placeholders for findings; one value has one placeholder in the whole corpus."""

    masks: frozenset[str]
    masked: Counter[str] = field(default_factory=Counter)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _numbers: Counter[str] = field(default_factory=Counter)

    def mask(self, text: str, findings: Iterable[Finding]) -> tuple[str, Counter[str]]:
        """Return the text with placeholders, and how many of each kind were put."""
        pieces, end = [], 0
        made: Counter[str] = Counter()
        for each in findings:
            if each.of in self.masks:
                pieces += [text[end : each.start], self._name(each)]
                end = each.end
                made[each.kind] += 1
        self.masked += made
        return "".join([*pieces, text[end:]]), made

    def _name(self, each: Finding) -> str:
        key = each.kind, re.sub(r"[\s()-]", "", each.value).lower()
        if key not in self._names:
            self._numbers[each.kind] += 1
            word = each.kind.upper().replace(" ", "_")
            self._names[key] = f"[{word}_{self._numbers[each.kind]}]"
        return self._names[key]
