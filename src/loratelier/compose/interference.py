"""What adapters do to each other's held-out rows: alone, mixed, merged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.base.decoder import Reader
from loratelier.base.packed import rows_apart
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark, task
from loratelier.train.examples import Example, Messages, to_example, to_text_example
from loratelier.train.packing import pack

# A corpus, whose rows of the split ``holdout`` are read; or texts and dialogues.
Rows = Corpus | Sequence[str | Messages]
BASE, ALONE, SOFT, FULL, MERGED = "base", "alone", "soft", "full", "merged"
_RESAMPLES = 1000
_PACK = 1024  # tokens read at once


@dataclass(frozen=True)
class Kept:
    """How much of an adapter's own gain a way of wearing it keeps: 1 all, 0 none, below 0 harm.

    ``low`` and ``high`` bound it with 95% (paired bootstrap over rows, 1000 resamples); None where
    there are fewer than two rows, or no resample in which the adapter gains anything.
    """

    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Interference:
    """One adapter's held-out rows.

    Attributes:
        adapter: its name.
        rows: how many rows were read.
        tokens: how many tokens of them count.
        nll: nats per token: ``base``, ``alone``, ``soft`` (all adapters at one over their number),
            ``full`` (all at 1) and, where one was given, ``merged``.
        kept: of the gain ``base - alone``, by the same names; empty where there is no gain.
    """

    adapter: str
    rows: int
    tokens: int
    nll: Mapping[str, float]
    kept: Mapping[str, Kept]


def measure_interference(
    base: Base,
    held_out: Mapping[Adapter, Rows],
    adapters: Sequence[Adapter],
    merged: Adapter | None = None,
    *,
    seed: int = 0,
) -> tuple[Interference, ...]:
    """Read each adapter's held-out rows under the base, alone, mixed, and merged.

    Args:
        base: left as it was.
        held_out: an adapter -> rows that it was not trained on.
        adapters: all that meet, in their order.
        merged: what was made of them; a linear merge needs none, it is the mixture.
        seed: of the bootstrap.

    Raises:
        InputError: an adapter does not fit the base, or brings no rows.
    """
    found = []
    with AdapterBank(base.model) as bank:
        names = {adapter: f"{number}" for number, adapter in enumerate(adapters)}
        for adapter, name in names.items():
            bank.add(name, adapter)
        if merged is not None:
            bank.add(MERGED, merged)
        for adapter, rows in held_out.items():
            examples = examples_of(base, adapter, rows)
            mixes = {
                BASE: {},
                ALONE: {names[adapter]: 1.0},
                SOFT: {name: 1 / len(names) for name in names.values()},
                FULL: dict.fromkeys(names.values(), 1.0),
                **({MERGED: {MERGED: 1.0}} if merged is not None else {}),
            }
            sums = {}
            for way, mix in mixes.items():
                with bank.activate(mix or None):
                    sums[way] = losses_by_row(base, examples, f"{adapter.name}: {way}")
            found.append(_interference(adapter.name, sums, examples, seed))
    return tuple(found)


@torch.no_grad()
def losses_by_row(base: Base, examples: Sequence[Example], what: str) -> Tensor:
    """Return ``-log p`` of each row's targets, summed, in nats: float64 [rows]."""
    sums = []
    with rows_apart(base.model) as apart:
        reader = Reader(base.model, apart)
        packs = pack(examples, _PACK, padded=apart == "padding")
        with task(what, total=len(packs)) as bar:
            for each in packs:
                read = each.to(base.device)
                losses = reader.nll(read.ids, read.lengths, read.places, read.labels)
                own = torch.zeros(len(each.rows), dtype=torch.float64)
                sums.append(own.index_add_(0, each.owners, losses.double().cpu()))
                bar.advance()
    return torch.cat(sums)


def examples_of(base: Base, adapter: Adapter, rows: Rows) -> list[Example]:
    """Return an adapter's held-out rows, tokenized; those that the base cannot read are left out.

    Raises:
        InputError: none is left.
    """
    if isinstance(rows, Corpus):
        table = rows.rows.select(["id", "messages", "text", "conversation", "split"])
        found = [
            _example(base, row["id"], row["text"] if row["text"] is not None else row["messages"])
            for row in table.to_pylist()
            if row["split"] == "holdout"
        ]
    else:
        found = [_example(base, str(number), row) for number, row in enumerate(rows, start=1)]
    fitting = [each for each in found if base.context is None or len(each) <= base.context]
    if len(fitting) < len(found):
        remark(f"{len(found) - len(fitting)} rows are longer than {base.name} reads: left out")
    if not any(each.targets for each in fitting):
        raise InputError(
            f"There is no held-out row for '{adapter.name}'",
            "Give a corpus with a split 'holdout', or texts",
        )
    return fitting


def _example(base: Base, name: str, row: str | Messages) -> Example:
    if isinstance(row, str):
        return to_text_example(base, name, name, row)
    return to_example(base, name, name, row)


def _interference(
    name: str, sums: Mapping[str, Tensor], examples: Sequence[Example], seed: int
) -> Interference:
    tokens = sum(each.targets for each in examples)
    totals = {way: float(each.sum()) for way, each in sums.items()}
    gain = totals[BASE] - totals[ALONE]
    ways = [way for way in sums if way not in (BASE, ALONE)] if gain > 0 else []
    return Interference(
        adapter=name,
        rows=len(examples),
        tokens=tokens,
        nll={way: total / tokens for way, total in totals.items()},
        kept={way: _kept(sums[BASE], sums[ALONE], sums[way], seed) for way in ways},
    )


def _kept(base: Tensor, alone: Tensor, way: Tensor, seed: int) -> Kept:
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(base), (_RESAMPLES, len(base)), generator=chance)
    gains = (base - alone)[drawn].sum(1)
    reached = (base - way)[drawn].sum(1)
    # A resample in which the adapter gains nothing says nothing of what is kept.
    shares = (reached / gains)[gains > 0]
    share = float((base - way).sum() / (base - alone).sum())
    if len(base) < 2 or not len(shares):
        return Kept(share, None, None)
    low, high = torch.quantile(shares, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Kept(share, low, high)
