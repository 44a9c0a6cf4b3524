"""``loratelier corpus score`` and ``select``: how rows measure up, and which to keep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, out, print_json

if TYPE_CHECKING:
    from loratelier.corpus.score import Scored
    from loratelier.corpus.select import Selected

Folder = Annotated[Path, typer.Argument(help="A corpus folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs to ``loratelier corpus``."""
    app.command()(score)
    app.command()(select)


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
    engine: Annotated[
        str, typer.Option(help="Where the base reads: local, or ray (Ray Data).")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="A Ray cluster that runs; else a local one is begun.")
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
    scored = score_corpus(
        corpus, reader, metrics, settings=settings, engine=engine, ray_address=ray_address
    )
    # Written at once: the other base may be large, and its absence is no reason to lose these.
    scored.corpus.save(folder, replace=True)
    if compare and reader:
        other = load_base(compare, dtype=dtype)
        theirs = score_corpus(
            corpus, other, metrics, settings=settings, engine=engine, ray_address=ray_address
        )
        scored = with_comparison(scored, compared(scored.scores, theirs.scores, reader, other))
        scored.corpus.save(folder, replace=True)
    if json:
        print_json(_score_document(scored, folder))
    else:
        _print_scores(scored, folder)


def select(
    folder: Folder,
    output: Annotated[Path, typer.Option("-o", "--output", help="The corpus folder to write.")],
    top: Annotated[
        float | None,
        typer.Option(help="How many training rows: 0.1 is a tenth, 50 is fifty rows."),
    ] = None,
    by: Annotated[str | None, typer.Option(help="The score that ranks, highest first.")] = None,
    lowest: Annotated[bool, typer.Option("--lowest", help="Rank the lowest first.")] = False,
    max_ppl: Annotated[float | None, typer.Option(help="The same as --max ppl=N.")] = None,
    low: Annotated[
        list[str] | None, typer.Option("--min", metavar="SCORE=N", help="Leave out what is below.")
    ] = None,
    high: Annotated[
        list[str] | None, typer.Option("--max", metavar="SCORE=N", help="Leave out what is above.")
    ] = None,
    diverse: Annotated[
        bool, typer.Option("--diverse", help="Rows that together stand for all the others.")
    ] = False,
    pool: Annotated[
        float, typer.Option(help="With --by and --diverse: so many times as many to choose from.")
    ] = 3.0,
    base: Annotated[
        str | None,
        typer.Option(help="With --diverse: likeness is that of this base's hidden states."),
    ] = None,
    cap_source: Annotated[
        int | None, typer.Option(metavar="N", help="At most so many rows from one file.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY:VALUE=N",
            help="Rows that must be among them: script:Cyrl=0.5, file:diary.md=10, format:chat=3.",
        ),
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="A corpus of general rows to mix in.")] = None,
    replay_share: Annotated[
        float, typer.Option(help="Their share of all training rows; with --replay 0.2.")
    ] = 0.0,
    control: Annotated[
        Path | None, typer.Option(help="Write as many rows drawn at random to this folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a corpus that exists in the folder.")
    ] = False,
    json: Json = False,
) -> None:
    """Choose training rows by their scores; held-out rows stay as they are."""
    from loratelier.base import load_base
    from loratelier.corpus import Corpus
    from loratelier.corpus.folder import check_target
    from loratelier.corpus.select import Limit, Wish, parse_limits, parse_quotas, select_rows
    from loratelier.kit.errors import InputError

    bound = () if max_ppl is None else (Limit("ppl", high=max_ppl),)
    wish = Wish(
        top=top,
        by=by,
        lowest=lowest,
        limits=(*bound, *parse_limits(low or [], high or [])),
        diverse=diverse,
        pool=pool,
        cap_source=cap_source,
        quotas=parse_quotas(quota or []),
        replay_share=(replay_share or 0.2) if replay else replay_share,
        seed=seed,
    )
    if base and not diverse:
        raise InputError("--base is for --diverse only", "Add --diverse, or leave it away")
    for target in (output, *([control] if control else [])):
        check_target(target, replace=force)
    chosen = select_rows(
        Corpus.load(folder),
        wish,
        base=load_base(base) if base else None,
        replay=Corpus.load(replay) if replay else None,
        control=control is not None,
    )
    chosen.corpus.save(output, replace=force)
    if control and chosen.control:
        chosen.control.save(control, replace=force)
    if json:
        print_json(_select_document(chosen, output, control))
    else:
        _print_selection(chosen, output, control)


def _select_document(chosen: "Selected", output: Path, control: Path | None) -> dict[str, Any]:
    note = chosen.corpus.report.selections[-1]
    return {
        **chosen.corpus.report.counts(),
        **note.model_dump(mode="json"),
        "likeness": chosen.likeness or None,
        "hash": chosen.corpus.hash,
        "path": str(output),
        "control": (
            {"path": str(control), "hash": chosen.control.hash} if chosen.control else None
        ),
    }


def _print_selection(chosen: "Selected", output: Path, control: Path | None) -> None:
    report = chosen.corpus.report
    note = report.selections[-1]
    _line(f"{note.selected} of {note.candidates} training rows chosen")
    if chosen.likeness:
        _line(f"Likeness: {chosen.likeness}")
    for cause, number in note.reasons.items():
        _line(f"  {number} left out: {cause}")
    if note.replayed:
        _line(f"{note.replayed} rows replayed from corpus {(note.replay_source or '')[:12]}")
    _line(f"{report.train} rows to train on, {report.held_out} held out as before")
    _line(f"Corpus: {output}")
    if control:
        _line(f"Random control of the same size: {control}")


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
