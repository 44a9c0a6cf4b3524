"""``loratelier inspect``: what an adapter does to one prompt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from rich.text import Text

    from loratelier.scope import Inspection
    from loratelier.scope.moves import Move

# How many positions and tokens the terminal shows; the page and the JSON document have them all.
_POSITIONS, _TOKENS = 10, 3


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="inspect")(_inspect)


def _inspect(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or an adapter's folder.")],
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    base: Annotated[
        str | None, typer.Option(help="The base; without it the one that the card names.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="An adapter to compare with, instead of the bare base.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Plain text, no chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    continuation: Annotated[
        str | None, typer.Option(help="A text after the prompt to score as well.")
    ] = None,
    strength: Annotated[float, typer.Option(help="From -2 to 4; 1 is as trained.")] = 1.0,
    top: Annotated[int, typer.Option(help="Tokens that rose and fell to keep.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of each answer.")] = 60,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    json: Json = False,
) -> None:
    """Show what an adapter changes on a prompt: the answers, and every token's expectations."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.kit.files import write_atomic
    from loratelier.scope import inspect_prompt

    if html is not None and html.is_dir():
        raise InputError(f"{html} is a folder", "Give a file, such as report.html")
    worn = store.open(adapter)
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
    seen = inspect_prompt(
        load_base(spec),
        worn,
        prompt,
        before=store.open(before) if before is not None else None,
        raw=raw,
        system=system,
        continuation=continuation,
        top=top,
        max_new_tokens=max_new_tokens,
        strength=strength,
    )
    if html is not None:
        write_atomic(html, seen.to_html())
    if json:
        print_json(seen.to_json())
    else:
        _print(seen)
    if html is not None:
        (err if json else out).print(f"Page: {html}", markup=False, soft_wrap=True)


def _print(seen: "Inspection") -> None:
    from rich.table import Table

    headline, *rest = seen.summary.sentences
    out.print(headline, style="bold", markup=False)
    answers = Table(expand=True)
    first = "The base" if seen.before is None else f"Wearing '{seen.before}'"
    for title in (first, f"Wearing '{seen.adapter}'"):
        answers.add_column(title, ratio=1)
    answers.add_row(_answer(seen, "base"), _answer(seen, "adapter"))
    out.print(answers)
    for sentence in rest:
        out.print(sentence, markup=False)
    if seen.effect:
        out.print(_places(seen))


def _answer(seen: "Inspection", side: str) -> "Text":
    from rich.text import Text

    answer = seen.continuations[side]
    text = Text(answer.text)
    if answer.parting:
        text.stylize("bold reverse", *answer.parting)
        if answer.parting[0] == answer.parting[1]:
            text.append(" [ends here]", style="bold reverse")
    if not answer.ended:
        text.append(" ...", style="dim")
    return text


def _places(seen: "Inspection") -> object:
    from rich.table import Table
    from rich.text import Text

    from loratelier.scope.inspection import DIRECTION
    from loratelier.scope.pieces import visible
    from loratelier.scope.wording import nats

    table = Table(expand=True, title=f"Where it changes most: {DIRECTION}")
    for name in ("#", "After", "KL", "Rose", "Fell"):
        table.add_column(name, justify="right" if name in ("#", "KL") else "left")
    along = (*seen.positions[:-1], *seen.continuations["adapter"].positions)
    for position in sorted(along, key=lambda one: -one.kl)[:_POSITIONS]:
        where = "answer" if position.index >= len(seen.positions) else "prompt"
        table.add_row(
            str(position.index),
            Text(f"{visible(position.token)} ({where})"),
            nats(position.kl),
            *(Text(_moves(moves)) for moves in (position.rose, position.fell)),
        )
    return table


def _moves(moves: "tuple[Move, ...]") -> str:
    from loratelier.scope.wording import percent, quoted

    return ", ".join(
        f"{quoted(move.token)} {percent(move.before)}→{percent(move.after)}"
        for move in moves[:_TOKENS]
        if move.notable
    )
