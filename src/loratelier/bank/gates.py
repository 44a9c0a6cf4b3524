"""Gates: what a mix means.

Every adapted linear layer computes ``y = W x + sum_k g_k s_k B_k (A_k x)``. A *mix* says what the
gates ``g_k`` are. It is one of

- ``None``: every gate closed, the base as it is;
- a name: that adapter's gate at 1;
- ``{name: gate}``: several adapters, each at its gate;
- a sequence of those, one for each row of the batch.

A gate is a number; a tensor of no dimensions (with a gradient if wanted); a tensor [tokens], one
gate for each column of the sequence from its start, padding included, whose last value goes on for
whatever is generated after it; or a mapping from site to one of these, where a site that is not
named stays closed. In a mix for all rows a gate may also be a tensor [rows, tokens].
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from loratelier.bank.window import Window
from loratelier.kit.errors import InputError, did_you_mean

FromToken = int | Sequence[int]
Value = float | Tensor
Gate = Value | Mapping[str, Value]
RowMix = None | str | Mapping[str, Gate]
Mix = RowMix | Sequence[RowMix]
Rows = list[dict[str, Gate]]


def normalize(mix: Mix, known: Iterable[str]) -> Rows:
    """Return the mix as one ``{name: gate}`` for each row; a single one stands for all rows.

    Raises:
        InputError: a name that the bank does not hold, or a gate that is not a finite number.
    """
    names = list(known)
    if isinstance(mix, Mapping):
        mix = _by_row(mix)
    if mix is None or isinstance(mix, str | Mapping):
        return [_row(mix, names)]
    if not mix:
        raise InputError("The mix has no rows", "Give one entry for each row of the batch")
    return [_row(row, names) for row in mix]


def _by_row(mix: Mapping[str, Gate]) -> Mix:
    """Take a mix whose gates are tables [rows, tokens] apart into one mix a row."""
    tables = {n: g for n, g in mix.items() if isinstance(g, Tensor) and g.ndim == 2 and len(g)}
    counts = {name: len(gate) for name, gate in tables.items()}
    if not counts:
        return mix
    if len(set(counts.values())) > 1:
        said = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise InputError(f"The gates are tables of unlike numbers of rows: {said}")
    rows = next(iter(counts.values()))
    return [{**mix, **{name: gate[row] for name, gate in tables.items()}} for row in range(rows)]


def _row(mix: RowMix, known: list[str]) -> dict[str, Gate]:
    if mix is None:
        return {}
    gates: dict[str, Gate] = {mix: 1.0} if isinstance(mix, str) else dict(mix)
    for name, gate in gates.items():
        if name not in known:
            raise InputError(f"The bank holds no adapter '{name}'", did_you_mean(name, known))
        for value in values_of(gate):
            _check(name, value)
    return gates


def _check(name: str, value: Value) -> None:
    if isinstance(value, Tensor) and (value.ndim > 1 or value.numel() == 0):
        raise InputError(
            f"The gate of '{name}' is a tensor of shape {tuple(value.shape)}",
            "A gate is a number, or a tensor of one value, of one for each token, or of one for "
            "each row and token",
        )
    try:
        finite = torch.isfinite(torch.as_tensor(value, dtype=torch.float32).detach()).all()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The gate of '{name}' is {value!r}", "A gate is a number") from error
    if not finite:
        raise InputError(f"The gate of '{name}' is {value}", "A gate is a finite number")


def values_of(gate: Gate) -> list[Value]:
    """Return the gate's values: one, or one for each site that it names."""
    return list(gate.values()) if isinstance(gate, Mapping) else [gate]


def at_site(gate: Gate, site: str) -> Value:
    """Return the gate's value at one site."""
    return gate.get(site, 0.0) if isinstance(gate, Mapping) else gate


