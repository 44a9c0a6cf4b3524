"""``loratelier inspect``: what an adapter does to one prompt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.cli.inspect_many import survey_many
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
    prompt: Annotated[str | None, typer.Option(help="What to ask.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Many instead of one: a prompt a line, or JSONL with messages."),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Many instead of one: the answers of a corpus' rows.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of the corpus, the rows of this split alone.")
    ] = None,
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
    strength: Annotated[
        float | None,
        typer.Option(help="From -2 to 4; 1 is as trained.", show_default="the card's, or 1"),
    ] = None,
    look: Annotated[
        str,
        typer.Option(help="Parts inside the model, with commas between; 'none' for answers alone."),
    ] = "attention,lens,sites,weights,experts",
    target: Annotated[
        str | None,
        typer.Option(help="What the sites explain: ' Paris', or ' Paris| London' for a contrast."),
    ] = None,
    keywords: Annotated[
        str | None, typer.Option(help="Words to follow, with commas between.")
    ] = None,
    top: Annotated[int, typer.Option(help="Tokens that rose and fell to keep.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of each answer.")] = 60,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write each picture into this folder.")] = None,
    language: Annotated[str, typer.Option(help="Of the pictures in files: en or ru.")] = "en",
    json: Json = False,
) -> None:
    """Show what an adapter changes on a prompt: the answers, every token, and inside the model."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.scope import inspect_prompt

    _require_one(prompt, prompts, corpus)
    for path, kind in ((html, "folder"), (svg, "file")):
        if path is not None and (path.is_dir() if kind == "folder" else path.is_file()):
            raise InputError(f"{path} is a {kind}", "Give another name")
    if language not in ("en", "ru"):
        raise InputError(f"There is no language '{language}' here", "It is en or ru")
    worn = store.open(adapter)
    worn_at = strength if strength is not None else (worn.card.strength or 1.0)
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
    other = store.open(before) if before is not None else None
    if prompt is None:
        _refuse_unused(continuation=continuation, target=target, keywords=keywords)
        _refuse_unused(html=html, svg=svg)
        survey_many(
            load_base(spec),
            worn,
            before=other,
            prompts=prompts,
            corpus=corpus,
            split=split,
            strength=worn_at,
            top=top,
            raw=raw,
            system=system,
            as_json=json,
        )
        return
    _refuse_unused(split=split)
    seen = inspect_prompt(
        load_base(spec),
        worn,
        prompt,
        before=other,
        raw=raw,
        system=system,
        continuation=continuation,
        top=top,
        max_new_tokens=max_new_tokens,
        strength=worn_at,
        parts=() if look == "none" else [part.strip() for part in look.split(",")],
        target=_target(target),
        keywords=[word.strip() for word in keywords.split(",")] if keywords else (),
    )
    written = _write(seen, html, svg, language)
    if json:
        print_json(seen.to_json())
    else:
        _print(seen)
    for path in written:
        (err if json else out).print(f"Written: {path}", markup=False, soft_wrap=True)


def _require_one(*ways: object) -> None:
    if sum(way is not None for way in ways) != 1:
        raise InputError(
            "What is to be read is given once", "Give one of --prompt, --prompts and --corpus"
        )


def _refuse_unused(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name} is for another kind of reading", "Leave it out")


def _target(asked: str | None) -> "str | tuple[str, str] | None":
    if asked is None or "|" not in asked:
        return asked
    toward, _, against = asked.partition("|")
    return toward, against


def _write(seen: "Inspection", html: Path | None, svg: Path | None, language: str) -> list[Path]:
    from loratelier.kit.files import write_atomic
    from loratelier.scope.pictures.book import pictures

    written = []
    if html is not None:
        write_atomic(html, seen.to_html())
        written.append(html)
    if svg is not None:
        for picture in pictures(seen):
            written.append(svg / f"{picture.name}.svg")
            write_atomic(written[-1], picture.to_svg(language))
    return written


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
    for sentence in (*rest, *_inside(seen)):
        out.print(sentence, markup=False)
    if seen.keywords:
        out.print(_keywords(seen))
    if seen.effect:
        out.print(_places(seen))


def _inside(seen: "Inspection") -> list[str]:
    """Return the sentences that stand under the page's pictures."""
    from loratelier.scope.pictures.book import pictures

    return [picture.says[0] for picture in pictures(seen)]


def _keywords(seen: "Inspection") -> object:
    from rich.table import Table

    from loratelier.scope.wording import percent

    table = Table(title="Words, as what comes next after the prompt")
    for name in ("Word", "Before", "After"):
        table.add_column(name, justify="left" if name == "Word" else "right")
    for keyword in seen.keywords:
        table.add_row(keyword.word, percent(keyword.before), percent(keyword.after))
    return table


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
