"""What a run goes through: the packs of every step of every epoch, decided before the first.

A step's gradient is the sum over its packs of weighted losses, and the weights of a step's targets
sum to 1. So it does not matter into how many packs a step is cut, nor how many processes share
them: memory and speed change, the mathematics does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from loratelier.train.packing import Pack, U, Unit, by_length, pack, shuffled

V = TypeVar("V", bound=Unit, contravariant=True)


class Lay(Protocol[V]):
    """How rows are laid side by side into packs of at most so many tokens."""

    def __call__(self, rows: Sequence[V], limit: int, /, *, padded: bool = False) -> Sequence[Pack]:
        """Return the packs."""


@dataclass(frozen=True)
class Step:
    """The packs of one step of the optimizer."""

    packs: tuple[Pack, ...]

    @property
    def tokens(self) -> int:
        """How many tokens the step reads."""
        return sum(pack.tokens for pack in self.packs)

    @property
    def targets(self) -> int:
        """How many of them are learned."""
        return sum(pack.targets for pack in self.packs)


@dataclass(frozen=True)
class Cut:
    """How rows are cut into steps and packs.

    ``step``: tokens a step. ``pack``: tokens at once in memory. ``padded``: rows are padded to the
    longest of their pack instead of packed. ``shares``: into at least how many packs a step is cut
    if it has the rows, one for each process.
    """

    step: int
    pack: int
    padded: bool = False
    shares: int = 1


def epoch_steps(
    rows: Sequence[U], seed: int, epoch: int, cut: Cut, lay: Lay[Any] = pack
) -> list[Step]:
    """Return the steps of an epoch over ``rows``, in the order that the seed gives."""
    return [step_of(group, cut, lay) for group in groups(shuffled(rows, seed, epoch), cut.step)]


def groups(rows: Sequence[U], limit: int) -> list[list[U]]:
    """Return rows, in their order, in groups of at most ``limit`` tokens (or one longer row)."""
    found: list[list[U]] = []
    room = 0
    for row in rows:
        if len(row) > room:
            found.append([])
            room = max(limit, len(row))
        found[-1].append(row)
        room -= len(row)
    return found


def step_of(rows: Sequence[U], cut: Cut, lay: Lay[Any] = pack) -> Step:
    """Return a step over ``rows`` whose targets weigh 1 together, each as ``lay`` weighs it."""
    limit = cut.pack
    if cut.shares > 1:
        # Enough packs for every process, of about the same size.
        limit = min(limit, -(-sum(map(len, rows)) // cut.shares))
    packs = lay(by_length(rows) if cut.padded else rows, limit, padded=cut.padded)
    return weighed(packs)


def weighed(packs: Sequence[Pack], total: float = 1.0) -> Step:
    """Return packs as a step whose weights sum to ``total``, in the proportion that they have."""
    weight = sum(float(pack.weights.sum()) for pack in packs)
    return Step(tuple(pack.weighing(total / max(weight, 1e-12)) for pack in packs))


def share(step: Step, process: int, processes: int) -> list[Pack]:
    """Return the packs that one of several processes computes: as many for each.

    Where there are too few, a process computes one again with weight 0, since all must take part
    in every exchange of gradients.
    """
    mine = list(step.packs[process::processes])
    wanted = -(-len(step.packs) // processes)
    spare = replace(step.packs[0], weights=step.packs[0].weights * 0)
    return mine + [spare] * (wanted - len(mine))
