"""``loratelier train``: from a corpus to an adapter in the store."""

from pathlib import Path
from typing import Annotated

import typer

from loratelier.cli.console import Json, out, print_json
from loratelier.kit.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="train")(_train)


def _train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe in YAML; or give --corpus, --base and --name.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="A corpus folder.")] = None,
    base: Annotated[
        str | None, typer.Option(help="'demo', a hub id, a folder, or a GGUF file.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The adapter's name in the store.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe key: --set rank=16"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an adapter of that name.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Say beside the bar how it goes: held-out loss, drift, share of peak."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train an adapter on a corpus and put it into the store.

    Recipe keys for --set: base corpus name objective seed rank alpha targets layers epochs
    max_steps learning_rate batch_tokens max_length holdout patience guards.drift_budget
    guards.strength guards.replay guards.replay_kl guards.kl guards.token_mask guards.norm; of
    objective dpo: beta label_smoothing sft_weight; of distill: distill.teacher distill.file
    distill.top distill.temperature distill.hard.
    """
    from loratelier.train.recipe_file import load_recipe, parse_set

    named = {"corpus": corpus, "base": base, "name": name}
    given = {key: str(value) for key, value in named.items() if value is not None}
    if recipe is None and len(given) < len(named):
        missing = ", ".join(f"--{key}" for key in named if key not in given)
        raise InputError(f"There is no recipe, and {missing} is missing", "Give one or the other")
    loaded = load_recipe(recipe, given | parse_set(changes or []))

    from loratelier.train.run import train

    adapter = train(loaded, replace=force, resume=resume, watch=watch)
    metrics = adapter.card.metrics
    if json:
        print_json(
            {
                "name": adapter.name,
                "effect": adapter.has_effect,
                "sites": len(adapter.sites),
                "parameters": adapter.parameters,
                "metrics": metrics,
            }
        )
        return
    out.print(f"Adapter '{adapter.name}' is in the store.", markup=False)
    if "held_out_nll" in metrics:
        out.print(
            f"  Held-out loss per token  {metrics['held_out_nll_base']:.4f} -> "
            f"{metrics['held_out_nll']:.4f} ({metrics['held_out_nll_change']:+.1%}), "
            f"{metrics['held_out_tokens']:,} tokens"
        )
    if "held_out_margin" in metrics:
        out.print(
            f"  Held-out DPO loss        {metrics['held_out_loss_base']:.4f} -> "
            f"{metrics['held_out_loss']:.4f}, margin {metrics['held_out_margin']:+.3f}, "
            f"{metrics['held_out_accuracy']:.0%} preferred rightly",
            soft_wrap=True,
        )
    if "held_out_kl" in metrics:
        out.print(
            f"  KL from the teacher      {metrics['held_out_kl_base']:.4f} -> "
            f"{metrics['held_out_kl']:.4f} nats a token"
        )
    out.print(
        f"  General text, bits/byte  {metrics['general_bpb_base']:.4f} -> "
        f"{metrics['general_bpb']:.4f} ({metrics['general_bpb_change']:+.2%})"
    )
    worn = f" at strength {metrics['strength']:.4g}" if metrics["strength"] != 1 else ""
    out.print(
        f"  {metrics['steps']} steps, the state of step {metrics['kept_step']} kept{worn}, "
        f"{metrics['tokens_per_second']} tokens/s"
    )
    if not adapter.has_effect:
        out.print("  It has no effect: its update is zero everywhere.")
    out.print(f"Wear it: loratelier chat {adapter.name}", markup=False)
