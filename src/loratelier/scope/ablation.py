"""What is lost without a site: the change taken back at some sites, and the model run again.

This answers another question than :mod:`loratelier.scope.attribute`: not how much of the change a
site carries, but what happens when it alone is missing. The figures do not add up to the change:
where two sites do the same thing, neither is missed; where one needs the other, both are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from loratelier.kit.errors import InputError
from loratelier.scope.attribute import ends
from loratelier.scope.change import Change
from loratelier.scope.places import By, groups
from loratelier.scope.reading import logits_at, parts
from loratelier.scope.targets import Asked, Target, target_of


@dataclass(frozen=True)
class Lost:
    """What a number loses when the change is taken back at a group of sites alone.

    Attributes:
        target: what the number is, in words.
        unit: ``nats`` or ``probability``.
        lost: group -> f(after) less f(after without the group); its sites are as they were before.
        sites: group -> its sites.
        value_before: the number before.
        value_after: the number after.
    """

    target: str
    unit: Literal["nats", "probability"]
    lost: Mapping[str, float]
    sites: Mapping[str, tuple[str, ...]]
    value_before: float
    value_after: float

    @property
    def total(self) -> float:
        """The change of the number: after less before; ``lost`` does not add up to it."""
        return self.value_after - self.value_before

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "method": "ablation: the change taken back at the group alone",
            "target": self.target,
            "unit": self.unit,
            "value_before": self.value_before,
            "value_after": self.value_after,
            "total": self.total,
            "lost": dict(self.lost),
            "sites": {group: list(members) for group, members in self.sites.items()},
        }


@dataclass(frozen=True)
class Curves:
    """A number as sites are kept or taken back one after another, in an order and at random.

    Each of the four holds the number for each of ``counts``, which begin with 0 and end with all.

    Attributes:
        target: what the number is, in words.
        unit: ``nats`` or ``probability``.
        order: the sites, those first that are kept or taken back first.
        counts: 0, 1, 2, 4, 8, ..., all.
        kept: with the change at the first n sites alone.
        removed: with the change everywhere but at the first n sites.
        kept_random: as ``kept``, in a random order.
        removed_random: as ``removed``, in the same random order.
        seed: of the random order.
    """

    target: str
    unit: Literal["nats", "probability"]
    order: tuple[str, ...]
    counts: tuple[int, ...]
    kept: tuple[float, ...]
    removed: tuple[float, ...]
    kept_random: tuple[float, ...]
    removed_random: tuple[float, ...]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "target": self.target,
            "unit": self.unit,
            "order": list(self.order),
            "counts": list(self.counts),
            "kept": list(self.kept),
            "removed": list(self.removed),
            "kept_random": list(self.kept_random),
            "removed_random": list(self.removed_random),
            "seed": self.seed,
        }


def what_is_lost(
    change: Change,
    ids: Sequence[int],
    target: Asked | Target | None = None,
    *,
    by: By | Mapping[str, Sequence[str]] = "layer",
) -> Lost:
    """Take a change back at one group of sites at a time and say what a number loses.

    The groups are rows of one batch, which differ in their gates alone; long texts and many groups
    are read in several batches.

    Args:
        change: what is looked at.
        ids: the text's tokens.
        target: the number, see :mod:`loratelier.scope.targets`.
        by: every "site", "layer" or "module" for itself, or groups of sites by a name.

    Raises:
        InputError: a site that the change does not have, or as :func:`target_of`.
    """
    target = target_of(change, ids, target)
    members = groups(change.sites, by) if isinstance(by, str) else _known(change, by)
    before, after = ends(change, target)
    without = [
        {site: float(site not in group) for site in change.sites} for group in members.values()
    ]
    values = values_at(change, target, without) if change.effect else [after] * len(members)
    return Lost(
        target=target.words,
        unit=target.unit,
        lost={group: after - value for group, value in zip(members, values, strict=True)},
        sites=members,
        value_before=before,
        value_after=after,
    )


def keep_and_remove(
    change: Change,
    ids: Sequence[int],
    target: Asked | Target | None,
    order: Sequence[str],
    *,
    seed: int = 0,
) -> Curves:
    """Keep the change at the first n sites alone, and take it back there alone, by real passes.

    If an order is right, keeping few of its first sites brings the number near to where it is
    after, and taking them back brings it near to where it was before, sooner than in random order.

    Args:
        change: what is looked at.
        ids: the text's tokens.
        target: the number, see :mod:`loratelier.scope.targets`.
        order: all sites of the change, such as ``Attribution.ranked``.
        seed: of the random order beside it.

    Raises:
        InputError: an order that is not of all sites, or as :func:`target_of`.
    """
    if sorted(order) != sorted(change.sites):
        raise InputError(
            "The order is not one of all sites of this change", "Name each of them once"
        )
    target = target_of(change, ids, target)
    shuffled = [
        order[n]
        for n in torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
    ]
    counts = _doubling(len(order))
    inner = counts[1:-1]
    firsts = [set(sites[:count]) for sites in (list(order), shuffled) for count in inner]
    kept = [{site: float(site in first) for site in order} for first in firsts]
    removed = [{site: 1 - share for site, share in each.items()} for each in kept]
    before, after = ends(change, target)
    values = (
        values_at(change, target, [*kept, *removed])
        if change.effect
        else [after] * (len(kept) + len(removed))
    )
    own, other, gone, lost = (
        tuple(values[at * len(inner) : (at + 1) * len(inner)]) for at in range(4)
    )
    return Curves(
        target=target.words,
        unit=target.unit,
        order=tuple(order),
        counts=counts,
        kept=(before, *own, after),
        removed=(after, *gone, before),
        kept_random=(before, *other, after),
        removed_random=(after, *lost, before),
        seed=seed,
    )


@torch.no_grad()
def values_at(change: Change, target: Target, shares: Sequence[Mapping[str, float]]) -> list[float]:
    """Return a number at several shares by site, in batches that fit the memory."""
    values: list[float] = []
    for part in parts(target.text, len(shares)):
        values += target.score(logits_at(change, target.text, shares[part])).tolist()
    return values


def _known(change: Change, given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    for group, members in given.items():
        if odd := [site for site in members if site not in change.sites]:
            raise InputError(f"The group '{group}' has {odd[0]}, which nothing changes here")
    return {group: tuple(members) for group, members in given.items()}


def _doubling(count: int) -> tuple[int, ...]:
    steps = [0]
    step = 1
    while step < count:
        steps.append(step)
        step *= 2
    return (*steps, count)
