"""The decision in the headers of an answer, in ASCII whatever an adapter is called."""

from collections.abc import Mapping
from urllib.parse import quote

from loratelier.route import Decision

BASE = "base"
_LONGEST = 400


def decision_headers(decision: Decision) -> dict[str, str]:
    """Return the headers that say what was worn, how sure that was, and why.

    Names are percent-encoded, other text has ``\\uNNNN`` where it is not ASCII.
    """
    told = {
        "x-loratelier-adapter": worn(decision.mix),
        "x-loratelier-confidence": f"{decision.confidence:.4f}",
        "x-loratelier-stage": decision.stage,
        "x-loratelier-reason": plain(decision.reason),
    }
    if decision.role is not None:
        told["x-loratelier-role"] = quote(decision.role)
    if decision.warnings:
        told["x-loratelier-warning"] = plain("; ".join(decision.warnings))
    return told


def worn(mix: Mapping[str, float] | None) -> str:
    """Return a mixture as a header says it: ``poet=0.6,sport``; ``base`` where nothing is worn."""
    if not mix:
        return BASE
    return ",".join(quote(n) if gate == 1 else f"{quote(n)}={gate:g}" for n, gate in mix.items())


def plain(text: str) -> str:
    """Return a text in printable ASCII on one line, cut where it is long."""
    ascii_text = text.encode("ascii", errors="backslashreplace").decode("ascii")
    shown = "".join(char if char.isprintable() else " " for char in ascii_text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."
