"""An adapter changed site by site: strengths, directions taken out, intruders taken out."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter, versions
from loratelier.base import Base
from loratelier.base.stream import weight_of
from loratelier.edit.stack import require_plain
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.factors import svd
from loratelier.scope.intruders import EPSILON, TOP, left_vectors

Pair = tuple[Tensor, Tensor]
_AGAIN = 8  # times that intruders are looked for at a site: taking one out may show the next


def scale_sites(adapter: Adapter, strengths: Mapping[str, float], *, name: str) -> Adapter:
    """Return an adapter whose sites have other strengths; A and B keep their bits, alpha changes.

    Args:
        adapter: a plain LoRA adapter.
        strengths: pattern -> factor, where ``*`` stands for anything
            (``model.layers.11.*``, ``*.down_proj``); 0 takes the site out. A site that several
            patterns name gets the product.
        name: of the result.

    Raises:
        InputError: a pattern that names no site, a factor that is no finite number, or nothing
            would be left.
    """
    require_plain(adapter)
    factors = dict.fromkeys(adapter.tensors, 1.0)
    for pattern, factor in strengths.items():
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not abs(factor) < float("inf"):
            raise InputError(f"The strength of '{pattern}' is {factor!r}", "It is a number")
        for site in matching(adapter, pattern):
            factors[site] *= factor
    pairs = {site: pair for site, pair in adapter.tensors.items() if factors[site] != 0}
    alphas = {
        site: adapter.scaling(site) * len(pair[0]) * factors[site] for site, pair in pairs.items()
    }
    return _changed(adapter, pairs, alphas, name, {"scaled": dict(strengths)})


def drop_directions(
    adapter: Adapter, directions: Mapping[str, Collection[int]], *, name: str
) -> Adapter:
    """Return an adapter without some singular directions of its updates ``s B A``.

    Args:
        adapter: a plain LoRA adapter.
        directions: site -> numbers of its directions, 1 being the strongest.
        name: of the result.

    Raises:
        InputError: an unknown site, a direction that there is none of, or nothing would be left.
    """
    require_plain(adapter)
    pairs, alphas = dict(adapter.tensors), _alphas(adapter)
    for site, numbers in directions.items():
        if site not in pairs:
            matching(adapter, site)
            raise InputError(f"'{site}' is a pattern", "Name one site in full")
        down, up = (half.float() for half in pairs.pop(site))
        found = svd(down, adapter.scaling(site) * up)
        count = len(found.values)
        for number in numbers:
            if not 1 <= number <= count:
                raise InputError(
                    f"{site} has no direction {number}", f"It has {count}, the strongest is 1"
                )
        kept = [n for n in range(count) if n + 1 not in numbers]
        alphas.pop(site)
        if kept:
            root = found.values[kept].sqrt()
            pairs[site] = (
                (found.into[:, kept] * root).T.float().contiguous(),
                (found.out[:, kept] * root).float().contiguous(),
            )
            alphas[site] = float(len(kept))
    said = {site: sorted(numbers) for site, numbers in directions.items()}
    return _changed(adapter, pairs, alphas, name, {"directions": said})


@torch.no_grad()
def drop_intruders(
    base: Base, adapter: Adapter, *, name: str, top: int = TOP, epsilon: float = EPSILON
) -> Adapter:
    """Return an adapter without intruder dimensions (arXiv 2410.21228).

    An intruder is one of the ``top`` left singular vectors u of ``W + s B A`` whose cosine with
    every one of W's is below ``epsilon``. B loses what it writes along it, ``B - u u^T B``, and the
    site is looked at again until there is none.

    Raises:
        InputError: an adapter that is not plain LoRA for this base, or that has no intruders.
    """
    require_plain(adapter)
    adapter.require_fit(base)
    pairs, taken = dict(adapter.tensors), dict[str, int]()
    with task("Intruder dimensions", total=len(pairs)) as bar:
        for site, (down, up) in adapter.tensors.items():
            weight = weight_of(base.model, site).double()
            kept, count = _cleared(
                weight, adapter.scaling(site) * down.double().cpu(), up.double().cpu(), top, epsilon
            )
            if count:
                pairs[site], taken[site] = (down, kept.to(up)), count
            bar.advance()
    if not taken:
        raise InputError(f"'{adapter.name}' has no intruder dimensions", "There is nothing to drop")
    return _changed(adapter, pairs, _alphas(adapter), name, {"intruders": taken})


def _cleared(
    weight: Tensor, down: Tensor, up: Tensor, top: int, epsilon: float
) -> tuple[Tensor, int]:
    """Return B without what it writes along intruders, and how many were taken out."""
    _, old = left_vectors(weight)
    count = 0
    for _ in range(_AGAIN):
        _, new = left_vectors(weight + up @ down, top)
        odd = new[:, (old.T @ new).abs().amax(0) < epsilon]
        if not odd.shape[1]:
            break
        up = up - odd @ (odd.T @ up)
        count += odd.shape[1]
    return up, count


def matching(adapter: Adapter, pattern: str) -> list[str]:
    """Return the sites that a pattern names.

    Raises:
        InputError: it names none.
    """
    found = [site for site in adapter.tensors if fnmatchcase(site, pattern)]
    if not found:
        example = next(iter(adapter.tensors))
        raise InputError(
            f"'{adapter.name}' has no site '{pattern}'", f"A site is called {example}; * is allowed"
        )
    return found


def _alphas(adapter: Adapter) -> dict[str, float]:
    return {site: adapter.scaling(site) * len(down) for site, (down, _) in adapter.tensors.items()}


def _changed(
    adapter: Adapter,
    pairs: Mapping[str, Pair],
    alphas: Mapping[str, float],
    name: str,
    what: dict[str, Any],
) -> Adapter:
    if not pairs:
        raise InputError(f"Nothing would be left of '{adapter.name}'", "Keep a site")
    card = adapter.card.model_copy(
        update={
            "method": "sites",
            "parents": [{"name": adapter.name, "digest": adapter.digest, "weight": 1.0}],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "verdict": None,  # what a check said was said of another adapter
            "truncation_error": None,
            "merge": {},
            "edits": {"sites": what},
        }
    )
    in_order = {site: pairs[site] for site in adapter.tensors if site in pairs}
    return Adapter.from_tensors(in_order, card, name, alphas=alphas)
