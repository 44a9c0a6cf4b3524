"""``loratelier corpus synthesize``: new rows from a corpus, by an API or a base of one's own."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.corpus.synthesize import Asked, Cost, Plan, Rates, Settings, Synthesized

Folder = Annotated[Path, typer.Argument(help="A corpus folder.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verb to ``loratelier corpus``."""
    app.command()(synthesize)


def synthesize(
    folder: Folder,
    output: Annotated[
        Path, typer.Option("-o", "--out", "--output", help="The corpus folder to write.")
    ],
    task: Annotated[str, typer.Option(help="rephrase, qa, dialogue or scenes.")],
    api: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An API of OpenAI's protocol, as https://HOST/v1.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model's name at the API.", show_default=False)
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Instead of an API, a base on this machine: 'demo', a hub id, a folder.",
            show_default=False,
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="Who the assistant is in a dialogue: 'a strict editor'.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Write from so many training rows.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest words.")] = 0.7,
    most_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = 2048,
    corrections: Annotated[
        int, typer.Option(help="How often the model may mend an answer that does not fit.")
    ] = 2,
    price_in: Annotated[
        float | None, typer.Option(help="Price of a million tokens in.", show_default=False)
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(help="Price of a million tokens out.", show_default=False)
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="API: the environment variable that holds the key. [default: OPENAI_API_KEY]",
            show_default=False,
        ),
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(help="API: at most.", show_default=False)
    ] = None,
    tokens_per_minute: Annotated[
        float | None,
        typer.Option(help="API: of prompts and answers together, at most.", show_default=False),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="API: requests at once. [default: 4]", show_default=False)
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            help="API: how often one request is sent at most. [default: 6]", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="API: seconds to wait for an answer. [default: 120]", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Base: of what is drawn. [default: 0]", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="API: do not ask before it is paid.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, and ask for nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a corpus that exists in the folder.")
    ] = False,
    json: Json = False,
) -> None:
    """Write new rows from a corpus; a run that was cut off goes on where it was."""
    from loratelier.corpus import Corpus
    from loratelier.corpus.folder import check_target
    from loratelier.corpus.synthesize import Rates, Settings, plan
    from loratelier.corpus.synthesize import synthesize as written

    check_target(output, replace=force)
    settings = Settings(
        task=task,
        role=role,
        limit=limit,
        most_tokens=most_tokens,
        corrections=corrections,
        rates=Rates(price_in, price_out),
    )
    of_api = {
        "key_env": key_env,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "parallel": parallel,
        "tries": tries,
        "timeout": timeout,
    }
    corpus = Corpus.load(folder)
    asked = _asked(api, model, base, temperature, of_api, seed)
    # Beside the corpus and not in it: the folder appears whole, or not at all.
    store = output.with_name(f"{output.name}.answers.sqlite")
    planned = plan(corpus, asked, settings, store)
    if dry_run and json:
        print_json(_estimate(planned, settings))
        return
    (out if dry_run else err).print(_planned(planned, settings), markup=False, soft_wrap=True)
    if dry_run:
        return
    if api is not None and planned.open.requests and not yes:
        _confirm()
    made = written(corpus, asked, settings, store)
    made.corpus.save(output, replace=force)
    if not made.unanswered:
        store.unlink()
    if json:
        print_json(_document(made, planned, settings, output))
    else:
        _print(made, settings, output, store)


def _asked(
    api: str | None,
    model: str | None,
    base: str | None,
    temperature: float,
    of_api: dict[str, Any],
    seed: int | None,
) -> "Asked":
    from loratelier.corpus.synthesize import Api

    given = {name: value for name, value in of_api.items() if value is not None}
    if base is None:
        if api is None or model is None:
            raise InputError(
                "Nobody to ask was named", "Give --api URL and --model NAME, or --base"
            )
        if seed is not None:
            raise InputError("--seed is for --base", "Leave it away")
        return Api(api, model, temperature=temperature, **given)
    if api is not None or model is not None:
        raise InputError("--api and --base are two ways to the same", "Give one of them")
    if given:
        option = "--" + next(iter(given)).replace("_", "-")
        raise InputError(f"{option} is for --api", "Leave it away")
    from loratelier.base import load_base
    from loratelier.corpus.synthesize.local import Local

    return Local(load_base(base), temperature=temperature, seed=seed or 0)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise InputError(
            "This is to be paid for, and nobody can be asked", "Add --yes, or --dry-run to see"
        )
    if not typer.confirm("Go on?", err=True):
        raise InputError("Nothing was asked for")


def _planned(planned: "Plan", settings: "Settings") -> str:
    before = f"{planned.answered} of {planned.requests} requests are answered already. "
    again = f"; what does not fit is asked for again, {settings.corrections} times at most"
    return (
        (before if planned.answered else "")
        + f"To be asked for, estimated: {planned.open.line(settings.rates)}"
        + (again if settings.corrections else "")
    )


def _estimate(planned: "Plan", settings: "Settings") -> dict[str, Any]:
    return {
        "estimate": _cost(planned.open, settings.rates),
        "requests": planned.requests,
        "answered_before": planned.answered,
    }


def _cost(cost: "Cost", rates: "Rates") -> dict[str, Any]:
    return {
        "requests": cost.requests,
        "prompt_tokens": cost.prompt_tokens,
        "answer_tokens": cost.answer_tokens,
        "estimated": cost.estimated,
        "price": cost.price(rates),
    }


def _document(
    made: "Synthesized", planned: "Plan", settings: "Settings", output: Path
) -> dict[str, Any]:
    (*_, note) = made.corpus.report.syntheses
    return {
        **made.corpus.report.counts(),
        **_estimate(planned, settings),
        "failed": made.failed,
        "unanswered": made.unanswered,
        "reasons": note.reasons,
        "this_run": _cost(made.now, settings.rates),
        "in_all": _cost(made.all, settings.rates),
        "hash": made.corpus.hash,
        "path": str(output),
    }


def _print(made: "Synthesized", settings: "Settings", output: Path, store: Path) -> None:
    (*_, note) = made.corpus.report.syntheses
    _line(f"{note.rows} rows from {note.items} requests; {note.failed} gave nothing usable")
    for why, number in note.reasons.items():
        _line(f"  {number}: {why}")
    if made.corpus.report.held_out:
        _line(f"{made.corpus.report.held_out} held-out rows stay as they are")
    _line(f"This run: {made.now.line(settings.rates)}")
    if made.all != made.now:
        _line(f"With earlier runs: {made.all.line(settings.rates)}")
    if made.unanswered:
        _line(
            f"{made.unanswered} requests got no answer. The same with --force asks for these "
            f"alone: the others are kept in {store}"
        )
    _line(f"Corpus: {output}")


def _line(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)