class Gates:
    """The gates of one active mix, as tensors that a site can multiply with.

    Args:
        rows: the mix, one entry a row, or one for all.
        from_token: gates are closed before this column; one for all rows, or one for each.
        invocations: the tokens from which on an activated adapter (aLoRA) acts.
        beside: adapters whose gates are closed in every row.
    """

    def __init__(
        self,
        rows: Rows,
        from_token: FromToken | None,
        invocations: Mapping[str, tuple[int, ...]],
        beside: Iterable[str] = (),
    ) -> None:
        self.rows = rows
        self.names = tuple(sorted({*beside, *(name for row in rows for name in row)}))
        self._from_token = from_token
        self._invocations = {n: tokens for n, tokens in invocations.items() if n in self.names}
        gates = [gate for row in rows for gate in row.values()]
        self._by_site = any(isinstance(gate, Mapping) for gate in gates)
        values = [value for gate in gates for value in values_of(gate)]
        by_token = any(isinstance(value, Tensor) and value.ndim for value in values)
        self.by_token = by_token or from_token is not None or bool(self._invocations)
        self.needs_ids = bool(self._invocations)
        self.by_row = len(rows) > 1 or not isinstance(from_token, int | None) or self.needs_ids
        self.differentiable = any(isinstance(v, Tensor) and v.requires_grad for v in values)
        self._cached: dict[str, Tensor] = {}
        self._window: Window | None = None

    def at(self, site: str, window: Window) -> Tensor:
        """Return the gates at a site: float32 [rows or 1, tokens or 1, names]; rows as in the mix.

        Gradients flow to gates that are tensors.
        """
        if self.differentiable:
            # Made anew at each site, so that gradient checkpointing, which runs a layer twice,
            # finds the same graph both times.
            return self._table(site, window)
        if self.by_token and window is not self._window:
            self._cached, self._window = {}, window
        key = site if self._by_site else ""
        if key not in self._cached:
            self._cached[key] = self._table(site, window)
        return self._cached[key]

    def all_ones(self, site: str) -> bool:
        """Whether every gate that is named is the number 1 at a site, for all tokens."""
        values = [at_site(gate, site) for row in self.rows for gate in row.values()]
        return not self.by_token and not any(
            isinstance(value, Tensor) or value != 1 for value in values
        )

    def _table(self, site: str, window: Window) -> Tensor:
        values = [[at_site(row.get(n, 0.0), site) for n in self.names] for row in self.rows]
        if any(isinstance(value, Tensor) for row in values for value in row):
            table = torch.stack(
                [torch.stack([_along(v, window) for v in row], dim=-1) for row in _even(values)]
            )
        else:
            table = torch.tensor(values, dtype=torch.float32)[:, None, :]
        table = table.to(window.device)
        if self._from_token is not None:
            table = table * self._opened(self._from_token, window)[..., None]
        if self._invocations:
            table = table * self._invoked(window)
        return table

    def _opened(self, from_token: FromToken, window: Window) -> Tensor:
        """Return 1 where a column is at or after the opening one, else 0: [rows or 1, tokens]."""
        starts = [from_token] if isinstance(from_token, int) else list(from_token)
        columns = torch.tensor(starts, device=window.device)[:, None]
        return (window.columns[None, :] >= columns).float()

    def _invoked(self, window: Window) -> Tensor:
        """Return 1 where an adapter has been invoked or needs no invocation: [rows, tokens, n]."""
        opened = [
            window.since_last(self._invocations[name])
            if name in self._invocations
            else torch.ones(window.rows, len(window.columns), device=window.device)
            for name in self.names
        ]
        return torch.stack(opened, dim=-1)


def _along(value: Value, window: Window) -> Tensor:
    """Return a gate's values at the columns of a pass: [tokens], or [1] where it is one number."""
    if not isinstance(value, Tensor):
        return torch.full((1,), float(value), device=window.device)
    value = value.float().to(window.device)
    if value.ndim == 0:
        return value[None]
    return value[window.columns.clamp(max=len(value) - 1)]


def _even(values: list[list[Value]]) -> list[list[Value]]:
    """Give every gate of a table a column for each token where any has one."""
    if not any(isinstance(value, Tensor) and value.ndim for row in values for value in row):
        return values
    return [
        [v if isinstance(v, Tensor) and v.ndim else torch.as_tensor(v).float()[None] for v in row]
        for row in values
    ]
