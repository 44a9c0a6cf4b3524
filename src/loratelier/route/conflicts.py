"""Pairs of adapters that are known to disagree, and what becomes of a mix that holds both."""

import json
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from loratelier.kit.errors import InputError
from loratelier.route.policy import Conflicts

Pair = frozenset[str]
_HOW = "Write it with: loratelier compare A B --json > FILE"


def disagreeing(conflicts: Conflicts) -> frozenset[Pair]:
    """Return the pairs that a policy knows to disagree.

    Raises:
        InputError: the report is missing or is none of ``compare``'s.
    """
    pairs = {frozenset(pair) for pair in conflicts.pairs}
    if conflicts.report is not None:
        document, path = _report(conflicts.report), conflicts.report
        try:
            names = document["names"]
            cosine, signs = document["cosine"], document["sign_conflict"]
            for one, other in combinations(range(len(names)), 2):
                opposed = cosine[one][other] <= conflicts.cosine
                if opposed or signs[one][other] >= conflicts.sign_conflict:
                    pairs.add(frozenset((names[one], names[other])))
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{path} is no report of compare", _HOW) from error
    return frozenset(pairs)


def _report(path: Path) -> Any:
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"There is no report of conflicts {path}", _HOW) from error
    return _parsed(path, stamp)


@lru_cache(maxsize=8)
def _parsed(path: Path, _stamp: int) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no report of compare", _HOW) from error


def apart(
    mix: dict[str, float], pairs: frozenset[Pair], below: float
) -> tuple[dict[str, float], list[str]]:
    """Return the mix without what may not be worn together, and a line for each left out.

    Of two that disagree the weaker goes unless both are at or below ``below``; at equal strength
    the one that was named later. The strongest is looked at first.
    """
    kept: dict[str, float] = {}
    notes: list[str] = []
    for name, gate in sorted(mix.items(), key=lambda each: -each[1]):
        rival = next(
            (k for k in kept if frozenset((k, name)) in pairs and max(gate, kept[k]) > below), None
        )
        if rival is None:
            kept[name] = gate
        else:
            notes.append(
                f"'{name}' is left out: it disagrees with '{rival}', and together each may have a "
                f"strength of at most {below:g}"
            )
    return {name: gate for name, gate in mix.items() if name in kept}, notes
