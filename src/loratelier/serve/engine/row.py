"""One row of the batch: a request that is being read or written."""

from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.bank.gates import Gate
from loratelier.serve.engine.choose import Chooser
from loratelier.serve.engine.held import Version
from loratelier.serve.engine.prefixes import Key
from loratelier.serve.engine.ticket import Ticket
from loratelier.serve.engine.writing import Writing


@dataclass(frozen=True)
class Wear:
    """One adapter in a row: its gate, and the column from which on it acts."""

    version: Version
    gate: float
    begin: int


@dataclass(eq=False)
class Row:
    """A request in its slot.

    ``ids`` is the prompt and what was written; ``read`` counts the columns whose keys are there.
    """

    ticket: Ticket
    ids: list[int]
    worn: tuple[Wear, ...]
    chooser: Chooser
    writing: Writing
    ends: frozenset[int]
    most: int
    read: int = 0

    @property
    def prompt(self) -> int:
        """How many tokens were asked."""
        return len(self.ticket.asked.ids)

    @property
    def trunk(self) -> int:
        """The columns before the first at which an adapter acts."""
        return min((wear.begin for wear in self.worn), default=2**31)

    @property
    def key(self) -> Key:
        """What acts on the keys of this row."""
        return tuple(sorted((w.version.digest, w.gate, w.begin) for w in self.worn))

    def reading(self) -> dict[str, Gate]:
        """Return the gates while the prompt is read, for each column of it."""
        return {wear.version.name: _along(wear, len(self.ids)) for wear in self.worn}

    def writing_now(self) -> dict[str, Gate]:
        """Return the gates at the token that is read next."""
        return {w.version.name: w.gate for w in self.worn if w.gate and self.read >= w.begin}


def _along(wear: Wear, columns: int) -> float | Tensor:
    if wear.begin <= 0:
        return wear.gate
    gates = torch.full((columns,), wear.gate)
    gates[: wear.begin] = 0
    return gates


def begins_at(ids: tuple[int, ...], invocation: tuple[int, ...], given: int | None) -> int:
    """Return the column from which on an adapter acts.

    Args:
        ids: the prompt.
        invocation: the tokens that it waits for; () for none. It acts from the last occurrence on,
            and never where there is none (aLoRA, arXiv:2504.12397).
        given: what the request says; it goes before the invocation.
    """
    if given is not None:
        return given
    if not invocation:
        return 0
    size = len(invocation)
    places = [n for n in range(len(ids) - size + 1) if ids[n : n + size] == invocation]
    return places[-1] if places else 2**31
