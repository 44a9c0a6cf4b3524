"""The bank: many adapters over one model, worn by setting gates.

The model is touched only while a mix is active: forward hooks on the adapted linear layers are
installed on the way into :meth:`AdapterBank.activate` and removed on the way out, so that with
nothing active the model is the very object that was handed in.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from loratelier.adapter import Adapter
from loratelier.bank.gates import Gate, Mix, normalize, table
from loratelier.kit.errors import InputError

FromToken = int | Sequence[int]


@dataclass(frozen=True)
class _Stack:
    """The adapters of one site side by side: ranks concatenated, so one product serves all."""

    down: Tensor  # [ranks, d_in]
    up: Tensor  # [d_out, ranks]
    scales: Tensor  # [ranks], each rank's alpha / r
    owners: Tensor  # [ranks], which of the site's adapters the rank belongs to


@dataclass(frozen=True)
class _Worn:
    """One active mix."""

    rows: list[dict[str, Gate]]
    from_token: FromToken | None


class AdapterBank:
    """Holds adapters over ``model`` and opens their gates.

    Args:
        model: any transformers causal model; its weights are never written.

    A bank is used from one thread at a time, as the model under it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._adapters: dict[str, Adapter] = {}
        self._stacks: dict[tuple[str, tuple[str, ...]], _Stack] = {}
        self._worn: list[_Worn] = []
        self._hooks: list[RemovableHandle] = []
        self._past = 0  # tokens in the KV cache when the running forward pass began

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters held, in the order in which they were added."""
        return tuple(self._adapters)

    def add(self, name: str, adapter: Adapter | str | Path) -> None:
        """Hold an adapter under ``name``, replacing one that had the name.

        Raises:
            InputError: the folder is no adapter, or a site is missing from the model or misshapen.
        """
        loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
        loaded.require_sites(self.model)
        self._forget(name)
        self._adapters[name] = loaded
        self._refresh()

    def remove(self, name: str) -> None:
        """Let go of an adapter.

        Raises:
            InputError: the bank holds none of that name, or it is being worn.
        """
        normalize(name, self.names)
        if any(name in row for worn in self._worn for row in worn.rows):
            raise InputError(f"'{name}' is being worn", "Leave the activation first")
        self._forget(name)
        del self._adapters[name]

    def _forget(self, name: str) -> None:
        self._stacks = {key: stack for key, stack in self._stacks.items() if name not in key[1]}

    @contextmanager
    def activate(self, mix: Mix, *, from_token: FromToken | None = None) -> Iterator[None]:
        """Open gates for everything that the model computes inside the block.

        Blocks nest: the inner mix takes the place of the outer one, and gives it back.

        Args:
            mix: None, a name, ``{name: gate}``, or a sequence of those, one for each row.
            from_token: the gates stay closed before this position of the sequence (counted in
                columns, padding included); one number, or one for each row.

        Raises:
            InputError: an unknown name, a gate that is no finite number, or, once the model runs,
                a batch with another number of rows than the mix.
        """
        worn = _Worn(normalize(mix, self.names), from_token)
        self._worn.append(worn)
        try:
            self._refresh()
            yield
        finally:
            self._worn.pop()
            self._refresh()

    def _refresh(self) -> None:
        """Make the hooks on the model those of the innermost active mix."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        if self._worn:
            self._install(self._worn[-1])

    def _install(self, worn: _Worn) -> None:
        named = {name: self._adapters[name] for row in worn.rows for name in row}
        if not named:
            return
        if worn.from_token is not None:
            hook = self.model.register_forward_pre_hook(self._note_past, with_kwargs=True)
            self._hooks.append(hook)
        for site in sorted({site for adapter in named.values() for site in adapter.sites}):
            names = tuple(name for name, adapter in named.items() if site in adapter.tensors)
            stack = self._stack(site, names)
            gates = table(worn.rows, names, site)
            coefficients = gates[:, stack.owners] * stack.scales
            module = self.model.get_submodule(site)
            self._hooks.append(
                module.register_forward_hook(self._adapted(stack, coefficients, worn.from_token))
            )

    def _stack(self, site: str, names: tuple[str, ...]) -> _Stack:
        key = (site, names)
        if key not in self._stacks:
            device = next(self.model.get_submodule(site).parameters()).device
            pairs = [self._adapters[name].tensors[site] for name in names]
            ranks = [down.shape[0] for down, _ in pairs]
            scales = [self._adapters[name].scaling(site) for name in names]
            owners = torch.repeat_interleave(torch.arange(len(names)), torch.tensor(ranks))
            self._stacks[key] = _Stack(
                down=torch.cat([down.float() for down, _ in pairs]).to(device),
                up=torch.cat([up.float() for _, up in pairs], dim=1).to(device),
                scales=torch.tensor(scales, dtype=torch.float32)[owners],
                owners=owners,
            )
        return self._stacks[key]

    def _adapted(self, stack: _Stack, coefficients: Tensor, from_token: FromToken | None) -> Any:
        """Return the hook of one site: ``output + ((x Aᵀ) * coefficients) Bᵀ``."""
        coefficients = coefficients.to(stack.down.device)[:, None, :]  # [rows or 1, 1, ranks]

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].float()
            if coefficients.shape[0] not in (1, x.shape[0]):
                raise InputError(
                    f"The mix has {coefficients.shape[0]} rows and the batch {x.shape[0]}",
                    "Give one mix for all rows, or one for each",
                )
            gate = coefficients if from_token is None else coefficients * self._open(x, from_token)
            update = F.linear(F.linear(x, stack.down) * gate, stack.up)
            return output + update.to(output.dtype)

        return hook

    def _open(self, x: Tensor, from_token: FromToken) -> Tensor:
        """Return 1 where a position is at or after ``from_token``, else 0: [rows or 1, T, 1]."""
        starts = [from_token] if isinstance(from_token, int) else list(from_token)
        positions = self._past + torch.arange(x.shape[1], device=x.device)
        opened = positions[None, :] >= torch.tensor(starts, device=x.device)[:, None]
        return opened.to(x.dtype)[..., None]

    def _note_past(self, _module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        self._past = 0 if cache is None else int(cache.get_seq_length())
