"""Merging: a mix written into the weights and taken out again, with what rounding does to both.

A sum of a weight and a small update is rounded to the weight's dtype, in which most of a small
update can vanish. Nobody sees that from outside, so it is measured: the share of the update that
was lost, for the way in and for the way back.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.adapter import Adapter
from loratelier.bank.experts import update_of
from loratelier.bank.gates import Gates, at_site
from loratelier.bank.stack import build, layers_of
from loratelier.base.layers import (
    dense,
    embedding_scale,
    is_4bit,
    layer_of,
    stored,
    tied_output,
)
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class RoundingError:
    """What rounding did, measured in the dtype of the weights.

    Attributes:
        largest: the largest difference of one weight from what it should be.
        relative: the Frobenius norm of all differences over that of the whole update.
        worst_site: the parameter with the largest relative difference.
    """

    largest: float
    relative: float
    worst_site: str | None


@dataclass
class Merge:
    """A mix that is in the weights.

    Attributes:
        names: the adapters of the mix.
        dtype: of the weights, for example ``bfloat16``.
        parameters: how many parameters were overwritten.
        forward: merged weights against base plus update.
        back: weights after the way back against the base; all 0 where the originals were kept.
        kept_bytes: what the originals that were kept take.
    """

    names: tuple[str, ...]
    dtype: str
    parameters: int
    forward: RoundingError
    back: RoundingError
    kept_bytes: int
    _undo: list[Callable[[], None]]

    def undo(self) -> None:
        """Take the mix out of the weights."""
        for step in reversed(self._undo):
            step()
        self._undo = []

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return {
            "names": list(self.names),
            "dtype": self.dtype,
            "parameters": self.parameters,
            "forward": asdict(self.forward),
            "back": asdict(self.back),
            "kept_bytes": self.kept_bytes,
        }


@dataclass(frozen=True)
class _Change:
    """One parameter and its update, float32, both in the layout of the parameter."""

    name: str
    module: nn.Module
    parameter: str
    delta: Tensor


def merge_into(
    model: nn.Module, gates: Gates, adapters: Mapping[str, Adapter], *, keep: bool
) -> Merge:
    """Write a mix into a model's weights; see :meth:`AdapterBank.merge`."""
    _require_constant(gates)
    changes = [
        *_layer_changes(model, gates, adapters),
        *_module_changes(model, gates, adapters),
        *_expert_changes(model, gates, adapters),
    ]
    changes = _untied(model, _added(changes))
    forward, back, undo, kept = _Tally(), _Tally(), [], 0
    for change in changes:
        step, bytes_kept = _write(change, forward, back, keep=keep)
        undo.append(step)
        kept += bytes_kept
    dtypes = {str(c.module.get_parameter(c.parameter).dtype) for c in changes}
    return Merge(
        names=gates.names,
        dtype=", ".join(sorted(d.removeprefix("torch.") for d in dtypes)),
        parameters=len(changes),
        forward=forward.result(),
        back=back.result(),
        kept_bytes=kept,
        _undo=undo,
    )


def _require_constant(gates: Gates) -> None:
    if gates.needs_ids:
        raise InputError(
            "An adapter that waits for its invocation tokens cannot be merged",
            "Wear it: merged, it would act before them",
        )
    if gates.by_row or gates.by_token:
        raise InputError(
            "A mix that differs by row or token cannot be merged", "Give one mix for all"
        )


def _gate(gates: Gates, name: str, site: str) -> float:
    return float(at_site(gates.rows[0].get(name, 0.0), site))


def _layer_changes(
    model: nn.Module, gates: Gates, adapters: Mapping[str, Adapter]
) -> list[_Change]:
    worn = list(adapters.values())
    changes = []
    for site in dict.fromkeys(s for adapter in worn for s in layers_of(adapter, model)):
        module = model.get_submodule(site)
        stack = build(site, worn, model)
        values = torch.tensor([_gate(gates, name, site) for name in adapters])
        values = values.to(stack.up.device)
        layer = layer_of(module)
        down = stack.down.T if layer is not None and layer.kind == "embedding" else stack.down
        if len(down):
            delta = (stack.up * values[stack.owners][:, None]).T @ down
            delta = _unscaled(module, delta)
            if stack.factors is not None:
                factor = values[stack.factor_owners] @ stack.factors
                delta = delta + factor[:, None] * dense(module)
            changes.append(
                _Change(f"{site}.weight", module, "weight", stored(module, delta).contiguous())
            )
        if stack.offsets is not None:
            if not isinstance(module.bias, Tensor):
                raise InputError(
                    f"An adapter adds a bias at {site}, and this base's layer has none",
                    "Wear it instead of merging it",
                )
            offset = values[stack.offset_owners] @ stack.offsets
            changes.append(_Change(f"{site}.bias", module, "bias", offset))
    return changes


def _unscaled(module: nn.Module, delta: Tensor) -> Tensor:
    """Take out what an embedding multiplies its rows with: its weights do not have it."""
    layer = layer_of(module)
    if layer is None or layer.kind != "embedding":
        return delta
    scale = embedding_scale(module)
    return delta if scale is None else delta / scale.detach().float()


