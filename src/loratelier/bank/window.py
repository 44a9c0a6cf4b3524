"""The window: which rows and columns of the sequence a forward pass computes.

Gates that depend on the token count columns of the whole sequence, padding included. With a KV
cache a pass computes only the last of them, so what went before has to be known.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loratelier.kit.errors import InputError


@dataclass(frozen=True, eq=False)
class Window:
    """What one forward pass of the model computes.

    Attributes:
        rows: the batch.
        tokens: how many columns are computed.
        past: how many columns lie in the KV cache.
        columns: [tokens] their numbers, ``past`` and up.
        ids: [rows, past + tokens] tokens as far as they are known, -1 where not; None without them.
        kept: which of the computed columns reach the output layer; None for all.
    """

    rows: int
    tokens: int
    past: int
    columns: Tensor
    ids: Tensor | None = None
    kept: Tensor | None = None
    _found: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the pass computes."""
        return self.columns.device

    def since_last(self, tokens: tuple[int, ...]) -> Tensor:
        """Return 1 from the last occurrence of some tokens on, its first included: [rows, tokens].

        All 0 in a row where they do not occur (aLoRA, arXiv 2504.12397).
        """
        if tokens not in self._found:
            self._found[tokens] = self._since_last(tokens)
        return self._found[tokens]

    def _since_last(self, tokens: tuple[int, ...]) -> Tensor:
        if self.ids is None:
            raise InputError(
                "An adapter that waits for its invocation tokens needs to see the tokens",
                "Give the model input_ids, not inputs_embeds",
            )
        size = len(tokens)
        if self.ids.shape[1] < size:
            return torch.zeros(self.rows, self.tokens, device=self.device)
        sought = torch.tensor(tokens, device=self.ids.device)
        hits = (self.ids.unfold(1, size, 1) == sought).all(-1)
        starts = torch.arange(hits.shape[1], device=hits.device)
        never = self.past + self.tokens
        last = torch.where(hits, starts, -1).amax(1)
        opening = torch.where(last < 0, never, last).to(self.device)
        return (self.columns[None, :] >= opening[:, None]).float()


class Watch:
    """Follows the passes of a model, and the tokens that went through it, from call to call."""

    def __init__(self) -> None:
        self.window: Window | None = None
        self._ids: Tensor | None = None

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, needs_ids: bool) -> None:
        """Note what the pass that begins will compute, from the arguments of the model."""
        ids = args[0] if args else kwargs.get("input_ids")
        given = ids if ids is not None else kwargs.get("inputs_embeds")
        if given is None:
            raise InputError("The model was called without input_ids and without inputs_embeds")
        rows, tokens = given.shape[:2]
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        columns = past + torch.arange(tokens, device=given.device)
        known = self._remember(ids, rows, past) if needs_ids and ids is not None else None
        kept = _kept(kwargs.get("logits_to_keep"), tokens, given.device)
        self.window = Window(rows, tokens, past, columns, known, kept)

    def leave(self) -> None:
        """Note that the pass is over."""
        self.window = None

    def _remember(self, ids: Tensor, rows: int, past: int) -> Tensor:
        before = self._ids
        if before is None or before.shape[0] != rows or before.shape[1] < past:
            before = ids.new_full((rows, past), -1)
        self._ids = torch.cat([before[:, :past], ids], dim=1)
        return self._ids


def _kept(asked: Any, tokens: int, device: torch.device) -> Tensor | None:
    if asked is None or (isinstance(asked, int) and asked == 0):
        return None
    every = torch.arange(tokens, device=device)
    return every[-asked:] if isinstance(asked, int) else every[asked]
