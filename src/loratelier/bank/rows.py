"""Rows that wear one adapter each: every row is multiplied with its own adapter only.

With N adapters side by side in one product each row pays for all of them. Here the rows are told
apart, in one of two ways. Where there are few rows to an adapter, each row has a copy of its own
adapter: two products a layer and nothing to sort, at the cost of the copies' memory. Where there
are many, or memory is budgeted, the rows are sorted by adapter and put back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.bank.gates import Gates
from loratelier.bank.stack import Stack

# Fewer adapters than this are multiplied with every row, which is as fast.
_APART_FROM = 3
_COPIES = 2  # rows to an adapter up to which each row has its own copy


@dataclass(frozen=True)
class ByRow:
    """A copy of its adapter for every row: down [rows, r, d_in], up [rows, r, d_out]."""

    down: Tensor
    up: Tensor

    @property
    def nbytes(self) -> int:
        """How many bytes the copies take."""
        return self.down.nbytes + self.up.nbytes

    def add_to(self, output: Tensor, x: Tensor, gates: Tensor | None) -> None:
        """Add every row's update to the output [rows, tokens, d_out], in place.

        Args:
            output: the layer's output.
            x: its input, float32 [rows, tokens, d_in].
            gates: [rows, tokens or 1]; None where all are 1.
        """
        hidden = torch.bmm(x, self.down.transpose(1, 2))
        if gates is not None:
            hidden = hidden * gates[..., None]
        if output.dtype == torch.float32 and output.is_contiguous():
            torch.baddbmm(output, hidden, self.up, out=output)
        else:
            output.add_(torch.bmm(hidden, self.up))


@dataclass(frozen=True)
class ByGroup:
    """Rows sorted by adapter, every group padded to the largest.

    Attributes:
        down: [adapters, r, d_in].
        up: [adapters, r, d_out].
        slots: [adapters * size] the row in each slot; padding repeats the first row.
        rows: [n] the rows that wear an adapter.
        places: [n] the slot of each of them.
    """

    down: Tensor
    up: Tensor
    slots: Tensor
    rows: Tensor
    places: Tensor

    @property
    def nbytes(self) -> int:
        """How many bytes it takes beside the stack: none, it looks into that."""
        return 0

    def add_to(self, output: Tensor, x: Tensor, gates: Tensor | None) -> None:
        """Add every row's update to the output, as :meth:`ByRow.add_to`."""
        groups, tokens = len(self.down), x.shape[1]
        sorted_x = x.index_select(0, self.slots).view(groups, -1, x.shape[-1])
        hidden = torch.bmm(sorted_x, self.down.transpose(1, 2))
        if gates is not None:
            slots = gates.index_select(0, self.slots).expand(-1, tokens)
            hidden = hidden * slots.reshape(groups, -1, 1)
        update = torch.bmm(hidden, self.up).view(-1, tokens, output.shape[-1])
        mine = update.index_select(0, self.places).to(output.dtype)
        if len(self.rows) == len(output):  # the rows are in order, and all of them are here
            output.add_(mine)
        else:
            output.index_add_(0, self.rows, mine)


def wearers(gates: Gates, stack: Stack) -> tuple[int, ...] | None:
    """Return which adapter of a stack each row wears, -1 for none.

    None where rows cannot be told apart so: a row wears several, there are few adapters or their
    ranks differ, or a gate has a gradient.
    """
    ranks = set(stack.ranks.values())
    if len(stack.ranks) < _APART_FROM or len(ranks) != 1 or 0 in ranks or gates.differentiable:
        return None
    if any(len(row) > 1 for row in gates.rows):
        return None
    place = {gates.names[number]: place for place, number in enumerate(stack.ranks)}
    return tuple(place.get(next(iter(row), ""), -1) for row in gates.rows)


def arrange(stack: Stack, worn: Sequence[int], *, copies: bool) -> ByRow | ByGroup:
    """Tell the rows apart in the way that suits their number."""
    count = len(stack.ranks)
    down = stack.down.view(count, -1, stack.down.shape[1])
    up = stack.up.view(count, -1, stack.up.shape[1])
    if copies and len(worn) <= _COPIES * len(set(worn) - {-1}):
        index = torch.tensor(worn, device=down.device)
        dressed = (index >= 0).to(down.dtype)[:, None, None]
        index = index.clamp(min=0)
        # A bare row has an adapter of zeros.
        return ByRow(down[index], up[index] * dressed)
    return _grouped(down, up, worn)


def _grouped(down: Tensor, up: Tensor, worn: Sequence[int]) -> ByGroup:
    wearing = [[row for row, it in enumerate(worn) if it == n] for n in range(len(down))]
    size = max(len(rows) for rows in wearing)
    slots = [row for rows in wearing for row in rows + [0] * (size - len(rows))]
    place = {row: n * size + at for n, rows in enumerate(wearing) for at, row in enumerate(rows)}
    in_order = sorted(place)
    device = down.device
    return ByGroup(
        down=down,
        up=up,
        slots=torch.tensor(slots, device=device),
        rows=torch.tensor(in_order, device=device),
        places=torch.tensor([place[row] for row in in_order], device=device),
    )
