"""Keys and values of the rows that are being written, each row in a slot of its own.

Rows begin at the left of their slot, whatever their lengths, so that a row may come and go without
the others being touched: no padding is read, and nothing is copied at a step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Columns that a slot begins with; it grows by doubling.
_FIRST = 256


class _Layer(CacheLayerMixin):
    """One layer's keys and values: [slots, heads, columns, size] each."""

    def __init__(self, slots: "Slots") -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room, now that the shapes are known."""
        rows, columns = self.slots.rows, self.slots.columns
        self.keys, self.values = (
            torch.zeros(rows, each.shape[1], columns, each.shape[3], dtype=each.dtype).to(each)
            for each in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Put the new keys and values into the slots and return what is attended to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        slots = self.slots
        found = []
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            if slots.one is not None:
                row, begin = slots.one
                end = begin + new.shape[2]
                held[row, :, begin:end] = new[0]
                found.append(held[row : row + 1, :, :end])
            else:
                held[slots.order, :, slots.ends] = new[:, :, 0]
                found.append(held[: len(slots.order), :, : slots.longest])
        return found[0], found[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys a pass sees, and from which on."""
        return self.slots.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many columns came before."""
        return self.slots.get_seq_length()

    def get_max_length(self) -> int:
        """Return that there is no most."""
        return -1

    def grow(self, columns: int) -> None:
        """Make the slots longer."""
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            held = getattr(self, name)
            longer = held.new_zeros(*held.shape[:2], columns, held.shape[3])
            longer[:, :, : held.shape[2]] = held
            setattr(self, name, longer)


class Slots(Cache):
    """The cache of a batch whose rows come and go.

    Args:
        layers: of the model.
        rows: how many slots there are.
    """

    def __init__(self, layers: int, rows: int) -> None:
        self.rows, self.columns = rows, _FIRST
        self.one: tuple[int, int] | None = None
        self.order = torch.empty(0, dtype=torch.long)
        self.ends = torch.empty(0, dtype=torch.long)
        self.longest = 0
        super().__init__(layers=[_Layer(self) for _ in range(layers)])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many columns came before in the row that is read, or in the longest."""
        return self.one[1] if self.one is not None else self.longest - 1

    def read(self, slot: int, past: int, tokens: int) -> None:
        """Say that the next pass reads ``tokens`` more of one row, after ``past`` of them."""
        self._room(past + tokens)
        self.one = (slot, past)

    def step(self, lengths: Sequence[int], device: torch.device) -> None:
        """Say that the next pass reads one token in each of the first slots, after ``lengths``."""
        self._room(max(lengths) + 1)
        self.one = None
        self.order = torch.arange(len(lengths), device=device)
        self.ends = torch.tensor(lengths, device=device)
        self.longest = max(lengths) + 1

    def move(self, source: int, target: int, length: int) -> None:
        """Take a row into another slot."""
        for layer in self._made():
            for held in (layer.keys, layer.values):
                held[target, :, :length] = held[source, :, :length]

    def taken(self, slot: int, length: int) -> list[Tensor]:
        """Return a copy of a row's keys and values, [2, heads, length, size] a layer."""
        return [
            torch.stack([layer.keys[slot, :, :length], layer.values[slot, :, :length]])
            for layer in self._made()
        ]

    def put(self, slot: int, kept: Sequence[Tensor], length: int) -> None:
        """Fill a row with the first ``length`` columns of what was taken of another."""
        self._room(length)
        for layer, (keys, values) in zip(self.layers, kept, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[slot, :, :length] = keys[:, :length]
            layer.values[slot, :, :length] = values[:, :length]

    def _made(self) -> list[Any]:
        return [layer for layer in self.layers if layer.is_initialized]

    def _room(self, columns: int) -> None:
        if columns <= self.columns:
            return
        while self.columns < columns:
            self.columns *= 2
        for layer in self.layers:
            layer.grow(self.columns)


def masks(
    config: Any, positions: Tensor, keys: int, dtype: torch.dtype
) -> Tensor | dict[str, Tensor]:
    """Return what each token may see, as transformers takes it ready made.

    Args:
        config: of the model.
        positions: int [rows, tokens], the column of each token.
        keys: how many columns there are.
        dtype: of the model.

    Returns:
        [rows, 1, tokens, keys], 0 where a token sees and the least number where not; one for each
        kind of layer where the model has several.
    """
    columns = torch.arange(keys, device=positions.device)
    back = positions[:, None, :, None] - columns
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    made = {}
    for kind in kinds:
        seen = back >= 0
        window = getattr(text, "sliding_window", None)
        if kind == "sliding_attention" and window is not None:
            seen = seen & (back < window)
        made[kind] = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )
    return made if len(kinds) > 1 else next(iter(made.values()))
