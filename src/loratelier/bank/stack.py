"""Stacks: the adapters that are worn at one linear layer, side by side in few tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loratelier.adapter import Adapter
from loratelier.base.layers import dense, device_of, embedding_scale, layer_of, tied_output
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class Stack:
    """What adapters add at one layer; scalings are already in ``up`` and ``offsets``.

    The update of adapter k is ``g_k (factors_k * (y - bias) + up_k^T (down_k x) + offsets_k)``,
    where ``y`` is the base's output.

    Attributes:
        embedding: whether the layer looks rows up.
        down: [ranks, d_in], of an embedding [vocabulary, ranks].
        up: [ranks, d_out].
        owners: [ranks] which of the worn adapters each rank belongs to, by number.
        ranks: adapter -> how many ranks it has here, in the order of ``down``.
        offsets: [n, d_out] what is added whatever the input: trained biases.
        offset_owners: [n].
        factors: [m, d_out] DoRA's magnitude over the length of the adapted weight, less 1.
        factor_owners: [m].
    """

    embedding: bool
    down: Tensor
    up: Tensor
    owners: Tensor
    ranks: Mapping[int, int]
    offsets: Tensor | None
    offset_owners: Tensor
    factors: Tensor | None
    factor_owners: Tensor

    @property
    def nbytes(self) -> int:
        """How many bytes the stack takes."""
        parts = (self.down, self.up, self.offsets, self.factors)
        return sum(part.nbytes for part in parts if part is not None)


@dataclass(frozen=True)
class _Part:
    """One adapter's share of a stack."""

    down: Tensor  # [r, d_in]
    up: Tensor  # [r, d_out]
    offset: Tensor | None = None
    factor: Tensor | None = None


def layers_of(adapter: Adapter, model: nn.Module) -> tuple[str, ...]:
    """Return the layers at which an adapter needs a stack."""
    extras = adapter.extras
    tied = [tied_output(model, name) for name in extras.tokens]
    named = (*adapter.tensors, *extras.biases, *extras.tokens, *(n for n in tied if n))
    return tuple(dict.fromkeys(named))


def followers(adapter: Adapter, model: nn.Module) -> dict[str, str]:
    """Return the output layers that an adapter changes through trained rows of a tied embedding.

    Output layer -> the embedding that is the adapter's site, whose gate is theirs too.
    """
    tied = {tied_output(model, name): name for name in adapter.extras.tokens}
    return {output: name for output, name in tied.items() if output is not None}


def build(site: str, adapters: Sequence[Adapter], model: nn.Module) -> Stack:
    """Put what adapters add at one layer side by side, on the layer's device, in float32.

    Adapters that add nothing here are left out; the others keep their numbers in ``adapters``.
    """
    module = model.get_submodule(site)
    device = device_of(module)
    layer = layer_of(module)
    parts = {
        number: part
        for number, adapter in enumerate(adapters)
        if (part := _part(adapter, site, module, model)) is not None
    }
    down = torch.cat([part.down for part in parts.values()])
    is_embedding = layer is not None and layer.kind == "embedding"
    offsets = {n: part.offset for n, part in parts.items() if part.offset is not None}
    factors = {n: part.factor for n, part in parts.items() if part.factor is not None}
    ranks = {n: part.down.shape[0] for n, part in parts.items()}
    return Stack(
        embedding=is_embedding,
        down=(down.T.contiguous() if is_embedding else down).to(device),
        up=torch.cat([part.up for part in parts.values()]).to(device),
        owners=_numbers(ranks).repeat_interleave(torch.tensor(list(ranks.values()))).to(device),
        ranks=ranks,
        offsets=torch.stack(list(offsets.values())).to(device) if offsets else None,
        offset_owners=_numbers(offsets).to(device),
        factors=torch.stack(list(factors.values())).to(device) if factors else None,
        factor_owners=_numbers(factors).to(device),
    )


