"""Leak: how much of the adapter's style turns up in answers that did not ask for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from loratelier.check.intervals import Accuracy, Interval, bootstrap
from loratelier.check.style import Style

_MARKDOWN = re.compile(r"^\s*(#{1,6} |[-*] |\d+[.)] )|\*\*|```", re.MULTILINE)
_FIRST = re.compile(
    r"(?<!\w)(i|i'm|i’m|i've|i’ve|me|my|mine|we|us|our|я|меня|мне|мной|мой|моя|моё|мои|мы|нас|нам|"
    r"наш|наша|наше|наши)(?!\w)",
    re.IGNORECASE,
)
MARKERS = {
    "markdown": lambda text: bool(_MARKDOWN.search(text)),
    "question": lambda text: "?" in text,
    "first_person": lambda text: bool(_FIRST.search(text)),
}


@dataclass(frozen=True)
class Marked:
    """The share of answers with a marker, before and after; ``change`` is paired."""

    marker: str
    before: Accuracy
    after: Accuracy
    change: float
    interval: Interval


@dataclass(frozen=True)
class Lengths:
    """Characters of an answer: medians before and after.

    ``change`` is the mean difference of paired answers, as a share of the median before.
    """

    before: float
    after: float
    change: float
    interval: Interval


@dataclass(frozen=True)
class Styled:
    """The classifier's mean probability of the adapter's style.

    ``examples`` are (request, answer with the adapter, probability), the most styled first.
    """

    classifier: Accuracy
    before: float
    after: float
    change: float
    interval: Interval
    examples: tuple[tuple[str, str, float], ...] = field(default=())


def markers(before: Sequence[str], after: Sequence[str]) -> tuple[Marked, ...]:
    """Count the markers in answers to the same requests."""
    found = []
    for name, has in MARKERS.items():
        old, new = [has(text) for text in before], [has(text) for text in after]
        steps = [float(b) - float(a) for a, b in zip(old, new, strict=True)]
        found.append(
            Marked(
                marker=name,
                before=Accuracy(sum(old), len(old)),
                after=Accuracy(sum(new), len(new)),
                change=sum(steps) / len(steps),
                interval=bootstrap(steps),
            )
        )
    return tuple(found)


def lengths(before: Sequence[str], after: Sequence[str]) -> Lengths:
    """Compare how long answers to the same requests are."""
    old, new = [len(text) for text in before], [len(text) for text in after]
    middle = max(1.0, median(old))
    steps = [(b - a) / middle for a, b in zip(old, new, strict=True)]
    return Lengths(
        before=median(old),
        after=median(new),
        change=sum(steps) / len(steps),
        interval=bootstrap(steps),
    )


def styled(
    style: Style, requests: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> Styled:
    """Ask the classifier about answers to unrelated requests."""
    old = [style.probability(text) for text in before]
    new = [style.probability(text) for text in after]
    steps = [b - a for a, b in zip(old, new, strict=True)]
    ranked = sorted(zip(requests, after, new, strict=True), key=lambda each: -each[2])
    return Styled(
        classifier=style.accuracy,
        before=sum(old) / len(old),
        after=sum(new) / len(new),
        change=sum(steps) / len(steps),
        interval=bootstrap(steps),
        examples=tuple(ranked[:3]),
    )
