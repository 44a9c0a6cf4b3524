"""Merging: adapters in, one adapter out, with what the rank cost and what was checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from loratelier.adapter import Adapter, Card, versions
from loratelier.adapter.tensors import in_order
from loratelier.base import Base
from loratelier.compose import checks
from loratelier.compose.core import Part, norm_of
from loratelier.compose.methods import concatenated, merge_site
from loratelier.compose.parents import common_base, pairs_of, require_alike
from loratelier.compose.plan import SIGN_AFTER, Plan, plan_of
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task


@dataclass(frozen=True)
class _Site:
    """One merged site: the pair that is kept, the whole of it, and what the rank leaves out.

    ``norm`` is that of the whole, ``lost`` that of what is left out.
    """

    kept: tuple[Tensor, Tensor]
    whole: tuple[Tensor, Tensor]
    norm: float
    lost: float


def merge_adapters(
    adapters: Mapping[Adapter, float],
    *,
    method: str = "linear",
    rank: int | None = None,
    name: str = "merged",
    density: float | None = None,
    epsilon: float | None = None,
    variant: str | None = None,
    combine: str | None = None,
    seed: int = 0,
    base: Base | None = None,
) -> Adapter:
    """Merge adapters of one base into one, in core space and never through dense updates.

    An adapter may have any rank, any alpha and any sites; where it has no pair it is zero. Alpha of
    the result is one number for all sites, so that tools without patterns read it.

    Args:
        adapters: each with its weight.
        method: ``linear`` (task arithmetic; with a rank the SVD-compressed merge), ``nlerp``
            (linear, at each site with the norm ``sum |w| ||D||``), ``slerp`` (two adapters, each
            site by its own angle; ``t`` is the second's share of the weights and the result is
            multiplied by their sum), ``ties``, ``dare``, ``della``, ``knots``, ``iso``, ``cat``
            (concatenated factors). Formulas and sources: ``docs/compose.md``.
        rank: of the result, the best approximation at each site (Eckart and Young 1936); without it
            the exact rank stays, which is at most the sum of the ranks.
        name: of the result.
        density: share of entries that stay, for ties, dare, della and knots; 0.5 untold.
        epsilon: DELLA's keep probabilities go from ``density - epsilon`` to ``density + epsilon``;
            0.1 untold.
        variant: ``"sign-after-weights"`` (as mergekit reads TIES; untold) or
            ``"sign-before-weights"`` (as PEFT does); for ties, della and knots.
        combine: for knots, ``"ties"`` (untold) or ``"linear"``.
        seed: of what dare and della drop, and of which sites are checked.
        base: where it is given, and the method is linear or cat without a rank, the merged logits
            are held to those of the mixture in the bank.

    Returns:
        An adapter whose card names method, basis, parents, truncation error
        (``sqrt(sum of dropped sigma^2) / ||D||``, over all sites) and, under ``merge``, the
        options, the truncation error by site and the checks.

    Raises:
        InputError: adapters that cannot meet, a method or option that makes no sense, or adapters
            that have no basis of their own for a method that needs one.
        CheckFailed: the merge is not what its method says.
    """
    options = {"density": density, "epsilon": epsilon, "variant": variant, "combine": combine}
    plan = plan_of(method, rank, seed, options)
    _require_weights(adapters, plan)
    require_alike(list(adapters))
    sites = _sites(adapters, plan)
    held = checks.algebraic(sites, plan)
    merged = {}
    with task("Merging", total=len(sites)) as bar:
        for site, parts in sites.items():
            merged[site] = _merged(site, parts, plan)
            bar.advance()
    result = _adapter(adapters, merged, plan, name)
    held.append(checks.stored(result, {site: each.kept for site, each in merged.items()}))
    if rank is not None:
        held.append(
            checks.truncated({s: (each.kept, each.whole, each.lost) for s, each in merged.items()})
        )
    if base is not None and method in ("linear", "cat") and rank is None:
        found = checks.mixture(base, adapters, result)
        held += [found] if found else []
    proof = {**result.card.merge, "checks": [check.to_json() for check in held]}
    return replace(result, card=result.card.model_copy(update={"merge": proof}))


def _require_weights(adapters: Mapping[Adapter, float], plan: Plan) -> None:
    if not adapters:
        raise InputError("There is nothing to merge", "Give at least one adapter with its weight")
    for adapter, weight in adapters.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InputError(f"The weight of '{adapter.name}' is {weight!r}", "It is a number")
        if not math.isfinite(weight):
            raise InputError(f"The weight of '{adapter.name}' is {weight}", "It is a finite number")
    if not any(adapters.values()):
        raise InputError("All weights are 0", "Give at least one adapter another weight")
    if plan.method == "slerp" and len(adapters) > 2:
        raise InputError(
            f"slerp goes between two adapters, and these are {len(adapters)}", "Take nlerp"
        )
    negative = next((a for a, weight in adapters.items() if weight < 0), None)
    if negative is None:
        return
    if plan.method == "slerp":
        raise InputError(f"slerp has no way to the negative weight of '{negative.name}'")
    if plan.elects and plan.variant == SIGN_AFTER:
        raise InputError(
            f"'{negative.name}' has a negative weight, and {SIGN_AFTER} divides by the weights",
            "Take variant='sign-before-weights'",
        )


def _sites(adapters: Mapping[Adapter, float], plan: Plan) -> dict[str, list[Part]]:
    """Return, by site, the adapters that act there."""
    pairs = {adapter: pairs_of(adapter) for adapter in adapters}
    streams = _streams(adapters, pairs) if plan.chances else dict.fromkeys(adapters, 0)
    found: dict[str, list[Part]] = {}
    for adapter, weight in adapters.items():
        for site, (down, up) in pairs[adapter].items():
            part = Part(down, up, float(weight), streams[adapter])
            found.setdefault(site, []).append(part)
    taking = {site: parts for site, parts in found.items() if any(p.weight for p in parts)}
    return {site: taking[site] for site in in_order(taking)}


def _streams(adapters: Mapping[Adapter, float], pairs: Mapping[Adapter, Any]) -> dict[Adapter, int]:
    """Give each adapter a stream of chance, by its norm: not by its order, nor by its factors."""
    norms = {
        adapter: math.sqrt(sum(norm_of(pair) ** 2 for pair in pairs[adapter].values()))
        for adapter in adapters
    }
    # Six digits are what float32 leaves of a norm; of equal ones the name decides.
    ranked = sorted(adapters, key=lambda a: (float(f"{norms[a]:.6g}"), a.name, a.digest))
    return {adapter: number for number, adapter in enumerate(ranked)}


def _merged(site: str, parts: list[Part], plan: Plan) -> _Site:
    if plan.method == "cat":
        pair = concatenated([part for part in parts if part.weight])
        return _Site(pair, pair, norm_of(pair), 0.0)
    spectrum = merge_site(site, parts, plan)
    whole = spectrum.pair(None)
    kept = whole if plan.rank is None else spectrum.pair(plan.rank)
    return _Site(kept, whole, spectrum.norm, spectrum.lost(plan.rank))


def _adapter(
    adapters: Mapping[Adapter, float], merged: Mapping[str, _Site], plan: Plan, name: str
) -> Adapter:
    alpha = max(site.kept[0].shape[0] for site in merged.values())
    pairs = {}
    for site, each in merged.items():
        down, up = each.kept
        # One alpha for all sites: s = alpha / r is then not 1 where a site has a lower rank.
        pairs[site] = (down.float(), (up * (down.shape[0] / alpha)).float())
    return Adapter.from_tensors(pairs, _card(adapters, merged, plan), name, alphas=float(alpha))


def _card(adapters: Mapping[Adapter, float], merged: Mapping[str, _Site], plan: Plan) -> Card:
    whole = math.sqrt(sum(site.norm**2 for site in merged.values()))
    lost = math.sqrt(sum(site.lost**2 for site in merged.values()))
    by_site = {name: site.lost / (site.norm or 1.0) for name, site in merged.items()}
    return Card(
        base=common_base(list(adapters)),
        seed=plan.seed,
        versions=versions(),
        parents=[
            {"name": adapter.name, "digest": adapter.digest, "weight": float(weight)}
            for adapter, weight in adapters.items()
        ],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=plan.method,
        basis=plan.basis,
        truncation_error=lost / (whole or 1.0),
        merge={
            "rank": plan.rank,
            "options": plan.options,
            "truncation_error_by_site": by_site,
        },
    )
