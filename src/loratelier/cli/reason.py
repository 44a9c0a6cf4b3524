"""``loratelier reason``: how an adapter changes chains of thought, and what answers rest on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from loratelier.cli.console import Json, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.scope.reasoning import Chains, Difference, Problem
    from loratelier.scope.reasoning.chains import Test
    from loratelier.scope.reasoning.problems import Kind


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="reason")(_reason)


def _reason(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or an adapter's folder.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt of your own; may be given many times.")
    ] = None,
    problems: Annotated[
        list[str] | None,
        typer.Option(
            help="Drawn problems, KIND or KIND:COUNT: arithmetic, order, transitive, if-then."
        ),
    ] = None,
    language: Annotated[
        Literal["en", "ru"], typer.Option(help="The language of drawn problems.")
    ] = "en",
    seed: Annotated[int, typer.Option(help="What the problems are drawn from.")] = 0,
    times: Annotated[int, typer.Option(help="How often each is thought about.")] = 1,
    before: Annotated[
        str | None, typer.Option(help="Compare with this adapter instead of the base.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.6,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a chain.")] = 160,
    tests: Annotated[
        str, typer.Option(help="Of early,mistake,paraphrase,filler; 'none' leaves them out.")
    ] = "early,mistake,paraphrase,filler",
    structures: Annotated[
        Path | None, typer.Option(help="A folder of structures to look for, instead of ours.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base; without it the one that the card names.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Plain text, no chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    strength: Annotated[float, typer.Option(help="From -2 to 4; 1 is as trained.")] = 1.0,
    json: Json = False,
) -> None:
    """Compare how the base and an adapter think, drawing both from the same random numbers.

    Length, structures, where the chains part, whether answers change, and by four tests how far an
    answer rests on its chain. What rose or fell is said only where it stands out from noise.
    """
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.scope.change import Change
    from loratelier.scope.reasoning import look_at_chains
    from loratelier.scope.reasoning.structure import read_structures

    if times < 1:
        raise InputError(f"times is {times}", "Think once or more")
    asked = _asked(prompt or [], problems or [], language, seed)
    sought = read_structures(structures) if structures else None
    worn = store.open(adapter)
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
    change = Change(
        load_base(spec),
        worn,
        before=store.open(before) if before else None,
        strength=strength,
    )
    seen = look_at_chains(
        change,
        asked,
        seeds=range(times),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        tests=[] if tests == "none" else [cast("Test", t.strip()) for t in tests.split(",")],
        structures=sought,
        raw=raw,
        system=system,
    )
    if json:
        print_json(seen.to_json())
    else:
        _print(seen)


def _asked(
    own: list[str], drawn: list[str], language: Literal["en", "ru"], seed: int
) -> "list[Problem]":
    from loratelier.scope.reasoning import problems, prompts

    asked = list(prompts(own))
    for each in drawn:
        kind, _, count = each.partition(":")
        if count and not count.isdigit():
            raise InputError(f"--problems {each}: '{count}' is no number", "Write arithmetic:12")
        asked += problems(cast("Kind", kind), int(count or 12), seed, language)
    if not asked:
        raise InputError("There is nothing to think about", "Give --prompt or --problems")
    return asked


def _print(seen: "Chains") -> None:
    from rich.table import Table
    from rich.text import Text

    if not seen.effect:
        out.print("Nothing can change: before and after are the same.", style="bold")
        return
    chains = len(seen.pairs)
    parts = [pair for pair in seen.pairs if pair.parts_at is not None]
    common = sum(pair.common for pair in seen.pairs) / chains
    out.print(
        f"{chains} chains a side, drawn from the same random numbers: {len(parts)} part, after "
        f"{common:.0%} of their length on average.",
        style="bold",
        markup=False,
    )
    if seen.answers_changed is not None:
        out.print(f"The answer changes in {seen.answers_changed:.0%} of those that give one.")
    _print_claims(seen.claims)
    table = Table(expand=True, title="Before and after, means over problems")
    table.add_column("")
    for name in ("Before", "After", "Change", "95% interval"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in seen.figures.values():
        figures = (f"{one.before:.3g}", f"{one.after:.3g}", f"{one.change:+.3g}")
        table.add_row(Text(one.name), *figures, _interval(one), one.claim)
    out.print(table)
    for curve in seen.curves:
        rates = "  ".join(f"{p.share:.0%} {p.before:.2f}→{p.after:.2f}" for p in curve.points)
        out.print(f"{curve.test}: same answer at {rates}  ({curve.chains} chains)", markup=False)


def _print_claims(claims: "tuple[Difference, ...]") -> None:
    for one in claims:
        out.print(f"{one.name} {one.claim}: {one.before:.3g} → {one.after:.3g}", markup=False)
    if not claims:
        out.print("Nothing that was measured stands out from noise.")


def _interval(one: "Difference") -> str:
    return (
        f"{one.low:+.3g} … {one.high:+.3g}" if one.low is not None and one.high is not None else ""
    )
