"""Scores as columns of ``rows.parquet``, with a note on each in the manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from loratelier.base import Base
from loratelier.corpus.folder import Corpus, content_hash
from loratelier.corpus.notes import BaseNote, ComparisonNote, ScoreNote
from loratelier.corpus.score import metrics as m
from loratelier.corpus.score.metrics import Unscored
from loratelier.corpus.score.rank import spearman
from loratelier.corpus.score.run import Scores, Settings, TokenMask, score_rows

# Why a row lacks a score: a list with one entry a column that lacks one.
REASONS = "unscored"

REASON_TYPE = pa.list_(pa.struct([("column", pa.string()), ("reason", pa.string())]))
_MASK_TYPE = pa.list_(
    pa.struct(
        [
            ("message", pa.int32()),
            ("ids", pa.list_(pa.int32())),
            ("loss", pa.list_(pa.float32())),
            ("hard", pa.list_(pa.bool_())),
        ]
    )
)
_TYPES = {"length": pa.int64(), "token-mask": _MASK_TYPE}


@dataclass(frozen=True, eq=False)
class Scored:
    """A corpus with its scores, what they cost, and how another base would rank the rows."""

    corpus: Corpus
    scores: Scores
    comparison: ComparisonNote | None = None


def score_corpus(
    corpus: Corpus,
    base: Base | None,
    metrics: str | Sequence[str] = m.DEFAULT,
    *,
    settings: Settings | None = None,
    engine: str = "local",
    ray_address: str | None = None,
) -> Scored:
    """Return the corpus with one column a metric; what it held under that name is replaced.

    A row that cannot be scored is null there and says why in the column ``unscored``. Nothing is
    written to disk but what the base said, which is kept in the home folder (see
    :func:`~.run.score_rows`).

    Args:
        corpus: rows of messages or text.
        base: needed for all metrics but ``novelty``.
        metrics: names or aliases; a column bears the name that was asked for.
        settings: what may be chosen.
        engine, ray_address: where the base reads, see :func:`~.run.score_rows`.

    Raises:
        InputError: an unknown metric, none, or a base that is missing or cannot read these rows.
    """
    settings = settings or Settings()
    scores = score_rows(
        corpus.rows.to_pylist(), base, metrics, settings, engine=engine, ray_address=ray_address
    )
    return Scored(_with_scores(corpus, base, scores, settings), scores)


def compare(first: Scores, second: Scores, base: Base, other: Base) -> ComparisonNote:
    """Say how alike two bases rank the same rows: Spearman's correlation by column.

    Rows that one of them could not score are left out; columns that are no numbers too.
    """
    pairs = {
        column: [
            (ours, theirs)
            for ours, theirs in zip(values, second.values[column], strict=True)
            if isinstance(ours, int | float) and isinstance(theirs, int | float)
        ]
        for column, values in first.values.items()
        if m.metric_of(column).needs_base and column != "token-mask"
    }
    return ComparisonNote(
        base=base_note(base),
        other=base_note(other),
        rows={column: len(both) for column, both in pairs.items()},
        spearman={
            column: spearman([one for one, _ in both], [two for _, two in both])
            for column, both in pairs.items()
        },
    )


def with_comparison(scored: Scored, comparison: ComparisonNote) -> Scored:
    """Record a comparison in the manifest, in the place of an earlier one with the same bases."""
    report = scored.corpus.report
    kept = [
        note
        for note in report.comparisons
        if (note.base, note.other) != (comparison.base, comparison.other)
    ]
    report = report.model_copy(update={"comparisons": [*kept, comparison]})
    return Scored(replace(scored.corpus, report=report), scored.scores, comparison)


def base_note(base: Base) -> BaseNote:
    """Describe a base as it is loaded."""
    return BaseNote(
        name=base.name,
        spec=base.spec,
        fingerprint=base.fingerprint,
        dtype=str(base.dtype).removeprefix("torch."),
        quantization=base.quantization,
    )


def _with_scores(corpus: Corpus, base: Base | None, scores: Scores, settings: Settings) -> Corpus:
    rows = corpus.rows
    for column, values in scores.values.items():
        kind = _TYPES.get(m.metric_of(column).name, pa.float64())
        rows = put_column(rows, column, pa.array([_stored(value) for value in values], type=kind))
    rows = put_column(rows, REASONS, _reasons(corpus.rows, scores.values))
    old = [note for note in corpus.report.scores if note.column not in scores.values]
    new = [_note(column, base, scores, settings) for column in scores.values]
    notes = recounted([*old, *new], rows)
    report = corpus.report.model_copy(
        update={
            "scores": notes,
            "hash": content_hash(rows, corpus.dropped, corpus.candidates, notes),
        }
    )
    return Corpus(rows, corpus.dropped, report, corpus.candidates, corpus.repairs)


def put_column(table: Any, name: str, values: Any) -> Any:
    """Return the table with a column added, or replaced where it stands."""
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)


def _stored(value: Any) -> Any:
    if isinstance(value, Unscored):
        return None
    if not isinstance(value, tuple):
        return value
    return [_stored_mask(mask) for mask in value]


def _stored_mask(mask: TokenMask) -> dict[str, Any]:
    return {
        "message": mask.message,
        "ids": list(mask.ids),
        "loss": mask.loss.tolist(),
        "hard": list(mask.hard),
    }


def _reasons(rows: Any, values: Mapping[str, Sequence[Any]]) -> Any:
    """Return the column of reasons: those of these scores, and of columns left as they were."""
    before: list[list[dict[str, str]] | None] = (
        rows.column(REASONS).to_pylist() if REASONS in rows.column_names else [None] * rows.num_rows
    )
    after = [
        [entry for entry in entries or [] if entry["column"] not in values]
        + [
            {"column": column, "reason": of_rows[number].reason}
            for column, of_rows in values.items()
            if isinstance(of_rows[number], Unscored)
        ]
        for number, entries in enumerate(before)
    ]
    return pa.array(after, type=REASON_TYPE)


def _note(column: str, base: Base | None, scores: Scores, settings: Settings) -> ScoreNote:
    metric = m.metric_of(column)
    return ScoreNote(
        column=column,
        metric=metric.name,
        version=m.VERSION,
        base=base_note(base) if base and metric.needs_base else None,
        settings=_settings(column, scores, settings),
    )


def recounted(notes: Sequence[ScoreNote], rows: Any) -> list[ScoreNote]:
    """Return the notes with the counts and quartiles of these rows."""
    return [note.model_copy(update=_counts(note.column, rows)) for note in notes]


def _counts(column: str, rows: Any) -> dict[str, Any]:
    values = rows.column(column).to_pylist()
    lacking = Counter(
        entry["reason"]
        for entries in rows.column(REASONS).to_pylist()
        for entry in entries
        if entry["column"] == column
    )
    numbers = [value for value in values if isinstance(value, int | float)]
    quartiles = np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1]).tolist() if numbers else [None] * 5
    names = ("lowest", "quarter", "median", "three_quarters", "highest")
    return {
        "scored": sum(value is not None for value in values),
        "unscored": lacking.total(),
        "reasons": dict(lacking.most_common()),
        **dict(zip(names, quartiles, strict=True)),
    }


def _settings(column: str, scores: Scores, settings: Settings) -> dict[str, Any]:
    name = m.metric_of(column).name
    if name == "s-ifd":
        return {"keep": settings.keep, "threshold": scores.threshold}
    if name == "token-mask":
        tokens = [
            flag
            for masks in scores.values[column]
            if not isinstance(masks, Unscored)
            for mask in masks
            for flag in mask.hard
        ]
        share = sum(tokens) / len(tokens) if tokens else None
        return {"above": settings.mask_above, "hard_share": share}
    return {}
