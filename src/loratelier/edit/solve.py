"""The output side of an edit: the wish as closely as the limits allow, at the best site."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.base.above import Passed, go_on, read_through, size_of, writers
from loratelier.edit.ground import Ground
from loratelier.edit.keys import covariances, input_side
from loratelier.edit.wishes import Wish
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.compare import divergence
from loratelier.scope.spellings import padded

# Depths at which a site is tried, in this order: the best one differs by wish, and lies between
# the middle and shortly below the top.
_DEPTHS = (0.85, 0.75, 0.93, 0.6, 0.67)
_LEAVE_ALONE = 1.0  # what a place to be left alone counts beside all of general text
_STEPS = 4  # of L-BFGS in a round; after each it is seen whether the wish is reached
# Rounds, and how much more than the rest's proportions the asked probabilities count in them: one
# layer may not be able to have both, and then what was asked comes first.
_STAGES = ((4, 1.0), (3, 10.0), (3, 100.0))
_FINISH = ((4, 10.0),)
_CLOSE = 0.1  # share of the tolerance at which optimising stops
_EASY = 0.25  # share of the budget at which no other site is tried
_FIRM = (0.1, 1.0, 10.0)  # what going beyond the budget costs, from round to round of the finish
_MARGIN = 0.8  # the share of the budget that the finish aims at


@dataclass(frozen=True)
class Limits:
    """What an edit may cost.

    ``budget`` is the mean KL in nats over the ground, ``norm`` the edit's Frobenius norm as a share
    of the weight's, ``within`` how far from the asked probability counts as reached.
    """

    budget: float
    norm: float
    within: float


@dataclass(frozen=True)
class Found:
    """An edit of one site, ``up @ down``, and what it does there.

    ``down`` is [r, d_in], ``up`` [d_out, r]; ``miss`` is the largest distance from an asked
    probability, ``spread`` the mean KL over the ground, ``norm`` relative to the weight.
    """

    site: str
    down: Tensor
    up: Tensor
    miss: float
    spread: float
    norm: float

    def within(self, limits: Limits) -> bool:
        """Whether the edit costs no more than it may."""
        return self.spread <= limits.budget and self.norm <= limits.norm


class Task:
    """Places to edit and ground to leave alone, read once in the look that is active."""

    def __init__(
        self, base: Base, wishes: Sequence[Wish], ground: Ground, sites: Sequence[str], look: str
    ) -> None:
        self.base, self.wishes, self.ground, self.sites = base, wishes, ground, tuple(sites)
        ids = torch.tensor(padded([wish.ids for wish in wishes]), device=base.device)
        self.places = [(row, len(wish.ids) - 1) for row, wish in enumerate(wishes)]
        self.edited = read_through(base.model, ids, sites, self.places)
        self.alone = read_through(base.model, ground.batch(base.device), sites, ground.places)
        self.covariance = covariances(base, look, sites)
        self.targets = _targets(self.edited.logits, wishes)
        self.before = self.alone.logits.double().log_softmax(-1)
        self.weights = ground.weights.to(base.device)

    def keys(self, site: str) -> tuple[Tensor, Tensor]:
        """Return the inputs at the edited places, and those at places close to them."""
        wanted = torch.stack([self.edited.inputs[site][place] for place in self.places])
        near = [self.alone.inputs[site][place] for place in self.ground.keys]
        return wanted.float(), torch.stack(near).float() if near else wanted[:0].float()

    def missed(self, logits: Tensor) -> float:
        """Return the largest distance of an asked probability from what it is."""
        chances = logits.double().softmax(-1)
        return max(
            abs(float(chances[row, token]) - asked)
            for row, wish in enumerate(self.wishes)
            for token, asked in wish.asked.items()
        )

    def far(self, logits: Tensor, stress: float) -> Tensor:
        """Return KL(target || model) at the edited places, summed.

        It is the KL of the asked tokens, with the rest as one, plus that within the rest; the first
        part counts ``stress`` times.
        """
        known = logits.double().log_softmax(-1)
        whole = divergence(self.targets, known).sum()
        return whole if stress == 1 else whole + (stress - 1) * self._coarse(known)

    def _coarse(self, known: Tensor) -> Tensor:
        total = known.new_zeros(())
        for row, wish in enumerate(self.wishes):
            asked = known.new_tensor(list(wish.asked.values()))
            there = known[row, list(wish.asked)]
            rest, left = 1 - asked.sum(), -torch.expm1(there.logsumexp(0).clamp_max(-1e-12))
            total = total + (asked * (asked.log() - there)).sum() + rest * (rest.log() - left.log())
        return total

    def spread(self, logits: Tensor) -> Tensor:
        """Return the mean KL(before || after) over the ground."""
        return (divergence(self.before, logits.double().log_softmax(-1)) * self.weights).sum()


def _targets(logits: Tensor, wishes: Sequence[Wish]) -> Tensor:
    """Return log-probabilities with the asked ones set and the rest in proportion: [wishes, V]."""
    known = logits.double().log_softmax(-1).clone()
    for row, wish in enumerate(wishes):
        tokens = torch.tensor(list(wish.asked), device=known.device)
        asked = torch.tensor(list(wish.asked.values()), dtype=known.dtype, device=known.device)
        rest = known[row].clone()
        rest[tokens] = -torch.inf
        known[row] = rest + torch.log1p(-asked.sum()) - rest.logsumexp(0)
        known[row, tokens] = asked.log()
    return known


def candidates(base: Base, layers: Sequence[int] | None) -> list[str]:
    """Return the sites to try, best guess first.

    Raises:
        InputError: a layer that the base has not.
    """
    found = writers(base.model)
    numbers = list(found)
    if layers is None:
        wanted = [numbers[min(len(numbers) - 1, int(depth * len(numbers)))] for depth in _DEPTHS]
        return [found[number] for number in dict.fromkeys(wanted)]
    for layer in layers:
        if layer not in found:
            raise InputError(
                f"The base {base.name} has no layer {layer} to edit",
                f"It has {numbers[0]} to {numbers[-1]}",
            )
    if not layers:
        raise InputError("There is no layer to edit", "Name one at least")
    return [found[layer] for layer in dict.fromkeys(layers)]


def solve(work: Task, limits: Limits) -> Found:
    """Return the best edit: within the limits if one of the sites has it, closest to the wish.

    Each site gets its closed-form input side and an output side by L-BFGS on the wish alone. Where
    none of these is within the limits, the two cheapest are finished under them. When the wish is
    still too dear, what is returned is the most of it that the limits allow.
    """
    tried: list[Found] = []
    with task("Solving", total=len(work.sites) + 2) as bar:
        for site in work.sites:
            found = _Site(work, site, limits).freely()
            tried.append(found)
            bar.advance()
            reached = found.miss <= limits.within
            if reached and found.within(limits) and found.spread <= _EASY * limits.budget:
                return found
        done = [one for one in tried if one.miss <= limits.within and one.within(limits)]
        if done:
            return min(done, key=lambda one: one.spread)
        finished = []
        for one in sorted(tried, key=lambda each: each.miss + each.spread)[:2]:
            finished.append(_Site(work, one.site, limits).bound(one))
            bar.advance()
            if finished[-1].miss <= limits.within:
                break
    return min(finished, key=lambda one: (one.miss, one.spread))


class _Site:
    """One site of a task."""

    def __init__(self, work: Task, site: str, limits: Limits) -> None:
        self.work, self.site, self.limits = work, site, limits
        wanted, near = work.keys(site)
        self.down = input_side(work.covariance[site], wanted, near, _LEAVE_ALONE)
        self.gram = self.down @ self.down.T
        self.edited = work.edited.inputs[site].float() @ self.down.T
        self.alone = work.alone.inputs[site].float() @ self.down.T
        self.width, self.weight = size_of(work.base.model, site)

    def freely(self) -> Found:
        """Reach for the wish and nothing else."""
        size = (self.width, len(self.down))
        return self._seen(self._descend(torch.zeros(size, device=self.down.device), None))

    def bound(self, start: Found) -> Found:
        """Reach for the wish under the limits, more firmly each round; step back if need be."""
        best = start
        for firm in _FIRM:
            best = self._seen(self._descend(best.up, firm))
            if best.within(self.limits) and best.miss <= self.limits.within:
                return best
        return self._stepped_back(best)

    def _stepped_back(self, found: Found) -> Found:
        """Return the largest share of an edit that is within the limits."""
        if found.within(self.limits):
            return found
        low, high = 0.0, 1.0
        kept = replace(found, up=torch.zeros_like(found.up), spread=0.0, norm=0.0)
        for _ in range(6):
            share = (low + high) / 2
            seen = self._seen(found.up * share)
            if seen.within(self.limits):
                low, kept = share, seen
            else:
                high = share
        return kept if low else self._seen(kept.up)

    def _descend(self, start: Tensor, firm: float | None) -> Tensor:
        up = start.clone().requires_grad_()
        for rounds, stress in _STAGES if firm is None else _FINISH:
            if self._round(up, rounds, stress, firm):
                break
        return up.detach()

    def _round(self, up: Tensor, rounds: int, stress: float, firm: float | None) -> bool:
        """Move ``up`` for some rounds; return whether it got where it should."""
        optimiser = torch.optim.LBFGS(
            [up], max_iter=_STEPS, history_size=20, line_search_fn="strong_wolfe"
        )

        def cost() -> float:
            optimiser.zero_grad()
            logits = self._logits(self.work.edited, self.edited, up, self.work.places)
            loss = self.work.far(logits, stress)
            if firm is not None:
                loss = loss + firm * self._beyond(up)
            loss.backward()
            return float(loss.detach())

        for _ in range(rounds):
            optimiser.step(cost)
            if firm is None and self._miss(up.detach()) <= _CLOSE * self.limits.within:
                return True
            if firm is not None and self._good(up.detach()):
                return True
        return False

    def _beyond(self, up: Tensor) -> Tensor:
        """Return the squared excess over the limits, each as a share of its limit."""
        logits = self._logits(self.work.alone, self.alone, up, self.work.ground.places)
        spread = self.work.spread(logits) / (_MARGIN * self.limits.budget)
        norm = self._norm(up) / (_MARGIN * self.limits.norm)
        return (spread - 1).clamp_min(0) ** 2 + (norm - 1).clamp_min(0) ** 2

    def _good(self, up: Tensor) -> bool:
        if self._miss(up) > self.limits.within / 2:
            return False
        return self._seen(up).within(self.limits)

    def _logits(
        self, passed: Passed, through: Tensor, up: Tensor, places: Sequence[tuple[int, int]]
    ) -> Tensor:
        return go_on(self.work.base.model, passed, self.site, through @ up.T, places)

    @torch.no_grad()
    def _miss(self, up: Tensor) -> float:
        logits = self._logits(self.work.edited, self.edited, up, self.work.places)
        return self.work.missed(logits)

    def _norm(self, up: Tensor) -> Tensor:
        """Return the Frobenius norm of up @ down as a share of the weight's."""
        square = torch.trace(up.T @ up @ self.gram)
        return square.clamp_min(1e-30).sqrt() / self.weight

    @torch.no_grad()
    def _seen(self, up: Tensor) -> Found:
        logits = self._logits(self.work.alone, self.alone, up, self.work.ground.places)
        spread = float(self.work.spread(logits))
        return Found(self.site, self.down, up, self._miss(up), spread, float(self._norm(up)))
