"""A finding, and the verdict that they add up to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loratelier.check.intervals import Interval

Said = Mapping[str, str]  # "en" and "ru"


@dataclass(frozen=True)
class Finding:
    """One figure with its interval and what is thought of it.

    ``name`` is stable: verdicts are compared by it. ``worse`` is +1 where a higher figure is worse,
    -1 where a lower one is, 0 where neither is said. ``threshold`` is None where nothing is judged.
    ``noise`` says that the interval does not exclude that nothing changed. ``sentence`` and
    ``remedy`` (what a person can do; None where it passed) are in English and Russian. ``detail``
    has what the figure was made of.
    """

    name: str
    title: Said
    figure: float | None
    interval: Interval | None
    threshold: float | None
    worse: int
    passed: bool
    noise: bool
    sentence: Said
    remedy: Said | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a check found. ``passed`` is whether all findings did.

    ``effect`` is false where the adapter changes nothing at all; every change is then exactly 0.
    """

    adapter: str
    digest: str
    base: str
    fingerprint: str
    strength: float
    effect: bool
    languages: tuple[str, ...]
    seed: int
    findings: tuple[Finding, ...]
    seconds: float
    created: str

    @property
    def passed(self) -> bool:
        """Whether every finding passed."""
        return all(finding.passed for finding in self.findings)

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return asdict(self) | {"passed": self.passed}

    def for_card(self) -> dict[str, Any]:
        """Return what the card keeps: the document without the details of each figure."""
        document = self.to_json()
        for finding in document["findings"]:
            del finding["detail"]
        return document


def beyond(figure: float, threshold: float, worse: int) -> bool:
    """Whether a figure is on the wrong side of its threshold."""
    return figure > threshold if worse > 0 else figure < threshold


def within_noise(interval: Interval, nothing: float = 0.0) -> bool:
    """Whether an interval includes that nothing changed."""
    return interval[0] <= nothing <= interval[1]
