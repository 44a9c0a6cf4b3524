"""Adapters that act from a signal on (aLoRA, arXiv:2504.12397), trained on packed rows.

Before the last occurrence of the invocation in a row the gate is 0, so that the model there is the
base to the last bit; from the invocation's first token on it is 1. That is PEFT's definition, and
the file is PEFT's: ``alora_invocation_tokens`` in the adapter's config.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.base.decoder import around_reading
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.examples import Example
from loratelier.train.lora_linear import gated


def invocation_of(base: Base, text: str) -> tuple[int, ...]:
    """Return the tokens of an invocation.

    Raises:
        InputError: the text has no tokens.
    """
    ids = tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise InputError(f"The invocation '{text}' has no tokens")
    return ids


def invoked(rows: Sequence[Example], invocation: tuple[int, ...], text: str) -> list[Example]:
    """Return the rows that an invoked adapter can learn from, each learned only where it acts.

    A row without the invocation, or with nothing to learn after it, is left out and named.

    Raises:
        InputError: no row is left.
    """
    found = []
    for row in rows:
        start = _last(row.ids, invocation)
        if start is None:
            remark(f"Row {row.row} is left out: '{text}' does not occur in it")
            continue
        # The token after the invocation's first is the first that the adapter helps to predict.
        learned = tuple(flag and at > start for at, flag in enumerate(row.learned))
        if any(learned):
            found.append(replace(row, learned=learned))
        else:
            remark(f"Row {row.row} is left out: nothing is learned after '{text}'")
    if not found:
        raise InputError(
            f"The invocation '{text}' occurs in no row before words that are learned",
            "Take a text that the chat template writes, such as what opens the assistant's turn",
        )
    return found


def _last(ids: Sequence[int], sought: Sequence[int]) -> int | None:
    starts = range(len(ids) - len(sought), -1, -1)
    return next((n for n in starts if tuple(ids[n : n + len(sought)]) == tuple(sought)), None)


def gate_of(ids: Tensor, lengths: Sequence[int], invocation: Sequence[int]) -> Tensor:
    """Return 1 from the last invocation of each row on and 0 elsewhere: float32 [T].

    Args:
        ids: int64 [T], rows end to end.
        lengths: tokens of each row; they sum to T.
        invocation: the tokens.
    """
    gates = [
        torch.arange(length, device=ids.device) >= _opening(row, invocation)
        for row, length in zip(ids.split(list(lengths)), lengths, strict=True)
    ]
    return torch.cat(gates).float()


def _opening(row: Tensor, invocation: Sequence[int]) -> Tensor:
    """Return where the last invocation begins; the row's end where there is none."""
    never, size = row.new_tensor(len(row)), len(invocation)
    if len(row) < size:
        return never
    hits = (row.unfold(0, size, 1) == row.new_tensor(list(invocation))).all(1)
    last = torch.where(hits, torch.arange(len(hits), device=row.device), -1).amax()
    return torch.where(last < 0, never, last)


def waiting(model: Any, invocation: tuple[int, ...] | None) -> AbstractContextManager[None]:
    """Let the adapter on ``model`` wait for its invocation in whatever is read while it is open.

    The gate is set where the decoder begins to read and taken away where it ends: losses, held-out
    rows and general text all see the same adapter.
    """
    if invocation is None:
        return nullcontext()

    def gate(ids: Tensor, given: dict[str, Any]) -> AbstractContextManager[None]:
        return gated(gate_of(_without_padding(ids, given), _lengths(ids, given), invocation))

    return around_reading(model, gate)


def _without_padding(ids: Tensor, given: dict[str, Any]) -> Tensor:
    """Return the flattened ids, -1 where padding stands: it must not look like an invocation."""
    mask = given.get("attention_mask")
    seen = ids if mask is None or mask.ndim != 2 else ids.masked_fill(mask == 0, -1)
    return seen.reshape(-1)


def _lengths(ids: Tensor, given: dict[str, Any]) -> list[int]:
    """Return the tokens of each row, from whatever tells the model where rows begin."""
    borders, positions = given.get("cu_seq_lens_q"), given.get("position_ids")
    rows, width = ids.shape
    if borders is not None:
        return borders.diff().tolist()  # type: ignore[no-any-return]
    if positions is not None and rows == 1:
        starts = (positions[0] == 0).nonzero()[:, 0].tolist()
        return [end - start for start, end in zip(starts, [*starts[1:], width], strict=True)]
    return [width] * rows
