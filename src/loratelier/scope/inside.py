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
from loratelier.scope.experts import Experts, look_at_experts
from loratelier.scope.lens import look_at_lens
from loratelier.scope.lens_view import Lens
from loratelier.scope.targets import Asked
from loratelier.scope.weights import Weights, look_at_weights

Part = Literal["attention", "lens", "sites", "weights", "experts"]
PARTS: tuple[Part, ...] = get_args(Part)
# The lens reads this many last positions: its time is that of a whole head for each of them and
# each layer.
_LENS_POSITIONS = 64


@dataclass(frozen=True)
class Inside:
    """What was looked at inside the model; a part that was not asked for is None.

    ``tokens`` is how many the text has. The lens covers its last 64 at most.
    """

    tokens: int
    attention: AttentionShift | None
    lens: Lens | None
    sites: Attribution | None
    weights: Weights | None
    experts: Experts | None


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
    attention = lens = sites = weights = experts = None
    with task("Looking inside", total=len(parts)) as bar:
        if "attention" in parts:
            attention = look_at_attention(change, ids)
            bar.advance()
        if "lens" in parts:
            places = range(max(0, len(ids) - _LENS_POSITIONS), len(ids))
            lens = look_at_lens(change, ids, positions=places)
            bar.advance()
        if "sites" in parts:
            sites = look_at_sites(change, ids, target)
            bar.advance()
        if "weights" in parts:
            weights = look_at_weights(change)
            bar.advance()
        if "experts" in parts:
            experts = look_at_experts(change, ids)
            bar.advance()
    return Inside(len(ids), attention, lens, sites, weights, experts)
