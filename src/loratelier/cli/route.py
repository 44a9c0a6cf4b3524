"""``loratelier route``: which adapter would be worn for a text, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from loratelier.cli.console import Json, out, print_json

if TYPE_CHECKING:
    from loratelier.route import Decision, Router


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
