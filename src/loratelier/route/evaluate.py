"""How well a policy's stages choose, beside other ways to choose, on rows that were held out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.compose.interference import losses_by_row
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.route.by_sense import Senses
from loratelier.route.learned import LowRank, request_state
from loratelier.route.policy import Policy
from loratelier.route.requests import Asked, asked_of, general_requests
from loratelier.route.rivals import Scorer, arrow, at_random, bm25
from loratelier.route.sense import BASE, Centroids, Figures, centroids
from loratelier.route.words import hits, phrase
from loratelier.train.examples import to_example, to_text_example

ORACLE = "oracle"


@dataclass(frozen=True)
class Line:
    """One way to choose.

    Attributes:
        method: its name.
        top1, top3: share of held-out requests whose own adapter is first, among the first three.
        share: the gain in nats over the base on the rows, as a part of what the best choice for
            each row gains; None where the adapters were not worn.
        masked: the same with the row's own adapter taken away.
        auroc: how well the score tells an adapter's requests from general ones; None for none.
        milliseconds: median time of a request, reading by the base included.
    """

    method: str
    top1: float | None
    top3: float | None
    share: float | None
    masked: float | None
    auroc: float | None
    milliseconds: float | None


@dataclass(frozen=True)
class Evaluation:
    """The table, and what it was measured on."""

    base: str | None
    requests: dict[str, int]
    general: int
    lines: tuple[Line, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values."""
        return asdict(self)


def evaluate(
    policy: Policy,
    *,
    base: Base | None = None,
    adapters: Mapping[str, Adapter] | None = None,
    most: int = 20,
) -> Evaluation:
    """Measure ways to choose on held-out rows.

    Args:
        policy: its adapters need corpora.
        base: also measure what reads hidden states: the centres, and the learned router.
        adapters: also wear them, for Arrow and the shares of the oracle; needs a base.
        most: held-out requests of each adapter.

    Raises:
        InputError: fewer than two adapters with held-out rows, or adapters without a base.
    """
    asked = {name: each for name, each in asked_of(policy).items() if each.held}
    if len(asked) < 2:
        raise InputError(
            f"There is nothing to choose from: {len(asked)} adapters with held-out rows",
            "Give two adapters of the policy a 'corpus:'",
        )
    if adapters and base is None:
        raise InputError("Adapters are worn by a base, and none is given", "Give it with --base")
    kept = {name: min(most, len(each.held)) for name, each in asked.items()}
    requests = [r for name, n in kept.items() for r in asked[name].held[:n]]
    owners = [name for name, n in kept.items() for _ in range(n)]
    general = general_requests(held=True)
    gains = None
    if base is not None and adapters:
        rows = [row for name, n in kept.items() for row in asked[name].held_rows[:n]]
        gains = _gains(base, adapters, list(asked), rows)
    lines = []
    for method, make in _methods(policy, asked, base, adapters or {}).items():
        score = make()
        timed, found = [], []
        with task(method, total=len(requests) + len(general)) as bar:
            for request in [*requests, *general]:
                began = perf_counter()
                found.append(score(request))
                timed.append(1e3 * (perf_counter() - began))
                bar.advance()
        lines.append(_line(method, found, owners, list(asked), gains, float(np.median(timed))))
    if gains is not None:
        lines.append(_oracle(gains, owners, list(asked)))
    return Evaluation(base.name if base else None, kept, len(general), tuple(lines))


def _methods(
    policy: Policy,
    asked: Mapping[str, Asked],
    base: Base | None,
    adapters: Mapping[str, Adapter],
) -> dict[str, Callable[[], Scorer]]:
    names = list(asked)
    methods: dict[str, Callable[[], Scorer]] = {
        "random": lambda: at_random(names),
        "keywords": lambda: _keywords(policy, names),
        "BM25": lambda: bm25({name: each.learned for name, each in asked.items()}),
        "centroid, wording": lambda: _centroid(centroids(asked, None)),
    }
    if base is not None:
        methods["centroid, hidden states"] = lambda: _centroid(centroids(asked, base))
    if base is not None and policy.learned is not None:
        trained = Senses(base).learned(policy)
        if trained is not None:
            methods["learned router"] = lambda: _learned(trained, base, names)
    if base is not None and adapters:
        methods["Arrow"] = lambda: arrow(base, {n: adapters[n] for n in names if n in adapters})
    return methods


