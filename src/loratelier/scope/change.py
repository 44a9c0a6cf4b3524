"""What is looked at: one base, what it wears before, and what it wears after."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base, with_tokens
from loratelier.kit.errors import InputError
from loratelier.scope.strength import check_strength

_BEFORE, _AFTER = "before", "after"
Share = float | Tensor
Shares = Share | Mapping[str, Share]


class Change:
    """The step from one look of a base to another: bare or in one adapter, and in ``after``.

    Everything that the scope measures is measured of such a step, so that one adapter is compared
    with the base and two versions of an adapter with each other in the same way. The base is left
    as it was: gates are open inside the contexts that the methods return and nowhere else.

    When nothing can change (``effect`` is false), :meth:`together` reads one row, which stands for
    both, so that every difference is exactly zero rather than a rounding. ``has_effect`` is false
    when no update is other than zero.

    Args:
        base: the base.
        after: the adapter that is looked at.
        before: the adapter that it is compared with; None for the base as it is.
        strength: the gate of both, from -2 to 4.

    Raises:
        InputError: an adapter for another base, or a strength that is none.
    """

    def __init__(
        self, base: Base, after: Adapter, *, before: Adapter | None = None, strength: float = 1.0
    ) -> None:
        check_strength(strength)
        worn = [adapter for adapter in (before, after) if adapter is not None]
        for adapter in worn:
            base = with_tokens(base, adapter.card.tokens)
        for adapter in worn:
            adapter.require_fit(base)
        self.base = base
        self.after = after
        self.before = before
        self.strength = strength
        self.has_effect = any(adapter.has_effect for adapter in worn)
        self.effect = self.has_effect and strength != 0 and before != after
        self._bank = AdapterBank(base.model)
        self._bank.add(_AFTER, after)
        if before is not None:
            self._bank.add(_BEFORE, before)

    @property
    def rows(self) -> int:
        """How many rows :meth:`together` reads: 2, or 1 where nothing can change."""
        return 2 if self.effect else 1

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site that either adapter changes, by layer."""
        before = self.before.sites if self.before else ()
        return tuple(dict.fromkeys((*self.after.sites, *before)))

    def batch(self, ids: Sequence[int]) -> Tensor:
        """Return a text as :meth:`together` reads it: int64 [rows, T], the same in every row.

        Raises:
            InputError: no tokens.
        """
        if not ids:
            raise InputError("There are no tokens to look at", "Give some text")
        return torch.tensor([list(ids)] * self.rows, device=self.base.model.device)

    def together(self) -> AbstractContextManager[None]:
        """Return a context for a batch of :attr:`rows` rows: before first, after last."""
        rows = [self._mix(0.0), self._mix(1.0)]
        return self._bank.activate(rows if self.effect else rows[:1])

    def at(self, share: Shares) -> AbstractContextManager[None]:
        """Return a context in which all rows are part of the way from before to after.

        Args:
            share: 0 before, 1 after; one for all sites, or ``{site: share}`` for every one of
                :attr:`sites`. Tensors of no dimensions may carry a gradient.
        """
        return self._bank.activate(self._mix(share))

    def by_row(self, shares: Sequence[Shares]) -> AbstractContextManager[None]:
        """Return a context for a batch with a share of its own, as for :meth:`at`, in every row.

        Args:
            shares: one entry for each row of the batch.
        """
        return self._bank.activate([self._mix(share) for share in shares])

    def _mix(self, share: Shares) -> dict[str, dict[str, Share]]:
        by_site = share if isinstance(share, Mapping) else dict.fromkeys(self.sites, share)
        mix = {_AFTER: {s: self.strength * by_site[s] for s in self.after.sites}}
        if self.before is not None:
            mix[_BEFORE] = {s: self.strength * (1 - by_site[s]) for s in self.before.sites}
        return mix