def _numbers(parts: Mapping[int, object]) -> Tensor:
    return torch.tensor(list(parts), dtype=torch.long)


def _part(adapter: Adapter, site: str, module: nn.Module, model: nn.Module) -> _Part | None:
    offset = _offset(adapter, site, module)
    rows = _token_rows(adapter, site, model)
    if site in adapter.tensors:
        down, up = (half.float() for half in adapter.tensors[site])
        up = adapter.scaling(site) * up.T
        factor = None
        if site in adapter.extras.magnitudes:
            factor = _magnitude_factor(adapter.extras.magnitudes[site], dense(module), down, up)
            up = up * (1 + factor)
        scale = _scale_of(module, site)
        return _Part(down, (up if scale is None else up * scale).contiguous(), offset, factor)
    if rows is not None:
        return _token_part(rows, adapter.settings.tokens_of(rows.owner), module, site)
    if offset is not None:
        layer, width = layer_of(module), len(offset)
        d_in = width if layer is None else layer.d_in  # a norm is as wide as its bias
        return _Part(torch.zeros(0, d_in), torch.zeros(0, width), offset)
    return None


def _scale_of(module: nn.Module, site: str) -> Tensor | None:
    layer = layer_of(module)
    if layer is None or layer.kind != "embedding":
        return None
    try:
        scale = embedding_scale(module)
    except NotImplementedError as error:
        raise InputError(
            f"{site} is an embedding of the class {error}, whose scaling is not known",
            "Leave the embedding out of the adapter",
        ) from error
    return None if scale is None else scale.detach().float().cpu()


def _offset(adapter: Adapter, site: str, module: nn.Module) -> Tensor | None:
    """Return what an adapter adds whatever the input: a trained bias, or that of its B."""
    extras = adapter.extras
    offset = None
    if site in extras.biases:
        base = _own(module, "bias").cpu()
        offset = extras.biases[site].float().cpu() - base
    if site in extras.up_biases:
        up_bias = adapter.scaling(site) * extras.up_biases[site].float().cpu()
        offset = up_bias if offset is None else offset + up_bias
    return offset


def _magnitude_factor(magnitude: Tensor, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Return ``m / |W + s B A| - 1`` by output: [d_out] (DoRA, arXiv 2402.09353, eq. 5)."""
    adapted = weight.to(up.device) + up.T @ down
    length: Tensor = torch.linalg.norm(adapted, dim=1)
    return magnitude.float().to(length.device) / length - 1


def _own(module: nn.Module, parameter: str) -> Tensor:
    return module.get_parameter(parameter).detach().float()


@dataclass(frozen=True)
class _Rows:
    """Trained token rows [n, d], and the layer whose config names the tokens."""

    owner: str
    rows: Tensor


def _token_rows(adapter: Adapter, site: str, model: nn.Module) -> _Rows | None:
    """Return the trained token rows that act at a layer: its own, or those of its tied input."""
    trained = adapter.extras.tokens
    if site in trained:
        return _Rows(site, trained[site])
    for name, rows in trained.items():
        if tied_output(model, name) == site:
            return _Rows(name, rows)
    return None


def _token_part(trained: _Rows, ids: Sequence[int], module: nn.Module, site: str) -> _Part:
    """Write trained rows as a low-rank update: one rank a token, one side one-hot."""
    layer = layer_of(module)
    assert layer is not None  # the fit has seen to it
    index = torch.tensor(ids)
    weight = _own(module, "weight")[index.to(device_of(module))].cpu()
    change = trained.rows.float().cpu() - weight
    embedding = layer.kind == "embedding"
    one_hot = torch.zeros(len(ids), layer.d_in if embedding else layer.d_out)
    one_hot[torch.arange(len(ids)), index] = 1.0
    if not embedding:
        return _Part(change, one_hot)
    scale = _scale_of(module, site)
    return _Part(one_hot, change if scale is None else change * scale)
