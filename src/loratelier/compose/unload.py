"""A base with adapters written into it, as a whole model folder for tools that know no adapters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base, load_base
from loratelier.compose.checks import LOGITS, CheckFailed, probe
from loratelier.kit.errors import InputError
from loratelier.kit.files import atomic_folder

_ORIGIN = "loratelier.json"  # beside the model: what was written into it


@dataclass(frozen=True)
class Unloaded:
    """A model that was written.

    Attributes:
        folder: where it is.
        worn: largest difference of a logit, of the merged model from the base with the adapters
            worn; relative to the largest logit where that is above 1.
        reloaded: the same, of the model as read back from the folder from the merged one.
        lost: share of the update that rounding to the weights' dtype lost (Frobenius norms).
    """

    folder: Path
    worn: float
    reloaded: float
    lost: float


@torch.no_grad()
def merge_and_unload(
    base: Base, adapters: Mapping[Adapter, float], folder: str | Path, *, replace: bool = False
) -> Unloaded:
    """Write a base with adapters added to its weights as a full model folder, and read it back.

    The folder holds the model in the base's dtype, its tokenizer, and what it was made of. It
    appears only once what was read back says the same as what was written.

    Args:
        base: not quantized; it is as it was afterwards.
        adapters: each with its gate; whatever the bank can merge, whole modules and experts too.
        folder: where to; a folder of something else is not replaced.
        replace: what stands there may be replaced, if it was written by this.

    Raises:
        InputError: a quantized base, adapters that do not fit or cannot be merged, or a folder
            that is taken.
        CheckFailed: the logits are not those of the adapters worn (in float32), or not the same
            after reading back.
    """
    if base.quantization:
        raise InputError(
            f"The base {base.name} is quantized ({base.quantization}): it would lose part of the "
            "update",
            "Load it without quantization",
        )
    target = Path(folder).expanduser()
    if replace and target.exists() and not (target / _ORIGIN).is_file():
        raise InputError(
            f"{target} was not written by this, and would be deleted", "Choose another folder"
        )
    names = {adapter: str(number) for number, adapter in enumerate(adapters)}
    mix = {names[adapter]: float(weight) for adapter, weight in adapters.items()}
    with AdapterBank(base.model) as bank:
        for adapter, name in names.items():
            bank.add(name, adapter)
        with bank.activate(mix):
            wanted = probe(base)
        merge = bank.merge(mix)
        merged = probe(base)
        worn = _apart(merged, wanted)
        if base.dtype == torch.float32:
            _require(worn, "logits of the merged model against those of the adapters worn")
        with atomic_folder(target, replace=replace) as scratch:
            base.model.save_pretrained(scratch)
            base.tokenizer.save_pretrained(scratch)
            origin = json.dumps(_origin(base, adapters), ensure_ascii=False, indent=2)
            (scratch / _ORIGIN).write_text(origin, encoding="utf-8")
            again = load_base(str(scratch), dtype=base.dtype, device=base.device)
            reloaded = _apart(probe(again), merged)
            _require(reloaded, "logits of the model that was read back")
    return Unloaded(target.resolve(), worn, reloaded, merge.forward.relative)


def _apart(got: Tensor, wanted: Tensor) -> float:
    scale = max(1.0, float(wanted.abs().max()))
    return float((got.float() - wanted.float()).abs().max()) / scale


def _require(off: float, what: str) -> None:
    if not off <= LOGITS:
        raise CheckFailed(f"{what} differ by {off:.2e}, allowed {LOGITS:.0e}")


def _origin(base: Base, adapters: Mapping[Adapter, float]) -> dict[str, Any]:
    return {
        "base": {"name": base.name, "spec": base.spec, "fingerprint": base.fingerprint},
        "adapters": [
            {"name": adapter.name, "digest": adapter.digest, "weight": float(weight)}
            for adapter, weight in adapters.items()
        ],
    }
