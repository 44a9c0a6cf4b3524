"""``calibrate``: one curve of gain and drift over strengths, and its knee."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.check.drift import LANGUAGES, fluent, general, own_rows
from loratelier.check.looks import Looks
from loratelier.check.own import own_examples
from loratelier.check.thresholds import Thresholds, load_thresholds
from loratelier.corpus import Corpus
from loratelier.kit.progress import task
from loratelier.scope import Change

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
# Of the best gain, what may be given up for less drift.
ENOUGH = 0.95


@dataclass(frozen=True)
class Point:
    """One strength: ``gain`` in nats per token on its own rows, ``rise`` of general text.

    ``kl`` is KL(base || adapter) in nats per token of the same general text.
    """

    strength: float
    gain: float
    gain_interval: tuple[float, float]
    rise: float
    rise_interval: tuple[float, float]
    kl: float


@dataclass(frozen=True)
class Calibration:
    """The curve; ``knee`` is None where no strength gains anything within the threshold."""

    adapter: str
    base: str
    language: str
    threshold: float
    points: tuple[Point, ...]
    knee: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values, with the rule of the knee."""
        return asdict(self) | {"rule": RULE}


RULE = (
    "Among the strengths whose general text costs no more than the threshold, the lowest one with "
    "at least 95% of the best gain among them; none if nothing is gained beyond noise"
)


def calibrate(
    base: Base,
    adapter: Adapter,
    corpus: Corpus,
    *,
    strengths: Sequence[float] = STRENGTHS,
    thresholds: Thresholds | None = None,
) -> Calibration:
    """Measure gain on the adapter's held-out rows and drift of general text at each strength.

    Args:
        base: the base; it is left as it was.
        adapter: made for that base.
        corpus: what it was trained on.
        strengths: at which to measure.
        thresholds: None for the defaults; ``drift.general_text`` is used.

    Raises:
        InputError: an adapter for another base, or a strength out of range.
    """
    limit = (thresholds or load_thresholds()).drift.general_text
    off = Looks(Change(base, adapter, strength=0.0))
    language = fluent([general(off, one) for one in LANGUAGES])[0]
    rows = own_examples(off.base, adapter, corpus)
    points = []
    with task("Strengths", total=len(strengths)) as bar:
        for strength in sorted(strengths):
            looks = Looks(Change(base, adapter, strength=strength))
            own, elsewhere = own_rows(looks, rows), general(looks, language)
            points.append(
                Point(
                    strength=strength,
                    gain=own.gain,
                    gain_interval=own.gain_interval,
                    rise=elsewhere.rise,
                    rise_interval=elsewhere.interval,
                    kl=elsewhere.kl,
                )
            )
            bar.advance()
    return Calibration(adapter.name, base.name, language, limit, tuple(points), knee(points, limit))


def knee(points: Sequence[Point], limit: float) -> float | None:
    """Return the strength that :data:`RULE` recommends."""
    allowed = [one for one in points if one.rise <= limit and one.gain_interval[0] > 0]
    if not allowed:
        return None
    best = max(one.gain for one in allowed)
    return min(one.strength for one in allowed if one.gain >= ENOUGH * best)


def picture(seen: Calibration, width: int = 24) -> str:
    """Return the curve as text: a bar of gain and one of drift at each strength."""
    gain = max((one.gain for one in seen.points), default=0.0)
    kl = max((one.kl for one in seen.points), default=0.0)
    lines = [
        f"strength  {'gain':<{width}}         {'KL on general text':<{width}}        bits/byte"
    ]
    for one in seen.points:
        mark = "  <- recommended" if one.strength == seen.knee else ""
        over = " !" if one.rise > seen.threshold else ""
        lines.append(
            f"{one.strength:>8g}  {_bar(one.gain, gain, width)} {one.gain:+7.3f} "
            f"{_bar(one.kl, kl, width)} {one.kl:7.3f} {one.rise:+9.2%}{over}{mark}"
        )
    return "\n".join(lines)


def _bar(value: float, largest: float, width: int) -> str:
    filled = round(width * value / largest) if largest > 0 and value > 0 else 0
    return "█" * filled + "·" * (width - filled)
