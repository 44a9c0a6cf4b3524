"""Which method and weights: a small grid, judged by held-out loss and drift together.

Chosen on one half of the rows and judged on the other, since the best of many is lucky on the rows
that it was chosen by. A gain is called emergent only if it beats the best parent, the norm-matched
linear merge and, where there is one, an adapter that was trained on all corpora, each by a paired
bootstrap.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.base.likelihood import bits_per_byte, general_text
from loratelier.compose.interference import Rows, examples_of, losses_by_row
from loratelier.compose.merge import merge_adapters
from loratelier.compose.plan import METHODS
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import task
from loratelier.train.examples import Example

_RESAMPLES = 2000


@dataclass(frozen=True)
class Tried:
    """A merge that was tried, or a control.

    Attributes:
        method: how it was made; of a control its name.
        weights: by adapter.
        nll: nats per token of each adapter's rows, on the half that choosing went by.
        loss: their mean over adapters, each counting alike.
        drift: relative change of the bits per byte of general text; 0.01 is one percent worse.
        best: nothing that was tried is better in loss and drift both (the Pareto front).
    """

    method: str
    weights: Mapping[str, float]
    nll: Mapping[str, float]
    loss: float
    drift: float
    best: bool = False


@dataclass(frozen=True)
class Against:
    """The chosen merge against a control, on the rows that nothing was chosen by.

    ``gain`` is the control's loss minus the merge's in nats per token (mean over adapters), with
    its 95% interval by paired bootstrap over rows; ``beaten`` where all of that is above 0.
    """

    control: str
    gain: float
    low: float
    high: float

    @property
    def beaten(self) -> bool:
        """Whether the merge is better beyond chance."""
        return self.low > 0


@dataclass(frozen=True)
class Search:
    """What was tried, what was chosen, and what it is worth.

    ``emergent`` says that the chosen merge beats every control; ``joint`` whether an adapter that
    was trained on all corpora was among them: without it nothing is called emergent.
    """

    tried: tuple[Tried, ...]
    chosen: Tried
    adapter: Adapter
    against: tuple[Against, ...]
    joint: bool

    @property
    def emergent(self) -> bool:
        """Whether the merge is more than its parents and all controls, beyond chance."""
        return self.joint and all(each.beaten for each in self.against)

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return {
            "tried": [asdict(each) for each in self.tried],
            "chosen": asdict(self.chosen),
            "against": [asdict(each) | {"beaten": each.beaten} for each in self.against],
            "joint": self.joint,
            "emergent": self.emergent,
        }


def search_merge(
    base: Base,
    held_out: Mapping[Adapter, Rows],
    *,
    methods: Sequence[str] = ("linear", "nlerp", "ties"),
    strengths: Sequence[float] = (0.7, 1.0, 1.4),
    steps: int = 4,
    drift_budget: float = 0.02,
    joint: Adapter | None = None,
    rank: int | None = None,
    name: str = "merged",
    seed: int = 0,
) -> Search:
    """Try a grid of methods and weights and choose by held-out loss under a budget of drift.

    The grid has all shares that are multiples of ``1 / steps`` and give every adapter some, times
    ``strengths``, times ``methods``. Of what stays within the budget the lowest loss is chosen; if
    nothing does, the lowest drift.

    Args:
        base: left as it was.
        held_out: two or more adapters, each with at least two rows that it was not trained on.
        methods: names of :data:`METHODS`, each with its own defaults.
        strengths: sums of the weights.
        steps: of the shares; at least as many as adapters.
        drift_budget: what the bits per byte of general text may rise by, relative.
        joint: an adapter that was trained on all the corpora, as a control.
        rank: of every merge.
        name: of the result.
        seed: of the halves, the bootstrap and the merges.

    Raises:
        InputError: an unknown method, too few adapters, rows or steps, or adapters that cannot
            meet.
    """
    _require_grid(held_out, methods, strengths, steps)
    adapters = list(held_out)
    halves = [_halves(examples_of(base, each, rows), seed) for each, rows in held_out.items()]
    chosen_by, judged_by = [half[0] for half in halves], [half[1] for half in halves]
    texts = general_text()
    before = _bpb(base, texts)

    def make(method: str, weights: Sequence[float]) -> Adapter:
        weighted = dict(zip(adapters, weights, strict=True))
        return merge_adapters(weighted, method=method, rank=rank, name=name, seed=seed)

    def trial(method: str, weights: Sequence[float]) -> Tried:
        with _worn(base, make(method, weights)):
            sums = [losses_by_row(base, rows, method) for rows in chosen_by]
            drift = _bpb(base, texts) / before - 1
        nll = [_per_token(s, rows) for s, rows in zip(sums, chosen_by, strict=True)]
        names = [adapter.name for adapter in adapters]
        return Tried(
            method,
            dict(zip(names, weights, strict=True)),
            dict(zip(names, nll, strict=True)),
            sum(nll) / len(nll),
            drift,
        )

    grid = list(product(methods, _weights(len(adapters), steps, strengths)))
    tried = []
    with task("Searching", total=len(grid)) as bar:
        for method, weights in grid:
            tried.append(trial(method, weights))
            bar.advance()
    number = _chosen(tried, drift_budget)
    method, weights = grid[number]
    result = make(method, weights)
    controls = {f"parent {each.name}": each for each in adapters}
    controls["norm-matched linear"] = make("nlerp", weights)
    if joint is not None:
        controls["trained on all"] = joint
    front = _front(tried)
    return Search(
        tried=tuple(_marked(each, n in front) for n, each in enumerate(tried)),
        chosen=_marked(tried[number], number in front),
        adapter=result,
        against=_against(base, result, controls, judged_by, seed),
        joint=joint is not None,
    )


def _require_grid(
    held_out: Mapping[Adapter, Rows],
    methods: Sequence[str],
    strengths: Sequence[float],
    steps: int,
) -> None:
    if len(held_out) < 2:
        raise InputError(f"There is nothing to search: {len(held_out)} adapter", "Give two")
    if not methods or not strengths:
        raise InputError("There is nothing to try", "Name methods and strengths")
    odd = next((method for method in methods if method not in METHODS), None)
    if odd is not None:
        raise InputError(f"There is no merge method '{odd}'", did_you_mean(odd, METHODS))
    if steps < len(held_out):
        raise InputError(
            f"{steps} steps give {len(held_out)} adapters no share each", "Take more steps"
        )


def _weights(count: int, steps: int, strengths: Sequence[float]) -> list[tuple[float, ...]]:
    """Return every share that is a multiple of ``1 / steps`` and not 0, times every strength."""
    shares = [parts for parts in product(range(1, steps + 1), repeat=count) if sum(parts) == steps]
    return [
        tuple(strength * part / steps for part in parts)
        for strength in strengths
        for parts in shares
    ]


def _halves(examples: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    if len(examples) < 2:
        raise InputError(
            "An adapter has one held-out row, and one cannot be halved", "Give at least two"
        )
    mixed = random.Random(seed).sample(examples, len(examples))
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


@contextmanager
def _worn(base: Base, adapter: Adapter) -> Iterator[None]:
    with AdapterBank(base.model) as bank:
        bank.add(adapter.name, adapter)
        with bank.activate(adapter.name):
            yield


def _bpb(base: Base, texts: Sequence[str]) -> float:
    return bits_per_byte(base.model, base.tokenizer, texts).value


def _per_token(sums: Tensor, rows: Sequence[Example]) -> float:
    return float(sums.sum()) / sum(row.targets for row in rows)


def _chosen(tried: Sequence[Tried], budget: float) -> int:
    """Return the place of the lowest loss within the budget, or of the lowest drift."""
    within = [n for n, each in enumerate(tried) if each.drift <= budget]
    if within:
        return min(within, key=lambda n: tried[n].loss)
    return min(range(len(tried)), key=lambda n: tried[n].drift)


def _front(tried: Sequence[Tried]) -> set[int]:
    """Return the places of those that nothing beats in one figure without losing in the other."""

    def beats(one: Tried, other: Tried) -> bool:
        better = (one.loss <= other.loss, one.drift <= other.drift)
        return all(better) and (one.loss < other.loss or one.drift < other.drift)

    return {n for n, each in enumerate(tried) if not any(beats(another, each) for another in tried)}


def _against(
    base: Base,
    merged: Adapter,
    controls: Mapping[str, Adapter],
    judged_by: Sequence[Sequence[Example]],
    seed: int,
) -> tuple[Against, ...]:
    def losses(adapter: Adapter) -> list[Tensor]:
        with _worn(base, adapter):
            return [losses_by_row(base, rows, "Judging") for rows in judged_by]

    own = losses(merged)
    found = []
    for name, control in controls.items():
        better = [theirs - ours for theirs, ours in zip(losses(control), own, strict=True)]
        chance = torch.Generator().manual_seed(seed)
        gains = torch.stack(
            [_resampled(gain, rows, chance) for gain, rows in zip(better, judged_by, strict=True)]
        ).mean(0)
        edges = torch.tensor([0.025, 0.975], dtype=torch.float64)
        low, high = torch.quantile(gains[1:], edges).tolist()
        found.append(Against(name, float(gains[0]), low, high))
    return tuple(found)


def _resampled(gain: Tensor, rows: Sequence[Example], chance: torch.Generator) -> Tensor:
    """Return the gain per token of the rows as they are, and then of resamples of them."""
    tokens = torch.tensor([row.targets for row in rows], dtype=torch.float64)
    drawn = torch.randint(len(rows), (_RESAMPLES, len(rows)), generator=chance)
    drawn = torch.cat([torch.arange(len(rows))[None], drawn])
    return gain[drawn].sum(1) / tokens[drawn].sum(1)


def _marked(tried: Tried, best: bool) -> Tried:
    return replace(tried, best=best)
