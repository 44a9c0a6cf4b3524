"""What an adapter changes inside the model on one text: attention, layers, sites, weights."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import task
from loratelier.scope.attention import look_at_attention
from loratelier.scope.attention_shift import AttentionShift
from loratelier.scope.attribute import Attribution, look_at_sites
from loratelier.scope.change import Change
from loratelier.scope.targets import Asked

Part = Literal["attention", "sites"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Inside:
    """What was looked at inside the model; a part that was not asked for is None.

    ``tokens`` is how many the text has.
    """

    tokens: int
    attention: AttentionShift | None
    sites: Attribution | None


def look_inside(
    change: Change, ids: Sequence[int], parts: Collection[str], target: Asked | None
) -> Inside:
    """Look at the parts that are asked for.

    Args:
        change: what is looked at.
        ids: the text.
        parts: any of :data:`PARTS`.
        target: what the shares of the sites explain, see :mod:`loratelier.scope.targets`.

    Raises:
        InputError: a part that there is none of, or as each part raises.
    """
    for part in parts:
        if part not in PARTS:
            raise InputError(f"There is no part '{part}' to look at", did_you_mean(part, PARTS))
    attention = sites = None
    with task("Looking inside", total=len(parts)) as bar:
        if "attention" in parts:
            attention = look_at_attention(change, ids)
            bar.advance()
        if "sites" in parts:
            sites = look_at_sites(change, ids, target)
            bar.advance()
    return Inside(tokens=len(ids), attention=attention, sites=sites)
