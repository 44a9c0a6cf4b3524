"""The root command: assembles the verbs and turns errors into one line and an exit status."""

import os
import sys
import warnings
from typing import Annotated

import typer

from loratelier import __version__
from loratelier.cli import (
    adapters,
    bases,
    calibrate,
    chat,
    check,
    compose,
    corpus,
    demo,
    edit,
    gateway,
    influence,
    init,
    inspect,
    library,
    reason,
    route,
    serve,
    studio,
    teach,
    train,
)
from loratelier.cli.console import err, out
from loratelier.cli.reporting import reporter
from loratelier.kit.errors import InputError
from loratelier.kit.progress import report_to

app = typer.Typer(
    name="loratelier",
    help="A workshop for LoRA adapters: notes in, adapter out, seen and worn.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

init.register(app)
app.add_typer(corpus.app, name="corpus")
app.add_typer(bases.app, name="bases")
train.register(app)
teach.register(app)
app.add_typer(adapters.app, name="adapters")
inspect.register(app)
influence.register(app)
reason.register(app)
compose.register(app)
app.add_typer(route.app, name="route")
app.add_typer(library.app, name="library")
edit.register(app)
check.register(app)
calibrate.register(app)
chat.register(app)
serve.register(app)
gateway.register(app)
studio.register(app)
demo.register(app)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", is_eager=True),
    ] = False,
) -> None:
    if version:
        out.print(f"loratelier {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; exit 0 done, 1 a check said no, 2 bad input or usage."""
    # Libraries' own bars and warnings would drown ours; a person who wants them sets these.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # The reader of GGUF files draws a bar of its own, which only this variable turns off.
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    try:
        # Of several processes that a launcher started, one speaks.
        if int(os.environ.get("RANK", "0")) > 0:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
            err.file = sys.stderr
        with report_to(reporter()):
            app()
    except InputError as error:
        err.print(f"loratelier: {error}", markup=False, soft_wrap=True, style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("loratelier: stopped", markup=False)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if os.environ.get("LORATELIER_DEBUG"):
            raise
        err.print(
            f"loratelier: this is a fault of ours: {type(error).__name__}: {error}. "
            "Set LORATELIER_DEBUG=1 to see where",
            markup=False,
            soft_wrap=True,
            style="red",
        )
        sys.exit(3)