def _keywords(policy: Policy, names: Sequence[str]) -> Scorer:
    def score(request: str) -> dict[str, float]:
        said = phrase(request)
        return {name: float(len(hits(said, policy.adapters[name].keywords))) for name in names}

    return score


def _centroid(found: Centroids) -> Scorer:
    def score(request: str) -> dict[str, float]:
        values = found.scores(found.read([request]))[0].tolist()
        return dict(zip(found.names, values, strict=True))

    return score


def _learned(router: LowRank, base: Base, names: Sequence[str]) -> Scorer:
    known = {*names, BASE}

    def score(request: str) -> dict[str, float]:
        logits = router.logits(torch.from_numpy(request_state(base, request))).tolist()
        pairs = zip(router.names, logits, strict=True)
        return {name: value for name, value in pairs if name in known}

    return score


def _line(
    method: str,
    found: Sequence[dict[str, float]],
    owners: Sequence[str],
    names: Sequence[str],
    gains: Figures | None,
    milliseconds: float,
) -> Line:
    own = found[: len(owners)]
    ranked = [_ranked(scores) for scores in own]
    masked = [_ranked(s, without=owner) for s, owner in zip(own, owners, strict=True)]
    sure = [_sureness(scores) for scores in found]
    return Line(
        method,
        _mean([owner in best[:1] for best, owner in zip(ranked, owners, strict=True)]),
        _mean([owner in best[:3] for best, owner in zip(ranked, owners, strict=True)]),
        _share(gains, [best[:1] for best in ranked], names, [None] * len(owners)),
        _share(gains, [best[:1] for best in masked], names, owners),
        _auroc(sure[: len(owners)], sure[len(owners) :]),
        milliseconds,
    )


def _ranked(scores: Mapping[str, float], without: str | None = None) -> list[str]:
    """Return the adapters, best first; none where all scores are 0 (no keyword occurs)."""
    adapters = [name for name in scores if name not in (BASE, without)]
    if not any(scores[name] for name in adapters):
        return []
    return sorted(adapters, key=lambda name: -scores[name])


def _sureness(scores: Mapping[str, float]) -> float:
    best = max(value for name, value in scores.items() if name != BASE)
    return best - scores.get(BASE, 0.0)


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _auroc(own: Sequence[float], general: Sequence[float]) -> float:
    """Return how often a request of an adapter's scores above a general one; a draw is a half."""
    one, other = np.array(own)[:, None], np.array(general)[None]
    return float(((one > other) + 0.5 * (one == other)).mean())


def _gains(
    base: Base, adapters: Mapping[str, Adapter], names: Sequence[str], rows: Sequence[Any]
) -> Figures:
    """Return by how many nats each adapter lowers the loss of each row: float64 [rows, names]."""
    examples = [
        to_text_example(base, str(n), str(n), row)
        if isinstance(row, str)
        else to_example(base, str(n), str(n), row)
        for n, row in enumerate(rows)
    ]
    bare = losses_by_row(base, examples, "The base on held-out rows")
    gains = np.zeros((len(rows), len(names)))
    with AdapterBank(base.model) as bank:
        for place, name in enumerate(names):
            if name not in adapters:
                raise InputError(f"'{name}' has rows and no adapter", "Leave --worn out")
            bank.add(name, adapters[name])
            with bank.activate(name):
                worn = losses_by_row(base, examples, f"'{name}' on held-out rows")
            gains[:, place] = (bare - worn).numpy()
    return gains


def _share(
    gains: Figures | None,
    chosen: Sequence[Sequence[str]],
    names: Sequence[str],
    without: Sequence[str | None],
) -> float | None:
    """Return the gain of a choice as a part of the best choice's, the base being one."""
    if gains is None:
        return None
    got, best = 0.0, 0.0
    for row, picked, masked in zip(gains, chosen, without, strict=True):
        got += sum(row[names.index(name)] for name in picked)
        left = [gain for gain, name in zip(row, names, strict=True) if name != masked]
        best += max(0.0, *left)
    return float(got / best) if best > 0 else None


def _oracle(gains: Figures, owners: Sequence[str], names: Sequence[str]) -> Line:
    """Return the line of the best choice; its top-1 says how often that is the own adapter."""
    order = [[names[place] for place in np.argsort(-row)] for row in gains]
    return Line(
        ORACLE,
        _mean([owner in best[:1] for best, owner in zip(order, owners, strict=True)]),
        _mean([owner in best[:3] for best, owner in zip(order, owners, strict=True)]),
        1.0,
        1.0,
        None,
        None,
    )
