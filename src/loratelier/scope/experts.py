"""``look_at_experts``: which experts read the text, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loratelier.base.inside import has_experts, router_scores
from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.compare import divergence

DENSE = "This base has no experts: every token goes the same way"
SILENT = "This base has experts, and its code does not hand out what its routers say"


@dataclass(frozen=True)
class Expert:
    """One expert's mean share of a layer's tokens by its router's distribution."""

    expert: int
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class ExpertLayer:
    """One layer's routing of T tokens to E experts, of which ``chosen`` read each token.

    The distribution is the softmax of the router's scores over all experts.

    Attributes:
        layer: its number, from 0.
        before: float32 [E], the mean distribution over tokens; ``after`` likewise.
        variation: float32 [T], total variation ``0.5 sum |after - before|`` at each token, in
            [0, 1].
        kl: float32 [T], KL(before || after) in nats at each token.
        overlap: float32 [T], the share of the chosen experts that stays chosen.
        gained: experts whose mean share rose most, most first; ``lost`` that fell most.
    """

    layer: int
    before: Tensor = field(repr=False)
    after: Tensor = field(repr=False)
    variation: Tensor = field(repr=False)
    kl: Tensor = field(repr=False)
    overlap: Tensor = field(repr=False)
    gained: tuple[Expert, ...]
    lost: tuple[Expert, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the layer as plain data: means over tokens, and by token under ``tokens``."""
        return {
            "layer": self.layer,
            "variation": float(self.variation.mean()),
            "kl": float(self.kl.mean()),
            "overlap": float(self.overlap.mean()),
            "before": self.before.tolist(),
            "after": self.after.tolist(),
            "gained": [vars(expert) for expert in self.gained],
            "lost": [vars(expert) for expert in self.lost],
            "tokens": {
                "variation": self.variation.tolist(),
                "kl": self.kl.tolist(),
                "overlap": self.overlap.tolist(),
            },
        }


@dataclass(frozen=True)
class Experts:
    """How the routers of a mixture of experts are moved.

    Attributes:
        effect: whether anything can differ; if not, every figure is exactly that of no change.
        layers: the layers that have experts; None for a base that has none.
        chosen: how many experts read a token; 0 without experts.
        reason: why there are no layers; None where there are.
    """

    effect: bool
    layers: tuple[ExpertLayer, ...] | None
    chosen: int
    reason: str | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to say in English."""
        if self.layers is None:
            return (str(self.reason),)
        if not self.effect:
            return ("Every token goes to the same experts: nothing differs",)
        most = max(self.layers, key=lambda layer: float(layer.variation.mean()))
        kept = sum(float(layer.overlap.mean()) for layer in self.layers) / len(self.layers)
        return (
            f"{kept:.1%} of the chosen experts stay chosen; routing moves most in layer "
            f"{most.layer} ({float(most.variation.mean()):.1%} of the distribution)",
        )

    def to_json(self) -> dict[str, Any]:
        """Return ``{effect chosen reason layers sentences}`` as plain data."""
        return {
            "effect": self.effect,
            "chosen": self.chosen,
            "reason": self.reason,
            "layers": None if self.layers is None else [each.to_json() for each in self.layers],
            "sentences": list(self.sentences),
        }


@torch.no_grad()
def look_at_experts(change: Change, ids: Sequence[int], *, top: int = 3) -> Experts:
    """Show how a change moves the routers of a mixture of experts over a text.

    Args:
        change: what is looked at.
        ids: the text.
        top: how many experts to name that gained and that lost most in each layer.

    Raises:
        InputError: no tokens, ``top`` below 1, or scores that are no numbers.
    """
    if top < 1:
        raise InputError(f"top is {top}", "Name one expert or more")
    batch = change.batch(ids)
    with change.together():
        routing = router_scores(change.base.model, batch)
    if routing is None:
        reason = SILENT if has_experts(change.base.model) else DENSE
        return Experts(effect=change.effect, layers=None, chosen=0, reason=reason)
    layers = tuple(
        _layer(layer, scores.float(), routing.chosen, top)
        for layer, scores in zip(routing.layers, routing.scores, strict=True)
    )
    return Experts(effect=change.effect, layers=layers, chosen=routing.chosen, reason=None)


def _layer(layer: int, scores: Tensor, chosen: int, top: int) -> ExpertLayer:
    """Compare the scores [rows, T, E] of one layer."""
    if not bool(scores.isfinite().all()):
        raise InputError(
            "The routers' scores are no finite numbers here",
            "Load the base in float32, or lower the strength",
        )
    likely = scores.log_softmax(-1)
    shares = likely.exp()
    moved = shares[-1] - shares[0]
    picked = torch.zeros_like(scores).scatter(-1, scores.topk(chosen).indices, 1.0)
    before, after = shares[0].mean(0), shares[-1].mean(0)
    # From the difference itself, so that no change is no change to the last bit.
    mean = moved.mean(0)
    order = mean.argsort(descending=True).tolist()
    named = [Expert(n, float(before[n]), float(after[n])) for n in order]
    return ExpertLayer(
        layer=layer,
        before=before.cpu(),
        after=after.cpu(),
        variation=(0.5 * moved.abs().sum(-1)).cpu(),
        kl=(divergence(likely[0], likely[-1]) if len(scores) > 1 else moved[:, 0] * 0).cpu(),
        overlap=((picked[0] * picked[-1]).sum(-1) / chosen).cpu(),
        gained=tuple(e for e in named[:top] if mean[e.expert] > 0),
        lost=tuple(e for e in named[::-1][:top] if mean[e.expert] < 0),
    )
