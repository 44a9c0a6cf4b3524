"""``loratelier demo``: the whole road on the sample vault."""

from typing import TYPE_CHECKING, Any

import typer

from loratelier.cli.console import Json, out, print_json

if TYPE_CHECKING:
    from loratelier.demo import Demo
    from loratelier.serve import Turn


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="demo")(_demo)


def _demo(json: Json = False) -> None:
    """Walk the whole road on the sample vault: notes, corpus, adapter, report, answers.

    The first run fetches a small English base (93 MB) and trains for some minutes; a second one
    reuses what exists.
    """
    from loratelier.demo import run_demo

    demo = run_demo()
    if json:
        print_json(_document(demo))
    else:
        _print(demo)


def _document(demo: "Demo") -> dict[str, Any]:
    figures = demo.figures
    return {
        "base": demo.base.name,
        "fingerprint": demo.base.fingerprint,
        "corpus": {"path": str(demo.corpus_folder), **demo.corpus.report.counts()},
        "adapter": demo.adapter.name,
        "reused": demo.reused,
        "held_out_tokens": figures.held_out.tokens,
        "held_out_nll_base": figures.held_out_base.nll,
        "held_out_nll": figures.held_out.nll,
        "held_out_nll_change": figures.gain,
        "general_bpb_base": figures.general_base,
        "general_bpb": figures.general,
        "general_bpb_change": figures.drift,
        "answers": [
            {
                "question": both.question,
                "base": both.base.content,
                "adapter": both.adapter.content,
            }
            for both in demo.answers
        ],
        "report": str(demo.report),
        "seconds": round(demo.seconds, 1),
    }


def _print(demo: "Demo") -> None:
    from rich.table import Table

    from loratelier.demo import SAMPLING

    figures = demo.figures
    table = Table(show_lines=True, expand=True, title="Three questions that the vault never asked")
    table.add_column("Question", ratio=2)
    table.add_column("The base", ratio=5)
    table.add_column(f"The base wearing '{demo.adapter.name}'", ratio=5)
    for both in demo.answers:
        cells = (both.question, both.base, both.adapter)
        table.add_row(*(_plain(cell) for cell in cells))
    out.print(table)
    if not demo.adapter.has_effect:
        out.print("The adapter has no effect: its update is zero everywhere.")
    out.print(
        f"Both drew their words alike: temperature {SAMPLING.temperature:g}, repetition penalty "
        f"{SAMPLING.repetition_penalty:g}, seed {SAMPLING.seed}."
    )
    out.print("Measured in this run:", style="bold")
    out.print(
        f"  held-out dialogues, negative log-likelihood per token: "
        f"{figures.held_out_base.nll:.3f} -> {figures.held_out.nll:.3f} nats "
        f"({figures.gain:+.1%}) on {figures.held_out.tokens:,} tokens"
    )
    out.print(
        f"  general English text, bits per byte: {figures.general_base:.4f} -> "
        f"{figures.general:.4f} ({figures.drift:+.2%})"
    )
    out.print(f"The report: {demo.report}", markup=False, soft_wrap=True)
    out.print(f"Talk to it:  loratelier chat {demo.adapter.name}", markup=False)


def _plain(said: "str | Turn") -> Any:
    from rich.text import Text

    if isinstance(said, str):
        return Text(said)
    return Text(said.content.strip() + ("" if said.stopped == "end" else " ..."))
