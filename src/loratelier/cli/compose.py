"""``loratelier merge`` and ``loratelier compare``: adapters that meet."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.adapter import Adapter
    from loratelier.compose import Conflict

_CLASHES = 8  # that the terminal shows; the JSON document has them all


def register(app: typer.Typer) -> None:
    """Add the verbs to the root command."""
    app.command(name="merge")(_merge)
    app.command(name="compare")(_compare)


def _merge(
    adapters: Annotated[list[str], typer.Argument(help="Adapters with weights: A=0.5 B=0.5")],
    name: Annotated[str, typer.Option(help="The name that the result gets in the store.")],
    method: Annotated[
        str,
        typer.Option(help="linear, nlerp, slerp, ties, dare, della, knots, iso or cat."),
    ] = "linear",
    rank: Annotated[
        int | None, typer.Option(help="Of the result; without it the exact rank stays.")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries that stay (ties, dare, della, knots).")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Half the range of keep probabilities (della).")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="sign-after-weights or sign-before-weights (ties, della, knots)."),
    ] = None,
    combine: Annotated[str | None, typer.Option(help="ties or linear (knots).")] = None,
    seed: Annotated[int, typer.Option(help="Of what is dropped by chance, and checked.")] = 0,
    base: Annotated[
        str | None, typer.Option(help="Also hold the merged logits to the mixture's on this base.")
    ] = None,
    and_unload: Annotated[
        Path | None,
        typer.Option(help="Also write the base with the result in its weights here; needs --base."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    json: Json = False,
) -> None:
    """Merge adapters into one, checked, with what its rank cost."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.compose import merge_adapters, merge_and_unload

    target = store.path_of(name)
    if target.exists() and not force:
        raise InputError(f"There is an adapter '{name}'", "Choose another name, or say --force")
    if and_unload is not None and base is None:
        raise InputError("--and-unload writes a whole base", "Give it with --base")
    loaded = load_base(base) if base is not None else None
    weighted: dict[Adapter, float] = {}
    for adapter, weight in map(_weighted, adapters):
        if adapter in weighted:
            raise InputError(f"'{adapter.name}' is given twice", "Add its weights up")
        weighted[adapter] = weight
    merged = merge_adapters(
        weighted,
        method=method,
        rank=rank,
        name=name,
        density=density,
        epsilon=epsilon,
        variant=variant,
        combine=combine,
        seed=seed,
        base=loaded,
    )
    merged.save(target, replace=force)
    if and_unload is not None and loaded is not None:
        done = merge_and_unload(loaded, {merged: 1.0}, and_unload, replace=force)
        err.print(
            f"The base with '{name}' is written to {done.folder}; read back, its logits are within "
            f"{done.reloaded:.1e}.",
            markup=False,
            soft_wrap=True,
        )
    card = merged.card
    if json:
        facts = {"name": name, "method": method, "rank": merged.rank, "basis": card.basis}
        print_json(
            facts
            | {"truncation_error": card.truncation_error, "parents": card.parents}
            | {"digest": merged.digest, "effect": merged.has_effect, **card.merge}
        )
        return
    held = ", ".join(check["name"] for check in card.merge["checks"])
    out.print(
        f"'{name}' is in the store: {method} of {len(weighted)}, rank {merged.rank}, "
        f"truncation error {card.truncation_error:.2%}. Held: {held}.",
        markup=False,
        soft_wrap=True,
    )
    if not merged.has_effect:
        out.print("It has no effect: the updates cancel.")


def _weighted(text: str) -> tuple["Adapter", float]:
    """Read ``NAME=WEIGHT``; a name may hold '=' itself, as a path may."""
    from loratelier.adapter import store

    name, given, weight = text.rpartition("=")
    if not given:
        raise InputError(f"'{text}' has no weight", f"Write {text}=1")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"The weight of '{name}' is '{weight}'", "It is a number, such as 0.5")
    return store.open(name), number


def _compare(
    adapters: Annotated[list[str], typer.Argument(help="Two or more: names, or folders.")],
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out",
            metavar="NAME=CORPUS",
            help="An adapter's corpus, whose held-out rows are read; for each adapter.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base to read with; untold the one of the cards.")
    ] = None,
    merged: Annotated[
        str | None, typer.Option(help="An adapter that was made of them, to read with too.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the matrix to this SVG.")] = None,
    sites: Annotated[
        Path | None, typer.Option(help="Write the first two, site by site, to this SVG.")
    ] = None,
    language: Annotated[str, typer.Option(help="Of the pictures: en or ru.")] = "en",
    json: Json = False,
) -> None:
    """Say how adapters conflict: whether to merge them, mix them softly, or route."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.compose import compare_adapters
    from loratelier.compose.picture import by_site, matrix
    from loratelier.corpus import Corpus
    from loratelier.kit.files import write_atomic

    if language not in ("en", "ru"):
        raise InputError(f"There is no language '{language}'", "It is en or ru")
    opened = {name: store.open(name) for name in adapters}
    rows = {}
    for text in held_out or []:
        name, given, folder = text.partition("=")
        if not given or name not in opened:
            raise InputError(f"--held-out '{text}' names none of the adapters", "NAME=CORPUS")
        rows[opened[name]] = Corpus.load(folder)
    if base is not None and not rows:
        raise InputError("--base is there to read held-out rows with", "Give --held-out too")
    spec = base or next((a.card.base.spec for a in opened.values() if a.card.base.spec), None)
    if rows and spec is None:
        raise InputError("No card names a base", "Give it with --base")
    found = compare_adapters(
        list(opened.values()),
        base=load_base(spec) if rows and spec is not None else None,
        held_out=rows or None,
        merged=store.open(merged) if merged is not None else None,
    )
    for path, draw in ((picture, matrix), (sites, by_site)):
        if path is not None:
            write_atomic(path, draw(found).to_svg(language))
            err.print(f"Picture: {path}", markup=False, soft_wrap=True)
    if json:
        print_json(found.to_json())
    else:
        _print(found)


def _print(found: "Conflict") -> None:
    from rich.table import Table

    out.print(found.advice.sentence, style="bold", markup=False, soft_wrap=True)
    table = Table("One", "Other", "Cosine", "Overlap", "Signs that cancel", box=None)
    for one, name in enumerate(found.names):
        for other in range(one + 1, len(found.names)):
            table.add_row(
                name,
                found.names[other],
                f"{found.cosine[one][other]:+.3f}",
                f"{found.overlap[one][other]:.3f}",
                f"{found.sign_conflict[one][other]:.1%}",
            )
    out.print(table)
    if found.interference:
        ways = list(found.interference[0].nll)
        losses = Table("Held-out rows of", *ways, box=None, title="Nats a token")
        for each in found.interference:
            losses.add_row(each.adapter, *(f"{each.nll[way]:.4f}" for way in ways))
        out.print(losses)
    count = len(found.clashes)
    out.print(f"Sites where two act strongly and disagree: {count}")
    for clash in found.clashes[:_CLASHES]:
        pair = " × ".join(found.names[place] for place in clash.pair)
        figures = f"cosine {clash.cosine:+.3f}, signs {clash.sign_conflict:.1%}"
        out.print(f"  {clash.site}: {pair}, {figures}", markup=False)
