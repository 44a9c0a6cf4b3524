"""Adapters that meet: do they conflict, and what would their merge cost."""

import threading
from typing import Any

import torch
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.base.likelihood import bits_per_byte, general_text
from loratelier.compose import compare_adapters, merge_adapters
from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict
from loratelier.studio.desk import opened, spec_of
from loratelier.studio.room import Here
from loratelier.studio.stream import streamed
from loratelier.studio.telling import Tell

router = APIRouter()
# Every third text: a preview is to be quick, and `check` reads them all.
_EVERY = 3
_held: dict[str, Adapter] = {}
_holding = threading.Lock()


class Meeting(Strict):
    """The adapters that are compared."""

    adapters: tuple[str, ...]


class Merge(Strict):
    """A merge; see ``loratelier merge``."""

    weights: dict[str, float]
    method: str = "linear"
    rank: int | None = None


class Saved(Strict):
    """A merge that was previewed, and the name that it gets."""

    digest: str
    name: str
    replace: bool = False


@router.post("/compose/compare")
def compare(asked: Meeting, here: Here) -> StreamingResponse:
    """Say how adapters conflict; the result is ``Conflict.to_json()``."""

    def work(_: Tell) -> dict[str, Any]:
        found = compare_adapters([opened(name) for name in asked.adapters]).to_json()
        found.pop("sites")
        return {"conflict": found}

    return streamed(work)


@router.post("/compose/preview")
def preview(asked: Merge, here: Here) -> StreamingResponse:
    """Merge, keep nothing, and measure general text with the base, the parents and the result."""

    def work(_: Tell) -> dict[str, Any]:
        parents = {opened(name): weight for name, weight in asked.weights.items()}
        merged = merge_adapters(parents, method=asked.method, rank=asked.rank, name="preview")
        spec = next(iter({spec_of(each): None for each in parents}), None)
        if spec is None:
            raise InputError("There is nothing to merge", "Choose two adapters")
        with here.desk.at_work():
            looks = {each.name: each for each in parents} | {"": merged}
            drift = _drift(here.desk.base(spec), looks)
        with _holding:
            _held.clear()
            _held[merged.digest] = merged
        card = merged.card
        return {
            "digest": merged.digest,
            "rank": merged.rank,
            "effect": merged.has_effect,
            "truncation_error": card.truncation_error,
            "drift": {"merged": drift.pop(""), "parents": drift},
        }

    return streamed(work)


@torch.no_grad()
def _drift(base: Base, looks: dict[str, Adapter]) -> dict[str, float]:
    """Return the relative rise of bits per byte on general text with each adapter worn."""
    texts = general_text()[::_EVERY]
    bare = bits_per_byte(base.model, base.tokenizer, texts).value
    found = {}
    with AdapterBank(base.model) as bank:
        for number, (name, adapter) in enumerate(looks.items()):
            bank.add(f"look-{number}", adapter)
            with bank.activate(f"look-{number}"):
                found[name] = bits_per_byte(base.model, base.tokenizer, texts).value / bare - 1
    return found


@router.post("/compose/save")
def save(asked: Saved, here: Here) -> dict[str, Any]:
    """Put a merge that was previewed into the store."""
    with _holding:
        merged = _held.get(asked.digest)
    if merged is None:
        raise InputError("This merge is not kept any more", "Preview it again")
    target = store.path_of(asked.name)
    if target.exists() and not asked.replace:
        raise InputError(f"There is an adapter '{asked.name}'", "Choose another name")
    merged.save(target, replace=asked.replace)
    here.changed("store")
    return {"name": asked.name}
