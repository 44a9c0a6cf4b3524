"""``score_rows``: what a base says about rows, and the scores made of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from loratelier.base import Base
from loratelier.corpus.engine import Engine, Local, engine_of
from loratelier.corpus.records import row_text
from loratelier.corpus.score import metrics as m
from loratelier.corpus.score.cache import Cache, key_of, open_cache
from loratelier.corpus.score.forward import losses_of
from loratelier.corpus.score.layout import Layout, Passage, lay_out
from loratelier.corpus.score.likeness import gram_vectors, nearest_likeness
from loratelier.corpus.score.metrics import Likelihood, Losses, Unscored, Value
from loratelier.corpus.score.spread import spread
from loratelier.kit.errors import InputError
from loratelier.kit.progress import task

# The published half of the tokens (arXiv 2506.01317) and the published threshold (2501.14315).
KEEP = 0.5
MASK_ABOVE = 2.5

_NOT_FINITE = Unscored("the base gives no finite likelihood")


@dataclass(frozen=True)
class Settings:
    """What may be chosen about the scores.

    ``keep``: the share of the corpus' tokens that S-IFD looks at, those that the prompt moves most.
    ``mask_above``: the perplexity above which the token mask calls a token hard.
    """

    keep: float = KEEP
    mask_above: float = MASK_ABOVE

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise InputError(
                f"keep = {self.keep} is no share of tokens", "Give a number between 0 and 1"
            )
        if not self.mask_above > 1:
            raise InputError(
                f"mask_above = {self.mask_above} is below any perplexity", "Give more than 1"
            )


@dataclass(frozen=True)
class TokenMask:
    """One answer's tokens for the trainer: their ids, their losses in nats, which are hard."""

    message: int
    ids: tuple[int, ...]
    loss: Losses
    hard: tuple[bool, ...]


@dataclass(frozen=True)
class Scores:
    """Values by column, one a row in the rows' order, and what the work cost.

    ``values[column][row]`` is a number, a tuple of :class:`TokenMask`, or an :class:`Unscored`.
    ``read`` counts tokens that the base read in this run, ``kept`` passages that were known.
    """

    values: dict[str, list[Any]]
    threshold: float | None
    read: int
    kept: int
    passages: int
    seconds: float


@dataclass(frozen=True)
class _Said:
    """What the base said about a row, and how the row was laid out for it."""

    layout: Layout
    likelihood: Likelihood


def score_rows(
    rows: Sequence[Mapping[str, Any]],
    base: Base | None,
    columns: str | Sequence[str] = m.DEFAULT,
    settings: Settings | None = None,
    *,
    engine: str = "local",
    ray_address: str | None = None,
) -> Scores:
    """Score rows with a base.

    What the base says is kept in the home folder by content and base, so a second run, or one
    after a kill, computes only what is new.

    Args:
        rows: with ``messages`` (role, content) or ``text``.
        base: needed for all metrics but ``novelty``; best in float32, since in bfloat16 the third
            digit depends on what shares the batch.
        columns: metrics by name or alias, see :func:`~.metrics.known`.
        settings: what may be chosen.
        engine: where the base reads: ``local``, or ``ray`` for Ray Data, whose workers load the
            base themselves; batches differ there, and scores by less than 1e-4.
        ray_address: of a Ray cluster that runs; without it a local one is begun and ended.

    Raises:
        InputError: an unknown metric, no base where one is needed, or one without chat template
            for rows of messages.
    """
    columns = m.parse_metrics(columns)
    settings = settings or Settings()
    began = perf_counter()
    wanted = [m.metric_of(column) for column in columns]
    said: list[_Said | Unscored] = []
    work = _Work()
    if any(metric.needs_base for metric in wanted):
        base = _fitting(base, rows)
        pair = any(metric.needs_alone for metric in wanted)
        with engine_of(engine, ray_address) as where:
            said, work = _ask(base, rows, where, pair=pair)
    threshold = m.change_threshold(
        [one.likelihood for one in said if isinstance(one, _Said)], settings.keep
    )
    values = {
        column: _values(m.metric_of(column).name, rows, said, threshold, settings)
        for column in columns
    }
    return Scores(values, threshold, work.read, work.kept, work.passages, perf_counter() - began)


@dataclass
class _Work:
    read: int = 0
    kept: int = 0
    passages: int = 0


def _fitting(base: Base | None, rows: Sequence[Mapping[str, Any]]) -> Base:
    if base is None:
        raise InputError("These metrics need a base", "Name one with --base, for example demo")
    if not base.tokenizer.chat_template and any(row.get("messages") for row in rows):
        raise InputError(
            f"The base {base.name} has no chat template, so chat rows cannot be scored with it",
            "Choose an instruction-tuned base",
        )
    return base


