"""``loratelier corpus score`` and ``select``: how rows measure up, and which to keep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, out, print_json

if TYPE_CHECKING:
    from loratelier.corpus.score import Scored

Folder = Annotated[Path, typer.Argument(help="A corpus folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs to ``loratelier corpus``."""
    app.command()(score)


def score(
    folder: Folder,
    base: Annotated[
        str | None,
        typer.Option(
            help="Who reads: 'demo', a hub id, a folder, a GGUF file.", show_default=False
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="Any of ppl, bpb, ifd (= ifd-loss-ratio), ifd-ppl-ratio, s-ifd, token-mask, "
            "length, novelty."
        ),
    ] = "ppl,ifd,bpb,s-ifd",
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="Another base to score with, to see how alike the two rank the rows.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        float, typer.Option(help="The share of tokens that S-IFD looks at: the most moved.")
    ] = 0.5,
    mask_above: Annotated[
        float, typer.Option(help="Token mask: hard is what the base finds unlikelier than this.")
    ] = 2.5,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Score every row with a base: one column a metric, written into the corpus."""
    from loratelier.base import load_base
    from loratelier.corpus import Corpus
    from loratelier.corpus.score import Settings, parse_metrics, score_corpus, with_comparison
    from loratelier.corpus.score import compare as compared

    parse_metrics(metrics)
    settings = Settings(keep=keep, mask_above=mask_above)
    corpus = Corpus.load(folder)
    reader = load_base(base, dtype=dtype) if base else None
    scored = score_corpus(corpus, reader, metrics, settings=settings)
    # Written at once: the other base may be large, and its absence is no reason to lose these.
    scored.corpus.save(folder, replace=True)
    if compare and reader:
        other = load_base(compare, dtype=dtype)
        theirs = score_corpus(corpus, other, metrics, settings=settings)
        scored = with_comparison(scored, compared(scored.scores, theirs.scores, reader, other))
        scored.corpus.save(folder, replace=True)
    if json:
        print_json(_score_document(scored, folder))
    else:
        _print_scores(scored, folder)


def _score_document(scored: "Scored", folder: Path) -> dict[str, Any]:
    report, scores = scored.corpus.report, scored.scores
    return {
        "path": str(folder),
        "hash": report.hash,
        "rows": scored.corpus.rows.num_rows,
        "metrics": {
            note.column: note.model_dump(mode="json", exclude={"column"})
            for note in report.scores
            if note.column in scores.values
        },
        "tokens": scores.read,
        "passages": scores.passages,
        "passages_kept": scores.kept,
        "seconds": round(scores.seconds, 3),
        "comparison": scored.comparison.model_dump(mode="json") if scored.comparison else None,
    }


def _print_scores(scored: "Scored", folder: Path) -> None:
    from rich.table import Table

    scores = scored.scores
    table = Table(box=None, pad_edge=False)
    for head in ("score", "what", "rows", "lowest", "median", "highest"):
        table.add_column(head, justify="left" if head in ("score", "what") else "right")
    notes = [note for note in scored.corpus.report.scores if note.column in scores.values]
    for note in notes:
        figures = (_figure(value) for value in (note.lowest, note.median, note.highest))
        table.add_row(note.column, note.metric, str(note.scored), *figures)
    out.print(table)
    for note in notes:
        for reason, number in note.reasons.items():
            _line(f"{note.column}: {number} not scored, {reason}")
        for name, value in note.settings.items():
            _line(f"{note.column}: {name} {_figure(value)}")
    if scored.comparison:
        both = scored.comparison
        _line(f"Rank correlation (Spearman) of {both.base.name} and {both.other.name}")
        for column, value in both.spearman.items():
            _line(f"  {column}: {_figure(value)} over {both.rows[column]} rows")
    _line(
        f"{scores.read:,} tokens read in {scores.seconds:.1f} s; {scores.kept} of "
        f"{scores.passages} passages were known"
    )
    _line(f"Corpus: {folder}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _line(text: str) -> None:
    out.print(text, markup=False, emoji=False, soft_wrap=True)
