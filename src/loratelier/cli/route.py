"""``loratelier route``: which adapter would be worn for a text, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from loratelier.cli.console import Json, out, print_json

if TYPE_CHECKING:
    from loratelier.route import Decision, Policy, Router


class _TextOrVerb(TyperGroup):
    """Takes what is no verb of its own for the text that a decision is wanted for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb ``explain`` before arguments that begin with none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["explain", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_TextOrVerb,
    no_args_is_help=True,
    help="Explain which adapter a text would be answered with: loratelier route TEXT",
)


@app.command("explain")
def _explain(
    text: Annotated[str, typer.Argument(help="What a person says.")],
    policy: Annotated[
        Path | None, typer.Option(help="The policy; none: signals of the store's adapters.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="An adapter or role that is named.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Only this adapter may be worn; several times.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Without a policy: only adapters that fit this base.")
    ] = None,
    json: Json = False,
) -> None:
    """Explain a decision (`loratelier route TEXT` is the same)."""
    router = _router(policy, base)
    decision = router.route(text, name=name, allowed=allow)
    if json:
        print_json(decision.to_json())
    else:
        _print(decision)


@app.command("train")
def _train(
    policy: Annotated[Path, typer.Option(help="The policy, whose adapters have corpora.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The router's folder.")],
    base: Annotated[str | None, typer.Option(help="Without it the policy's.")] = None,
    rank: Annotated[int, typer.Option(help="Of the router.")] = 8,
    seed: Annotated[int, typer.Option(help="Of its first weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a router there.")] = False,
    json: Json = False,
) -> None:
    """Train the low-rank router on the base's hidden states."""
    from loratelier.base import load_base
    from loratelier.kit.errors import InputError
    from loratelier.route.learned import train_router
    from loratelier.route.requests import asked_of

    if output.exists() and not force:
        raise InputError(f"{output} exists already", "Choose another folder, or say --force")
    read = _policy(policy)
    spec = base or read.base
    if spec is None:
        raise InputError(f"{policy} names no base", "Give it with --base")
    router = train_router(load_base(spec), asked_of(read), rank=rank, seed=seed)
    router.save(output, replace=force)
    facts = router.facts
    if json:
        print_json(facts.model_dump())
        return
    out.print(f"Router: {output}", markup=False, soft_wrap=True)
    held = sum(facts.held.values())
    right = "none" if facts.accuracy is None else f"{facts.accuracy:.1%} of {held} held-out rows"
    out.print(f"Parameters: {facts.parameters}, rank {facts.rank}. Right: {right}", markup=False)


@app.command("eval")
def _eval(
    policy: Annotated[Path, typer.Option(help="The policy, whose adapters have corpora.")],
    base: Annotated[
        str | None, typer.Option(help="Also measure what reads this base's hidden states.")
    ] = None,
    worn: Annotated[
        bool, typer.Option("--worn", help="Also wear the adapters: Arrow, shares of the oracle.")
    ] = False,
    most: Annotated[int, typer.Option(help="Held-out requests of each adapter.", min=1)] = 20,
    json: Json = False,
) -> None:
    """Measure the stages beside other ways to choose, on held-out rows."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.route.evaluate import evaluate

    read = _policy(policy)
    rules = read.adapters.items() if worn else ()
    found = evaluate(
        read,
        base=load_base(base) if base is not None else None,
        adapters={name: store.open(rule.path or name) for name, rule in rules},
        most=most,
    )
    if json:
        print_json(found.to_json())
        return
    from rich.table import Table

    heads = ("Top-1", "Top-3", "Of the oracle", "Own masked", "Abstention AUROC", "ms")
    table = Table("Method", *heads, box=None)
    for line in found.lines:
        shares = (line.top1, line.top3, line.share, line.masked, line.auroc)
        cells = ["—" if value is None else f"{value:.3f}" for value in shares]
        time = "—" if line.milliseconds is None else f"{line.milliseconds:.2f}"
        table.add_row(line.method, *cells, time)
    out.print(table)
    counts = ", ".join(f"{name} {count}" for name, count in found.requests.items())
    out.print(f"Held-out requests: {counts}; general {found.general}", markup=False)


def _policy(path: Path) -> "Policy":
    from loratelier.kit.errors import InputError
    from loratelier.route.policy import read_policy

    try:
        return read_policy(path, path.read_bytes())
    except OSError as error:
        raise InputError(f"There is no policy {path}") from error


def _router(policy: Path | None, base: str | None) -> "Router":
    from loratelier.adapter import Adapter, store
    from loratelier.kit.errors import InputError
    from loratelier.route import Router

    if policy is not None:
        if base is not None:
            raise InputError("--base is for `route` without a policy", "The policy names its base")
        return Router.load(policy)
    if base is None:
        return Router.auto(store.names())
    from loratelier.base import load_base, with_tokens

    loaded = load_base(base)
    fitting = []
    for each in store.names():
        try:
            adapter = Adapter.outline(store.find(each))
        except InputError:
            continue
        if adapter.fits(with_tokens(loaded, adapter.card.tokens)):
            fitting.append(each)
    return Router.auto(fitting)


def _print(decision: "Decision") -> None:
    from rich.table import Table

    worn = ", ".join(f"{name} ×{gate:g}" for name, gate in (decision.mix or {}).items())
    out.print(worn or "the base", style="bold", markup=False)
    out.print(decision.reason, markup=False, soft_wrap=True)
    out.print(f"Stage {decision.stage}, confidence {decision.confidence:.2f}", markup=False)
    if decision.role:
        out.print(f"Role: {decision.role}", markup=False)
    table = Table("Stage", "Found", "Note", box=None)
    for each in decision.considered:
        ranked = sorted(each.scores.items(), key=lambda score: -score[1])[:3]
        found = ", ".join(f"{name} {score:.2f}" for name, score in ranked)
        table.add_row(each.stage, found or "—", each.note)
    out.print(table)
    for warning in decision.warnings:
        out.print(f"! {warning}", markup=False, soft_wrap=True)