def _ask(
    base: Base, rows: Sequence[Mapping[str, Any]], engine: Engine, *, pair: bool
) -> tuple[list[_Said | Unscored], _Work]:
    """Return what the base says about each row, computing only what is not known yet."""
    layouts: list[Layout | Unscored] = []
    with task("Laying out rows", total=len(rows)) as bar:
        for row in rows:
            layouts.append(lay_out(base, row))
            bar.advance()
    passages = {
        key_of(passage): passage
        for layout in layouts
        if isinstance(layout, Layout)
        for passage in _passages(layout, pair)
    }
    with open_cache(base) as cache:
        known = cache.read(list(passages))
        work = _Work(kept=len(known), passages=len(passages))
        missing = {key: one for key, one in passages.items() if key not in known}
        known |= _compute(base, missing, cache, work, engine)
    said = [one if isinstance(one, Unscored) else _said(one, known, pair=pair) for one in layouts]
    return said, work


def _passages(layout: Layout, pair: bool) -> list[Passage]:
    alone = [passage for passage in layout.alone if passage is not None] if pair else []
    return [*layout.given, *alone]


def _compute(
    base: Base, missing: Mapping[bytes, Passage], cache: Cache, work: _Work, engine: Engine
) -> dict[bytes, Losses]:
    found: dict[bytes, Losses] = {}
    read = _here(base, missing) if isinstance(engine, Local) else spread(engine, base, missing)
    with task("Scoring, tokens", total=sum(each.cost for each in missing.values())) as bar:
        for fresh in read:
            cache.write(fresh)
            found |= fresh
            cost = sum(missing[key].cost for key in fresh)
            work.read += cost
            bar.advance(cost)
    return found


def _here(base: Base, missing: Mapping[bytes, Passage]) -> Iterator[dict[bytes, Losses]]:
    """Yield what the base says of passages, batch by batch, read in this process."""
    keys = list(missing)
    for batch in losses_of(base, list(missing.values())):
        yield {keys[number]: losses for number, losses in batch}


def _said(layout: Layout, known: Mapping[bytes, Losses], *, pair: bool) -> _Said | Unscored:
    given = np.concatenate([known[key_of(passage)] for passage in layout.given])
    if not np.isfinite(given).all():
        return _NOT_FINITE
    size = sum(answer.size for answer in layout.answers)
    both = _pair(layout, given, known) if pair else m.NO_QUESTION
    return _Said(layout, Likelihood(given, size, both))


def _pair(
    layout: Layout, given: Losses, known: Mapping[bytes, Losses]
) -> tuple[Losses, Losses] | Unscored:
    """Return the losses with and without prompt over the tokens that both runs score."""
    if not layout.alone:
        return m.NO_QUESTION
    alone = [known[key_of(passage)] for passage in layout.alone if passage is not None]
    if not alone:
        return Unscored("the answer is one token, and alone nothing stands before it")
    after = [part[layout.skipped :] for part in _by_answer(layout, given)]
    both = np.concatenate(after), np.concatenate(alone)
    return both if np.isfinite(both[1]).all() else _NOT_FINITE


def _by_answer(layout: Layout, given: Losses) -> list[Losses]:
    return np.split(given, np.cumsum([len(answer.ids) for answer in layout.answers])[:-1])


def _values(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    said: Sequence[_Said | Unscored],
    threshold: float | None,
    settings: Settings,
) -> list[Any]:
    if name == "novelty":
        return _novelty(rows)
    if name == "token-mask":
        return [_each(one, lambda it: _token_mask(it, settings.mask_above)) for one in said]
    formulas = {
        "ppl": m.perplexity,
        "bpb": m.bits_per_byte,
        "ifd-loss-ratio": m.ifd_loss_ratio,
        "ifd-ppl-ratio": m.ifd_ppl_ratio,
        "s-ifd": lambda one: m.selective_ifd(one, threshold),
        "length": lambda one: len(one.given),
    }
    formula = formulas[name]
    return [_each(one, lambda it: formula(it.likelihood)) for one in said]


def _each(one: _Said | Unscored, formula: Callable[[_Said], Any]) -> Any:
    return one if isinstance(one, Unscored) else formula(one)


def _novelty(rows: Sequence[Mapping[str, Any]]) -> list[Value]:
    if len(rows) < 2:
        return [Unscored("there is no other row") for _ in rows]
    vectors = gram_vectors([row_text(row) for row in rows])
    return [float(1 - alike) for alike in nearest_likeness(vectors)]


def _token_mask(one: _Said, above: float) -> tuple[TokenMask, ...]:
    parts = _by_answer(one.layout, one.likelihood.given)
    return tuple(
        TokenMask(answer.message, answer.ids, part, tuple(m.hard_tokens(part, above)))
        for answer, part in zip(one.layout.answers, parts, strict=True)
    )
