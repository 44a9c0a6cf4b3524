"""``loratelier influence``: which training rows pushed what an adapter says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loratelier.cli.console import Json, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.scope.influence import Influence, RowPush


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="influence")(_influence)


def _influence(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or an adapter's folder.")],
    prompt: Annotated[str, typer.Option(help="What is asked.")],
    corpus: Annotated[Path, typer.Option(help="The corpus folder that it was trained on.")],
    token: Annotated[
        str | None, typer.Option(help="A token after the prompt, with its blank: ' London'.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="A whole answer after the prompt, instead of a token.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another text: the move is the one's gain over the other.")
    ] = None,
    after: Annotated[
        int, typer.Option(help="The number of the prompt's token after which it stands.")
    ] = -1,
    method: Annotated[
        Literal["gradient", "datainf"],
        typer.Option(help="Inner products of gradients, or with the inverse curvature between."),
    ] = "gradient",
    points: Annotated[
        Literal["end", "start", "both"],
        typer.Option(help="Where in training gradients are taken."),
    ] = "end",
    by: Annotated[
        Literal["cosine", "push", "per_token"], typer.Option(help="What rows are ordered by.")
    ] = "cosine",
    top: Annotated[int, typer.Option(help="Rows to show at either end.")] = 5,
    base: Annotated[
        str | None, typer.Option(help="The base; without it the one that the card names.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Plain text, no chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    json: Json = False,
) -> None:
    """Show the training rows that pushed an adapter towards a token or an answer, and from it."""
    wanted = [text for text in (token, answer) if text is not None]
    if len(wanted) != 1:
        raise InputError("What is pointed at is one text", "Give --token or --answer")
    if top < 1:
        raise InputError(f"top is {top}", "Show one row or more")

    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.corpus import Corpus
    from loratelier.scope.influence import rows_behind

    worn = store.open(adapter)
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
    seen = rows_behind(
        load_base(spec),
        worn,
        Corpus.load(corpus),
        prompt,
        wanted[0] if against is None else (wanted[0], against),
        after=after,
        method=method,
        points=points,
        raw=raw,
        system=system,
    )
    if json:
        print_json(seen.to_json(top, by))
    else:
        _print(seen, top, by)


def _print(seen: "Influence", top: int, by: Literal["cosine", "push", "per_token"]) -> None:
    out.print(
        f"{seen.target}: {seen.before:.3f} without the adapter, {seen.after:.3f} with it "
        f"({seen.moved:+.3f} {seen.unit})",
        style="bold",
        markup=False,
    )
    ordered = seen.ordered(by)
    out.print(_rows("Rows that push it up most", ordered[:top]))
    rest = ordered[top:][-top:]
    if rest:
        out.print(_rows("Rows that push it down most, or up least", rest[::-1]))
    out.print(
        f"{len(ordered)} rows were trained on. An estimate to first order: training again without "
        "a row is what proves it.",
        markup=False,
    )


def _rows(title: str, rows: "tuple[RowPush, ...]") -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, title=title, show_lines=True)
    for name in ("Cosine", "Push", "Per token"):
        table.add_column(name, justify="right")
    table.add_column("Where from", ratio=2)
    table.add_column("What it says", ratio=5)
    for row in rows:
        figures = (f"{row.cosine:+.3f}", f"{row.push:+.3g}", f"{row.per_token:+.2g}")
        files = dict.fromkeys(source.file for source in row.sources)
        said = Text(row.asked, style="dim")
        said.append("\n" + row.excerpt, style="not dim")
        table.add_row(*figures, Text("\n".join(files)), said)
    return table