def _module_changes(
    model: nn.Module, gates: Gates, adapters: Mapping[str, Adapter]
) -> list[_Change]:
    """Return ``g (W' - W)`` for whole modules, where that is what their gates mean."""
    changes = []
    for name, adapter in adapters.items():
        for site, state in adapter.extras.modules.items():
            module = model.get_submodule(site)
            gate = _gate(gates, name, site)
            whole = any(True for _ in module.children())
            if whole and (gate not in (0.0, 1.0) or len(adapters) > 1):
                raise InputError(
                    f"'{name}' brings the whole module {site}, whose output is not linear in its "
                    "weights",
                    "Merge it alone at a gate of 1, or wear it",
                )
            for key, value in state.items():
                path, _, parameter = key.rpartition(".")
                owner = module.get_submodule(path)
                own = owner.get_parameter(parameter).detach()
                delta = gate * (value.to(own.device).float() - own.float())
                changes.append(_Change(f"{site}.{key}", owner, parameter, delta))
    return changes


def _expert_changes(
    model: nn.Module, gates: Gates, adapters: Mapping[str, Adapter]
) -> list[_Change]:
    changes = []
    for name, adapter in adapters.items():
        if not adapter.extras.experts:
            continue
        for fit in adapter.require_sites(model):
            module = model.get_submodule(fit.module)
            update = update_of(name, fit, adapter.extras.experts[fit.site], module)
            delta = _gate(gates, name, fit.site) * update.delta()
            full = f"{fit.module}.{fit.parameter}"
            changes.append(_Change(full, module, fit.parameter, delta))
    return changes


def _added(changes: list[_Change]) -> list[_Change]:
    """Sum the changes of one parameter that several adapters bring."""
    summed: dict[str, _Change] = {}
    for change in changes:
        before = summed.get(change.name)
        delta = change.delta if before is None else before.delta + change.delta
        summed[change.name] = _Change(change.name, change.module, change.parameter, delta)
    return list(summed.values())


def _untied(model: Any, changes: list[_Change]) -> list[_Change]:
    """Hold that a weight which two layers share is changed alike for both, or refuse."""
    names = {module: name for name, module in model.named_modules()}
    embedding = names.get(model.get_input_embeddings(), "")
    output = tied_output(model, embedding)
    if output is None:
        return changes
    ends = {name: f"{name}.weight" for name in (embedding, output)}
    changed = {c.name: c for c in changes if c.name in ends.values()}
    if not changed:
        return changes
    if len(changed) == 1:
        alone = embedding if ends[embedding] in changed else output
        raise _tied(alone, output if alone == embedding else embedding)
    first, second = changed.values()
    if not torch.allclose(first.delta, second.delta, atol=1e-6):
        raise _tied(embedding, output)
    return [change for change in changes if change is not second]


def _tied(one: str, other: str) -> InputError:
    return InputError(
        f"The mix changes {one} and not alike {other}, and in this base they share one weight",
        "Wear it instead of merging it",
    )


def _write(
    change: _Change, forward: "_Tally", back: "_Tally", *, keep: bool
) -> tuple[Callable[[], None], int]:
    """Write one parameter; return how to undo it, and how many bytes were kept for that."""
    if is_4bit(change.module) and change.parameter == "weight":
        return _write_4bit(change, forward, back, keep=keep)
    parameter = change.module.get_parameter(change.parameter)
    original = parameter.detach().clone()
    exact = original.float() + change.delta.to(original.device)
    parameter.data.copy_(exact)
    forward.add(change.name, parameter.detach().float() - exact, change.delta)
    if keep:
        back.add(change.name, torch.zeros(1), change.delta)

        def restore() -> None:
            parameter.data.copy_(original)

        return restore, original.nbytes
    # The same subtraction that undo will make, seen now, while the original is still there.
    returned = (parameter.detach().float() - change.delta).to(parameter.dtype)
    back.add(change.name, returned.float() - original.float(), change.delta)
    delta = change.delta

    def subtract() -> None:
        parameter.data.copy_(parameter.detach().float() - delta)

    return subtract, 0


def _write_4bit(
    change: _Change, forward: "_Tally", back: "_Tally", *, keep: bool
) -> tuple[Callable[[], None], int]:
    """Unpack, add, and pack again; packed originals are a quarter of a weight, and always kept."""
    from bitsandbytes.nn import Params4bit

    module: Any = change.module
    packed = module.weight
    exact = dense(module) + change.delta.to(packed.device)
    state = packed.quant_state
    module.weight = Params4bit(
        exact.to(state.dtype).cpu(),
        requires_grad=False,
        blocksize=state.blocksize,
        compress_statistics=state.nested,
        quant_type=state.quant_type,
        quant_storage=packed.quant_storage,
        module=module,
    ).to(packed.device)
    forward.add(change.name, dense(module) - exact, change.delta)
    back.add(change.name, torch.zeros(1), change.delta)

    def restore() -> None:
        module.weight = packed

    return restore, packed.nbytes


class _Tally:
    """Sums errors over parameters."""

    def __init__(self) -> None:
        self._largest = 0.0
        self._errors = 0.0
        self._updates = 0.0
        self._worst: tuple[float, str | None] = (0.0, None)

    def add(self, name: str, error: Tensor, update: Tensor) -> None:
        error, update = error.double(), update.double()
        self._largest = max(self._largest, float(error.abs().max()))
        own, whole = float(error.square().sum()), float(update.square().sum())
        self._errors += own
        self._updates += whole
        if whole and own / whole > self._worst[0]:
            self._worst = (own / whole, name)

    def result(self) -> RoundingError:
        relative = (self._errors / self._updates) ** 0.5 if self._updates else 0.0
        return RoundingError(self._largest, relative, self._worst[1])
