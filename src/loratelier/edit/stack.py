"""Edits as ranks of an adapter: put on, listed, and taken off in any order.

An edit adds its ranks to a site's pair after those that are there; the old ranks keep their bits.
The card's ``edits`` hold, under ``stacked``, what each edit is called, what was asked, and how many
ranks it has at which site, in the order in which they lie; under ``original``, what the adapter was
before: its name, config, card, and the dtype of the pairs that edits lengthened.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter, BaseRef, Card, versions
from loratelier.adapter.config import settings_from
from loratelier.base import Base
from loratelier.kit.errors import InputError, did_you_mean

Pair = tuple[Tensor, Tensor]


def alone(base: Base, pairs: Mapping[str, Pair], name: str, asked: Sequence[Any]) -> Adapter:
    """Make an edit by itself: an adapter of its own ranks, with what was asked in its card.

    Args:
        base: the base that it was made for.
        pairs: site -> (A [r, d_in], B [d_out, r]); the change is B A.
        name: what it is called.
        asked: plain values that say what was asked and reached.
    """
    ranks = {site: int(down.shape[0]) for site, (down, _) in pairs.items()}
    card = Card(
        base=BaseRef(fingerprint=base.fingerprint, spec=base.spec, name=base.name),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method="edit",
        edits={"original": None, "stacked": [{"name": name, "ranks": ranks, "asked": list(asked)}]},
    )
    kept = {site: (down.cpu(), up.cpu()) for site, (down, up) in pairs.items()}
    return Adapter.from_tensors(kept, card, name)


def edits_of(adapter: Adapter) -> list[dict[str, Any]]:
    """Return the edits that an adapter wears, oldest first: name, ranks by site, what was asked."""
    return list(adapter.card.edits.get("stacked", []))


def stack(adapter: Adapter | None, edits: Sequence[Adapter], name: str) -> Adapter:
    """Return an adapter with edits on top of what it has.

    Args:
        adapter: what is edited; None for the base.
        edits: adapters as :func:`alone` makes them.
        name: of the result.

    Raises:
        InputError: no edits, one that is none, one that the adapter wears already, or an adapter
            that is no sum of low-rank updates.
    """
    if not edits:
        raise InputError("There are no edits to stack", "Give one at least")
    for edit in edits:
        if edit.card.method != "edit" or edit.card.edits.get("original") is not None:
            raise InputError(f"'{edit.name}' is no edit by itself", "Make it with --alone")
    result = adapter
    for edit in edits:
        result = edit if result is None else _on_top(result, edit, name)
    assert result is not None
    return Adapter(name, result.settings, result.tensors, result.card)


def _on_top(adapter: Adapter, edit: Adapter, name: str) -> Adapter:
    require_plain(adapter)
    (record,) = edits_of(edit)
    worn = [each["name"] for each in edits_of(adapter)]
    if record["name"] in worn:
        raise InputError(f"'{adapter.name}' wears the edit '{record['name']}' already")
    _require_one_base(adapter, edit)
    pairs, alphas = dict(adapter.tensors), _alphas(adapter)
    for site, (down, up) in edit.tensors.items():
        scale = edit.scaling(site)
        if site in pairs:
            scale /= adapter.scaling(site)
            old_down, old_up = (half.float() for half in pairs[site])
            pairs[site] = torch.cat([old_down, down]), torch.cat([old_up, up * scale], dim=1)
        else:
            pairs[site] = down, up * scale
        alphas[site] = (adapter.scaling(site) if site in adapter.tensors else 1.0) * len(
            pairs[site][0]
        )
    card = adapter.card.model_copy(
        update={
            "method": "edit",
            "parents": [
                {"name": adapter.name, "digest": adapter.digest, "weight": 1.0},
                {"name": edit.name, "digest": edit.digest, "weight": 1.0},
            ],
            "created": edit.card.created,
            "versions": versions(),
            "verdict": None,  # what a check said was said of another adapter
            "truncation_error": None,
            "edits": {
                "original": adapter.card.edits.get("original")
                if edits_of(adapter)
                else _original(adapter),
                "stacked": [*edits_of(adapter), record],
            },
        }
    )
    return Adapter.from_tensors(pairs, card, name, alphas=alphas)


def unstack(adapter: Adapter, names: Sequence[str] | None = None, *, name: str) -> Adapter:
    """Return an adapter without some of its edits; without all of them it is the old one, exactly.

    Args:
        adapter: what wears edits.
        names: which to take off; None for all.
        name: of the result.

    Raises:
        InputError: an edit that it does not wear, or nothing would be left.
    """
    worn = edits_of(adapter)
    known = [each["name"] for each in worn]
    off = known if names is None else list(dict.fromkeys(names))
    for each in off:
        if each not in known:
            raise InputError(f"'{adapter.name}' wears no edit '{each}'", did_you_mean(each, known))
    if not off:
        raise InputError(f"'{adapter.name}' wears no edits", "There is nothing to undo")
    original = adapter.card.edits.get("original")
    rest = [each for each in worn if each["name"] not in off]
    if not rest and original is None:
        raise InputError(
            f"Without its edits nothing is left of '{adapter.name}'", "Wear the base by itself"
        )
    pairs = _without(adapter, off, original, whole=not rest)
    if not rest and original is not None:
        settings = settings_from(original["settings"], name)
        return Adapter(name, settings, pairs, Card.model_validate(original["card"]))
    alphas = {site: adapter.scaling(site) * len(down) for site, (down, _) in pairs.items()}
    card = adapter.card.model_copy(
        update={
            "parents": [{"name": adapter.name, "digest": adapter.digest, "weight": 1.0}],
            "edits": {"original": original, "stacked": rest},
        }
    )
    return Adapter.from_tensors(pairs, card, name, alphas=alphas)


def _without(
    adapter: Adapter, off: Sequence[str], original: Mapping[str, Any] | None, *, whole: bool
) -> dict[str, Pair]:
    pairs = {}
    for site, (down, up) in adapter.tensors.items():
        ranks = [(each["name"], each["ranks"].get(site, 0)) for each in edits_of(adapter)]
        keep = list(range(len(down) - sum(rank for _, rank in ranks)))
        at = len(keep)
        for own, rank in ranks:
            keep += [] if own in off else range(at, at + rank)
            at += rank
        if not keep:
            continue
        kept = down[keep].contiguous(), up[:, keep].contiguous()
        if whole and original is not None:
            dtype = getattr(torch, original["dtypes"][site])
            kept = kept[0].to(dtype), kept[1].to(dtype)
        pairs[site] = kept
    return pairs


def require_plain(adapter: Adapter) -> None:
    """Make sure that ranks can be added to an adapter.

    Raises:
        InputError: it holds what is no low-rank pair of a linear layer.
    """
    extras = adapter.extras
    odd = extras.embeddings or adapter.settings.invocation or adapter.card.tokens
    if odd or any(True for _ in extras.named()):
        raise InputError(
            f"'{adapter.name}' is not only low-rank pairs of linear layers",
            "Edit the base, or a plain LoRA adapter",
        )


def _require_one_base(adapter: Adapter, edit: Adapter) -> None:
    one, other = adapter.card.base.fingerprint, edit.card.base.fingerprint
    if one and other and one != other:
        raise InputError(
            f"'{adapter.name}' was made for {adapter.card.base.name} and the edit '{edit.name}' "
            f"for {edit.card.base.name}, which has other weights",
            "Edit it on its own base",
        )


def _alphas(adapter: Adapter) -> dict[str, float]:
    return {site: adapter.scaling(site) * len(down) for site, (down, _) in adapter.tensors.items()}


def _original(adapter: Adapter) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "digest": adapter.digest,
        "settings": dict(adapter.settings.raw),
        "card": adapter.card.model_dump(mode="json"),
        "dtypes": {
            site: str(down.dtype).removeprefix("torch.")
            for site, (down, _) in adapter.tensors.items()
        },
    }
