"""``loratelier check``: what an adapter broke, and what can be done about it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.check.against import Compared
    from loratelier.check.finding import Finding, Verdict


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="check")(_check)


def _check(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or an adapter's folder.")],
    base: Annotated[
        str | None, typer.Option(help="The base; without it the one that the card names.")
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Its corpus; without it the one of the home that the card names."),
    ] = None,
    behaviour: Annotated[
        Path | None,
        typer.Option(help="Behaviour tests; without it the behaviour.yaml that it brings along."),
    ] = None,
    meaning: Annotated[
        Path | None,
        typer.Option(help="A file of scenes to tell and read back; scenes it did not learn."),
    ] = None,
    reader: Annotated[
        str | None, typer.Option(help="The adapter that reads scenes; without it the checked one.")
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="A YAML file laid over the default thresholds.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare with the verdict on this card or adapter.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="From -2 to 4; 1 is as trained.", show_default="the card's, or 1"),
    ] = None,
    items: Annotated[int, typer.Option(help="Items of each task.")] = 40,
    seed: Annotated[int, typer.Option(help="Draws the tasks.")] = 0,
    language: Annotated[
        Literal["en", "ru"], typer.Option(help="In which language the sentences are printed.")
    ] = "en",
    json: Json = False,
) -> None:
    """Check what an adapter does where it was not asked; exit status 1 says that something failed.

    The verdict is written on the adapter's card.
    """
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.check import check_adapter, load_thresholds
    from loratelier.check.against import compare_verdicts, earlier_verdict
    from loratelier.check.behaviour import load_behaviour, parse_behaviour
    from loratelier.check.meaning.trip import read_scenes
    from loratelier.check.own import find_corpus
    from loratelier.corpus import Corpus

    folder = store.find(adapter)
    worn = store.open(adapter)
    # Read first: it may be the very card that is written at the end.
    earlier = earlier_verdict(against) if against is not None else None
    limits = load_thresholds(thresholds)
    tests = None
    if behaviour is not None:
        tests = load_behaviour(behaviour)
    elif worn.behaviour is not None:
        tests = parse_behaviour(worn.behaviour, str(folder / "behaviour.yaml"))
    if reader is not None and meaning is None:
        raise InputError("--reader reads scenes, and there are none", "Give --meaning FILE")
    scenes = read_scenes(meaning) if meaning is not None else ()
    reads = store.open(reader) if reader is not None else None
    place = corpus or find_corpus(worn)
    own = Corpus.load(place) if place else None
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
    if own is None:
        err.print("Its corpus is not here, so nothing is said of its own rows: give --corpus.")
    worn_at = strength if strength is not None else (worn.card.strength or 1.0)
    verdict = check_adapter(
        load_base(spec),
        worn,
        corpus=own,
        behaviour=tests,
        scenes=scenes,
        reader=reads,
        thresholds=limits,
        strength=worn_at,
        items=items,
        seed=seed,
    )
    compared = compare_verdicts(earlier, verdict) if earlier is not None else ()
    store.update_card(folder, {"verdict": verdict.for_card()})
    if json:
        print_json(_document(verdict, compared))
    else:
        _print(verdict, compared, language)
    if not verdict.passed:
        raise typer.Exit(1)


def _document(verdict: "Verdict", compared: "tuple[Compared, ...]") -> dict[str, Any]:
    from dataclasses import asdict

    return verdict.to_json() | {"against": [asdict(one) for one in compared] or None}


def _print(verdict: "Verdict", compared: "tuple[Compared, ...]", language: str) -> None:
    from rich.table import Table
    from rich.text import Text

    steps = {one.name: one.step for one in compared}
    table = Table(title=f"'{verdict.adapter}' on {verdict.base}, strength {verdict.strength:g}")
    for name in ("Finding", "Figure", "95%", "Limit", "Verdict"):
        table.add_column(name, justify="right" if name in ("Figure", "95%", "Limit") else "left")
    if compared:
        table.add_column("Against")
    for one in verdict.findings:
        style = "red" if not one.passed else ""
        row = [one.title[language], *_figures(one), _word(one)]
        row += [steps.get(one.name, "")] if compared else []
        table.add_row(*(Text(cell, style=style) for cell in row))
    out.print(table)
    for one in verdict.findings:
        if one.threshold is None and one.passed:
            out.print(one.sentence[language], markup=False)
    for one in verdict.reasons:
        out.print(one.sentence[language], style="red", markup=False)
        if one.remedy:
            out.print(f"  → {one.remedy[language]}", markup=False)
    if not verdict.effect:
        out.print("The adapter changes nothing: every change is exactly zero.")
    said = "passed" if verdict.passed else f"FAILED, {len(verdict.reasons)} reasons"
    out.print(f"{said}; {verdict.seconds:.0f} s; written on the card", style="bold", markup=False)


def _figures(one: "Finding") -> tuple[str, str, str]:
    interval = "" if one.interval is None else f"{one.interval[0]:.3g}..{one.interval[1]:.3g}"
    return (
        "" if one.figure is None else f"{one.figure:.3g}",
        interval,
        "" if one.threshold is None else f"{one.threshold:g}",
    )


def _word(one: "Finding") -> str:
    if not one.passed:
        return "failed"
    if one.threshold is None:
        return "told"
    return "passed, within noise" if one.noise else "passed"
