"""Selective token masking (arXiv:2501.14315): tokens that the base finds unlikely are not learned.

They are what pulls a model farthest from itself. Where they are the style that is to be learned,
masking them costs what the corpus is for: that is measured, not assumed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.progress import remark, task
from loratelier.train.examples import Example, end_tokens
from loratelier.train.learner import Learner
from loratelier.train.packing import pack

METRIC = "token-mask"


@dataclass(frozen=True)
class Masked:
    """Rows without their hard tokens, and how many of the targets those were."""

    rows: list[Example]
    share: float


def mask_tokens(
    base: Base, corpus: Corpus, learner: Learner, rows: Sequence[Example], above: float, size: int
) -> Masked:
    """Return rows in which tokens with a perplexity above ``above`` under the base are no targets.

    The losses are those that the corpus was scored with by this base, where it was; else the base
    reads the rows once, with the gate closed. End tokens are always learned.

    Args:
        base: what the corpus may have been scored by.
        corpus: where the rows come from.
        learner: the model, its gate closed by us.
        rows: the rows to learn from.
        above: the perplexity.
        size: tokens at once in memory.
    """
    ends = frozenset(base.tokenizer.convert_tokens_to_ids(end_tokens(base)))
    stored = _stored(base, corpus)
    known = {row.row: _aligned(row, stored.get(row.row), ends) for row in rows}
    losses = {name: found for name, found in known.items() if found is not None}
    unknown = [row for row in rows if row.row not in losses]
    losses |= _read(learner, unknown, size)
    masked = [_without(row, losses[row.row], above, ends) for row in rows]
    before, after = sum(row.targets for row in rows), sum(row.targets for row in masked)
    share = 1 - after / before
    remark(f"The token mask leaves out {share:.1%} of {before:,} learned tokens")
    return Masked(masked, share)


def _stored(base: Base, corpus: Corpus) -> dict[str, Any]:
    """Return the stored masks by row, if this very base made them."""
    for note in corpus.report.scores:
        if note.metric == METRIC and note.base and note.base.fingerprint == base.fingerprint:
            ids = corpus.rows.column("id").to_pylist()
            return dict(zip(ids, corpus.rows.column(note.column).to_pylist(), strict=True))
    return {}


def _aligned(
    row: Example, answers: Sequence[Mapping[str, Any]] | None, ends: frozenset[int]
) -> dict[int, float] | None:
    """Return the stored loss by place in the row; None where they are not about these tokens."""
    if answers is None:
        return None
    ids = [token for answer in answers for token in answer["ids"]]
    losses = [loss for answer in answers for loss in answer["loss"]]
    targets = [place for place, flag in enumerate(row.learned) if flag]
    words = [place for place in targets if row.ids[place] not in ends]
    if [row.ids[place] for place in words] != ids:
        return None
    return dict(zip(words, losses, strict=True))


@torch.no_grad()
def _read(learner: Learner, rows: Sequence[Example], size: int) -> dict[str, dict[int, float]]:
    """Return the base's loss of every target, by row and place."""
    if not rows:
        return {}
    device = next(learner.parameters()).device
    packs = pack(rows, size, padded=learner.reader.apart == "padding")
    losses: list[float] = []
    with learner.gate_closed(), task("Reading rows with the base", total=len(packs)) as bar:
        for each in packs:
            losses += learner.nll(each.to(device)).tolist()
            bar.advance()
    # Packs hold the rows in their order, and each row's targets in theirs.
    coming = iter(losses)
    return {
        row.row: {place: next(coming) for place, flag in enumerate(row.learned) if flag}
        for row in rows
    }


def _without(
    row: Example, losses: Mapping[int, float], above: float, ends: frozenset[int]
) -> Example:
    limit = math.log(above)
    learned = tuple(
        flag and (row.ids[place] in ends or losses[place] <= limit)
        for place, flag in enumerate(row.learned)
    )
    return replace(row, learned=learned)
