"""Other ways to choose an adapter, to hold the policy's own stages against."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.base import Base
from loratelier.base.inside import look_inside
from loratelier.route.words import terms
from loratelier.scope.factors import svd

# A request -> a score for each adapter, higher is better.
Scorer = Callable[[str], dict[str, float]]

_K1, _B = 1.5, 0.75


def at_random(names: Sequence[str]) -> Scorer:
    """Score by a hash of the request: the same request is answered alike in every run."""

    def score(request: str) -> dict[str, float]:
        drawn = {n: hashlib.sha256(f"{n}\n{request}".encode()).digest()[:8] for n in names}
        return {name: int.from_bytes(each) / 2**64 for name, each in drawn.items()}

    return score


@dataclass(frozen=True)
class _Index:
    """One adapter's requests, counted: a row's terms, and how long it is."""

    rows: tuple[tuple[Counter[str], int], ...]


def bm25(documents: Mapping[str, Sequence[str]]) -> Scorer:
    """Score by the best row of each adapter under BM25 (Robertson et al., k1 = 1.5, b = 0.75).

    idf is ln(1 + (N - n + 1/2) / (n + 1/2)) over the N rows of all adapters; terms are stems.
    """
    indexes = {
        name: _Index(tuple((Counter(t), len(t)) for t in map(terms, rows)))
        for name, rows in documents.items()
    }
    every = [row for index in indexes.values() for row in index.rows]
    mean = sum(length for _, length in every) / max(1, len(every)) or 1.0
    found_in = Counter(term for counted, _ in every for term in counted)
    idf = {t: math.log(1 + (len(every) - n + 0.5) / (n + 0.5)) for t, n in found_in.items()}

    def of_row(asked: Sequence[str], row: tuple[Counter[str], int]) -> float:
        counted, length = row
        slack = _K1 * (1 - _B + _B * length / mean)
        return sum(
            idf[term] * counted[term] * (_K1 + 1) / (counted[term] + slack)
            for term in asked
            if term in counted
        )

    def score(request: str) -> dict[str, float]:
        asked = terms(request)
        return {
            name: max((of_row(asked, row) for row in index.rows), default=0.0)
            for name, index in indexes.items()
        }

    return score


def arrow(base: Base, adapters: Mapping[str, Adapter]) -> Scorer:
    """Score by Arrow (arXiv 2405.11157): |cos(x, v)| with v the top right singular vector of BA.

    The paper's x is the input of each adapted layer. Here it is the residual stream that enters the
    layer's block, so that only sites that read it count (queries, keys, values, gates and ups), and
    the gain of the norm between them is left out. The mean over those sites and all tokens.
    """
    directions = {name: _directions(base, adapter) for name, adapter in adapters.items()}

    @torch.no_grad()
    def score(request: str) -> dict[str, float]:
        ids = base.tokenizer(request, return_tensors="pt")["input_ids"][:, : base.context]
        states = look_inside(base.model, ids.to(base.device)).states
        return {name: _arrow(states, found) for name, found in directions.items()}

    return score


def _directions(base: Base, adapter: Adapter) -> list[tuple[int, Tensor]]:
    """Return the layer and the unit direction of every site that reads the residual stream."""
    hidden = base.model.config.get_text_config().hidden_size
    found = []
    for site, (down, up) in adapter.tensors.items():
        layer = next((int(part) for part in site.split(".") if part.isdigit()), None)
        reads = site.rsplit(".", 1)[-1] not in ("o_proj", "down_proj", "out_proj", "fc2")
        if layer is None or down.shape[1] != hidden or not reads:
            continue
        into = svd(down.detach().float().cpu(), up.detach().float().cpu()).into
        if into.shape[1]:
            found.append((layer, into[:, 0].float()))
    return found


def _arrow(states: Sequence[Tensor], directions: Sequence[tuple[int, Tensor]]) -> float:
    values = [
        torch.nn.functional.cosine_similarity(states[layer][0].float().cpu(), v[None], dim=-1)
        .abs()
        .mean()
        for layer, v in directions
    ]
    return float(torch.stack(values).mean()) if values else 0.0
