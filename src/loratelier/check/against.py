"""Two verdicts side by side: what became better, what worse, what is noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loratelier.adapter import store
from loratelier.adapter.card import Card, read_card
from loratelier.check.finding import Finding, Verdict
from loratelier.kit.errors import InputError

Step = Literal["better", "worse", "within noise"]


@dataclass(frozen=True)
class Compared:
    """A finding that both verdicts have; ``step`` says how the newer one is beside the older."""

    name: str
    before: float
    after: float
    step: Step


def earlier_verdict(given: str) -> dict[str, Any]:
    """Return the verdict on a card: a ``card.json``, an adapter's folder, or a name in the store.

    Raises:
        InputError: no such card, or no verdict on it.
    """
    path = Path(given).expanduser()
    if path.is_file():
        if path.name != "card.json":
            raise InputError(f"{path} is no card", "Give a card.json, or an adapter")
        card: Card = read_card(path.parent)
    else:
        card = read_card(store.find(given))
    if card.verdict is None:
        raise InputError(f"The card of {given} has no verdict", "Run `loratelier check` on it")
    return card.verdict


def compare_verdicts(earlier: Mapping[str, Any], verdict: Verdict) -> tuple[Compared, ...]:
    """Compare what both measured; a difference within both intervals together is noise.

    The intervals are taken for independent, which is careful: both were measured on the same
    items, so the difference is surer than that.

    Raises:
        InputError: the earlier verdict is of another base, or not one of ours.
    """
    try:
        base, listed = earlier["base"], earlier["findings"]
        old = {str(each["name"]): each for each in listed}
    except (KeyError, TypeError) as error:
        raise InputError("The earlier verdict is none of ours") from error
    if earlier.get("fingerprint") != verdict.fingerprint:
        raise InputError(f"The earlier verdict is of another base ({base})")
    pairs = [(old[one.name], one) for one in verdict.findings if one.name in old]
    return tuple(
        Compared(new.name, float(before["figure"]), new.figure, _step(before, new))
        for before, new in pairs
        if new.figure is not None and new.worse and before.get("figure") is not None
    )


def _step(before: Mapping[str, Any], new: Finding) -> Step:
    assert new.figure is not None
    gap = new.figure - float(before["figure"])
    if abs(gap) <= math.hypot(_half(before["interval"]), _half(new.interval)):
        return "within noise"
    return "worse" if gap * new.worse > 0 else "better"


def _half(interval: Any) -> float:
    return (interval[1] - interval[0]) / 2 if interval else 0.0
