"""``loratelier calibrate``: how strongly an adapter is best worn."""

from pathlib import Path
from typing import Annotated

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="calibrate")(_calibrate)


def _calibrate(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or an adapter's folder.")],
    base: Annotated[
        str | None, typer.Option(help="The base; without it the one that the card names.")
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Its corpus; without it the one of the home that the card names."),
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="A YAML file laid over the default thresholds.")
    ] = None,
    store_it: Annotated[
        bool, typer.Option("--store", help="Write the strength on the card, as its default.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure gain and drift at strengths from 0 to 1.5, and recommend one."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.check import calibrate, load_thresholds
    from loratelier.check.curve import RULE, picture
    from loratelier.check.own import find_corpus
    from loratelier.corpus import Corpus

    folder = store.find(adapter)
    worn = store.open(adapter)
    place = corpus or find_corpus(worn)
    if place is None:
        raise InputError(
            f"The corpus of '{worn.name}' is not here, so no gain can be measured",
            "Give it with --corpus",
        )
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
    seen = calibrate(
        load_base(spec), worn, Corpus.load(place), thresholds=load_thresholds(thresholds)
    )
    stored = store_it and seen.knee is not None
    if stored:
        store.update_card(folder, {"strength": seen.knee})
    if json:
        print_json(seen.to_json() | {"stored": stored})
        return
    out.print(picture(seen), markup=False, soft_wrap=True)
    if seen.knee is None:
        err.print("No strength gains anything within the threshold: none is recommended.")
        return
    out.print(f"Recommended: {seen.knee:g}. {RULE}.", markup=False)
    if stored:
        out.print("Written on the card: `chat`, `inspect` and `check` wear it so by default.")
