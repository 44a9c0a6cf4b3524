"""What every merge is held to, on the real tensors: a merge that fails is not handed out."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.compose.core import Part, Spectrum, distance, norm_of, weighing
from loratelier.compose.methods import merge_site
from loratelier.compose.plan import Plan

# Relative; the pairs are float32 where they are stored, float64 where they are merged.
STORED, EXACT = 1e-5, 1e-5
LOGITS = 1e-4
_SITES = 4  # that the algebraic checks look at
_PROBE = (
    "A merged adapter and the mixture say the same. Слитый адаптер и смесь говорят одно и то же."
)

Sites = Mapping[str, Sequence[Part]]
Merged = tuple[Tensor, Tensor]


class CheckFailed(RuntimeError):
    """A merge that is not what its method says: a fault of ours, never of the input."""


@dataclass(frozen=True)
class Check:
    """What was held: ``largest`` is the largest deviation found, ``allowed`` what it may be.

    Deviations are Frobenius norms relative to the update's own, over ``sites`` sites; for logits
    the largest difference of one, relative to the largest logit where that is above 1.
    """

    name: str
    largest: float
    allowed: float
    sites: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def algebraic(sites: Sites, plan: Plan) -> list[Check]:
    """Hold identity, weights, order and gauge at some of the sites, drawn with the plan's seed.

    identity: one adapter alone at weight 1 is itself (for Iso-C: itself with even singular values).
    weights: with the others at 0 it is the same. For methods that drop or trim, both with nothing
    dropped. order: the adapters the other way round give the same. gauge: so do ``(B G, G^-1 A)``.

    Raises:
        CheckFailed: one does not hold.
    """
    shared = [site for site, parts in sites.items() if len(parts) > 1] or list(sites)
    chosen = random.Random(plan.seed).sample(shared, min(_SITES, len(shared)))
    chance = torch.Generator().manual_seed(plan.seed)
    full = replace(plan, density=1.0, epsilon=0.0)

    def alone(site: str, parts: Sequence[Part]) -> float:
        return max(
            _apart(merge_site(site, weighing([part], [1.0]), full), _alone(part, plan))
            for part in parts
        )

    def weights(site: str, parts: Sequence[Part]) -> float:
        chosen_one = weighing(parts, [1.0] + [0.0] * (len(parts) - 1))
        return _apart(merge_site(site, chosen_one, full), _alone(parts[0], plan))

    def order(site: str, parts: Sequence[Part]) -> float:
        return _apart(merge_site(site, parts[::-1], plan), merge_site(site, parts, plan).pair(None))

    def gauge(site: str, parts: Sequence[Part]) -> float:
        turned = [_turned(part, chance) for part in parts]
        return _apart(merge_site(site, turned, plan), merge_site(site, parts, plan).pair(None))

    rules = {"identity": alone, "weights": weights, "order": order, "gauge": gauge}
    return [_hold(name, rule, sites, chosen) for name, rule in rules.items()]


def _hold(
    name: str, rule: Callable[[str, Sequence[Part]], float], sites: Sites, chosen: Sequence[str]
) -> Check:
    found = {site: rule(site, sites[site]) for site in chosen}
    worst = max(found, key=lambda site: found[site])
    return _passed(Check(name, found[worst], EXACT, len(found)), worst)


def _passed(check: Check, where: str) -> Check:
    # Not `largest > allowed`: what is no number must fail too.
    if not check.largest <= check.allowed:
        raise CheckFailed(
            f"the merge's check '{check.name}' does not hold at {where}: "
            f"{check.largest:.2e}, allowed {check.allowed:.0e}"
        )
    return check


def _alone(part: Part, plan: Plan) -> Merged:
    """Return what one adapter alone should give, found another way than the merge finds it."""
    if plan.method != "iso":
        return part.down, part.up
    left, left_rest = torch.linalg.qr(part.up)
    right, right_rest = torch.linalg.qr(part.down.T)
    small = left_rest @ right_rest.T
    values, vectors = torch.linalg.eigh(small.T @ small)
    real = values > 1e-12 * values[-1]
    vectors, sigmas = vectors[:, real], values[real].sqrt()
    return (right @ vectors).T, left @ (small @ vectors / sigmas * sigmas.mean())


def _turned(part: Part, chance: torch.Generator) -> Part:
    """Return ``(B G, G^-1 A)``: the same update, other factors."""
    rank = part.down.shape[0]
    shape = torch.randn(rank, rank, generator=chance, dtype=torch.float64)
    stretch = 0.5 + torch.rand(rank, generator=chance, dtype=torch.float64)
    turn = torch.linalg.qr(shape)[0] * stretch
    return replace(part, down=torch.linalg.solve(turn, part.down), up=part.up @ turn)


def _apart(merged: Spectrum, expected: Merged) -> float:
    norm = norm_of(expected)
    return distance(merged.pair(None), expected) / (norm or 1.0)


def stored(adapter: Adapter, kept: Mapping[str, Merged]) -> Check:
    """Hold that what is stored at every site, in float32, is what was made of it in float64.

    Args:
        adapter: the result.
        kept: site -> its pair.

    Raises:
        CheckFailed: it is not.
    """
    off = {}
    for site, pair in kept.items():
        down, up = adapter.tensors[site]
        own = (down.double(), adapter.scaling(site) * up.double())
        off[site] = distance(own, pair) / (norm_of(pair) or 1.0)
    worst = max(off, key=lambda site: off[site])
    return _passed(Check("stored", off[worst], STORED, len(off)), worst)


def truncated(sites: Mapping[str, tuple[Merged, Merged, float]]) -> Check:
    """Hold that a rank leaves out at every site what it is said to leave out.

    Args:
        sites: site -> the pair that is kept, the whole of it, and the norm of what is left out.

    Raises:
        CheckFailed: it does not.
    """
    off = {
        site: abs(distance(kept, whole) - lost) / (norm_of(whole) or 1.0)
        for site, (kept, whole, lost) in sites.items()
    }
    worst = max(off, key=lambda site: off[site])
    return _passed(Check("truncation", off[worst], EXACT, len(off)), worst)


@torch.no_grad()
def probe(base: Base) -> Tensor:
    """Return a base's logits of a fixed text under whatever is worn: [1, tokens, vocabulary]."""
    ids = torch.tensor([base.tokenizer(_PROBE)["input_ids"]], device=base.device)
    logits: Tensor = base.model(input_ids=ids).logits
    return logits


def mixture(base: Base, parents: Mapping[Adapter, float], merged: Adapter) -> Check | None:
    """Hold that the merged adapter's logits are those of the parents worn together.

    Only where the base computes in float32; else rounding decides, and nothing is said.

    Raises:
        CheckFailed: they are not.
        InputError: an adapter does not fit the base.
    """
    if base.dtype != torch.float32 or base.quantization:
        return None
    names = {f"parent {number}": each for number, each in enumerate(parents)}
    with AdapterBank(base.model) as bank:
        for name, adapter in {**names, "merged": merged}.items():
            bank.add(name, adapter)
        with bank.activate({name: parents[adapter] for name, adapter in names.items()}):
            wanted = probe(base)
        with bank.activate("merged"):
            got = probe(base)
    scale = max(1.0, float(wanted.abs().max()))
    off = float((got - wanted).abs().max()) / scale
    return _passed(Check("mixture", off, LOGITS, len(merged.tensors)), base.name)
