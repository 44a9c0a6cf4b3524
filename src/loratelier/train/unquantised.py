"""What an adapter that was trained over 4 bits does on the base as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psutil
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base, load_base, with_tokens
from loratelier.base.layers import layers
from loratelier.base.likelihood import bits_per_byte, target_losses
from loratelier.kit.progress import remark, task
from loratelier.train.measure import change
from loratelier.train.packing import Pack


def measured_unquantised(
    adapter: Adapter, base: Base, rows: Sequence[Pack], texts: Sequence[str]
) -> Adapter:
    """Return the adapter with what it does on the unquantised base in its card's metrics.

    They are under ``unquantised``; see :func:`on_the_whole_base`.
    """
    found = on_the_whole_base(adapter, base, rows, texts)
    metrics = {**adapter.card.metrics, "unquantised": dict(found)}
    return replace(adapter, card=adapter.card.model_copy(update={"metrics": metrics}))


def on_the_whole_base(
    adapter: Adapter, base: Base, rows: Sequence[Pack], texts: Sequence[str]
) -> Mapping[str, Any]:
    """Measure an adapter on the unquantised base, beside that base without it.

    Args:
        adapter: trained over ``base``.
        base: in 4 bits; the same base is loaded anew without them.
        rows: held-out rows; there may be none.
        texts: general text.

    Returns:
        ``general_bpb``, ``held_out_nll`` (nats per token) and their ``_base`` and ``_change``, as
        the card has them for the base in 4 bits; ``not_measured`` with the reason instead where
        the memory is too small.
    """
    need, free = _bytes_of(base), _free(base.device)
    if need > free:
        why = f"the unquantised base takes {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        remark(f"Not measured on the unquantised base: {why}")
        return {"not_measured": why}
    whole = with_tokens(load_base(base.spec, device=base.device), adapter.card.tokens)
    with AdapterBank(whole.model) as bank:
        bank.add(adapter.name, adapter)
        closed = _figures(whole, rows, texts)
        with bank.activate(adapter.name):
            opened = _figures(whole, rows, texts)
    found = {"dtype": str(whole.dtype).removeprefix("torch.")} | opened
    for key, value in closed.items():
        found |= {f"{key}_base": value, f"{key}_change": change(value, opened[key])}
    remark(
        "On the unquantised base: "
        + ", ".join(f"{key} {opened[key]:.4f} ({found[f'{key}_change']:+.2%})" for key in closed)
    )
    return found


def _figures(base: Base, rows: Sequence[Pack], texts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"general_bpb": bits_per_byte(base.model, base.tokenizer, texts).value}
    if rows:
        found["held_out_nll"] = _held_out(base, rows)
    return found


@torch.no_grad()
def _held_out(base: Base, packs: Sequence[Pack]) -> float:
    """Return the mean ``-log p`` of the targets in nats, each row read on its own.

    One row at a time, through the whole model, is how the bank tells where an invocation is.
    """
    total, targets = 0.0, 0
    with task("Measuring on the unquantised base", total=len(packs)) as bar:
        for each in packs:
            pack = each.to(base.device)
            for row, (start, length) in enumerate(_rows_of(pack)):
                mine = pack.owners == row
                steps = torch.arange(length, device=base.device)
                losses = target_losses(
                    base.model,
                    pack.ids.reshape(-1)[start + steps][None],
                    steps[None],
                    pack.places[mine] - start,
                    pack.labels[mine],
                )
                total += float(losses.double().sum())
            targets += pack.targets
            bar.advance()
    return total / targets


def _rows_of(pack: Pack) -> list[tuple[int, int]]:
    """Return where each row begins in the flattened ids, and its length."""
    width = pack.ids.shape[1]
    if sum(pack.lengths) == pack.ids.numel():  # end to end; or padded, with nothing to pad
        starts = [sum(pack.lengths[:n]) for n in range(len(pack.lengths))]
    else:
        starts = [n * width for n in range(len(pack.lengths))]
    return list(zip(starts, pack.lengths, strict=True))


def _bytes_of(base: Base) -> int:
    """Return what the base takes as it is loaded without being told: all but small vectors."""
    numbers = sum(layer.d_in * layer.d_out for layer in layers(base.model).values())
    return numbers * (4 if base.device.type == "cpu" else 2)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
