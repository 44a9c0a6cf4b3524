"""Adapters of bare parameters, the experts of a mixture of experts (``target_parameters``).

A parameter that no layer of its own multiplies can only be changed itself: for the time of one call
of its module it is replaced with ``W + sum_k g_k s_k B_k A_k``. Where gates differ by row or token,
the tokens are sorted into groups with the same gates and the module is called once a group, on the
rows of its arguments that are those tokens; this is exact because an expert computes each token for
itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.adapter.fit import ExpertFit
from loratelier.bank.gates import Gates
from loratelier.bank.lowrank import align, current
from loratelier.bank.window import Watch
from loratelier.kit.errors import InputError


@dataclass(frozen=True)
class Update:
    """One adapter's update of one parameter: factors per expert, scaling included in ``up``."""

    name: str
    site: str
    parameter: str
    down: Tensor  # [experts, r, d_in]
    up: Tensor  # [experts, d_out, r]
    transposed: bool
    flat: bool  # the parameter is one matrix [d_out, d_in]

    def delta(self) -> Tensor:
        """Return the dense update in the parameter's own layout, float32."""
        dense = torch.bmm(self.up, self.down)
        dense = dense.transpose(1, 2) if self.transposed else dense
        return dense[0] if self.flat else dense

    @property
    def nbytes(self) -> int:
        """How many bytes the factors take."""
        return self.down.nbytes + self.up.nbytes


def update_of(name: str, fit: ExpertFit, pair: tuple[Tensor, Tensor], module: nn.Module) -> Update:
    """Take apart the pair that PEFT stores for all experts of a parameter.

    PEFT numbers the rows of A by expert and then by rank, the columns of B by rank and then by
    expert.
    """
    parameter = module.get_parameter(fit.parameter)
    down, up = (half.float().to(parameter.device) for half in pair)
    return Update(
        name=name,
        site=fit.site,
        parameter=fit.parameter,
        down=down.reshape(fit.count, fit.rank, -1),
        up=fit.scaling * up.reshape(-1, fit.rank, fit.count).permute(2, 0, 1).contiguous(),
        transposed=fit.transposed,
        flat=parameter.ndim == 2,
    )


class Experts:
    """Stands in for the ``forward`` of one module while a mix is active."""

    def __init__(
        self,
        module: nn.Module,
        updates: Sequence[Update],
        gates: Gates,
        watch: Watch,
    ) -> None:
        self._module = module
        self._updates = updates
        self._gates = gates
        self._watch = watch
        self._forward = module.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with its parameters adapted."""
        x = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
        window = current(self._watch, self._gates, x, self._updates[0].site)
        tables = [self._table(update, window) for update in self._updates]
        columns = torch.stack([table.expand(_widest(tables)) for table in tables], dim=-1)
        if columns.shape[0] == columns.shape[1] == 1:
            return self._with(columns[0, 0], args, kwargs)
        tokens = align(columns, x, window, indices=False)
        tokens = tokens.expand(*x.shape[:-1], -1).reshape(-1, columns.shape[-1])
        found, group = torch.unique(tokens.detach(), dim=0, return_inverse=True)
        if len(found) == 1:
            return self._with(tokens[0], args, kwargs)
        return self._by_group(tokens, group, x, args, kwargs)

    def _table(self, update: Update, window: Any) -> Tensor:
        gates = self._gates.at(update.site, window)
        return gates[..., self._gates.names.index(update.name)].to(update.down.device)

    def _by_group(
        self, tokens: Tensor, group: Tensor, x: Tensor, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Call the module once for each set of gates, on the tokens that have them."""
        count = len(tokens)
        if x.ndim != 2:
            raise InputError(
                f"{type(self._module).__name__} does not take its tokens one after another",
                "Give all rows and tokens the same mix, or run the rows one at a time",
            )
        result: Any = None
        for number in range(int(group.max()) + 1):
            chosen = (group == number).nonzero()[:, 0]
            some = [_rows(each, chosen, count) for each in args]
            named = {key: _rows(each, chosen, count) for key, each in kwargs.items()}
            part = self._with(tokens[chosen[0]], some, named)
            result = self._placed(result, part, chosen, count)
        return result

    def _placed(self, result: Any, part: Any, chosen: Tensor, count: int) -> Any:
        """Put the results of some tokens into their places among those of all."""
        if isinstance(part, tuple):
            whole = [None] * len(part) if result is None else result
            pairs = zip(whole, part, strict=True)
            return tuple(self._placed(one, other, chosen, count) for one, other in pairs)
        if not isinstance(part, Tensor) or part.shape[0] != len(chosen):
            raise InputError(
                f"{type(self._module).__name__} gives no tensor with a row for each token",
                "Give all rows and tokens the same mix, or run the rows one at a time",
            )
        whole = part.new_zeros(count, *part.shape[1:]) if result is None else result
        return whole.index_copy(0, chosen, part)

    def _with(self, gates: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        changed: dict[str, Tensor] = {}
        for gate, update in zip(gates, self._updates, strict=True):
            if not gate.requires_grad and float(gate) == 0:
                continue
            delta = gate * update.delta()
            before = changed.get(update.parameter)
            changed[update.parameter] = delta if before is None else before + delta
        with _replaced(self._module, changed):
            return self._forward(*args, **kwargs)


def _widest(tables: Sequence[Tensor]) -> tuple[int, int]:
    return max(t.shape[0] for t in tables), max(t.shape[1] for t in tables)


def _rows(value: Any, chosen: Tensor, count: int) -> Any:
    """Return the chosen rows of an argument that has one for each token, others as they are."""
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == count:
        return value.index_select(0, chosen)
    return value


@contextmanager
def _replaced(module: nn.Module, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """Put changed values in place of a module's parameters, and the parameters back after."""
    own = {name: module.get_parameter(name) for name in changes}
    table: dict[str, Any] = module._parameters  # plain tensors may stand here for a while
    for name, change in changes.items():
        table[name] = (own[name].float() + change).to(own[name].dtype)
    try:
        yield
    finally:
        table.update(own)
