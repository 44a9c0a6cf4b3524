"""``loratelier studio``: the page."""

import os
from pathlib import Path
from typing import Annotated

import typer

from loratelier.cli.console import Json, err, out, print_json


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="studio")(_studio)


def _studio(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 0,
    home: Annotated[
        Path | None, typer.Option(help="The home folder; without it LORATELIER_HOME.")
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address and open nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Serve the page on this machine: corpora, training, looking, editing, dialogue."""
    from loratelier.kit.home import VARIABLE
    from loratelier.studio import serve_page

    if home is not None:
        os.environ[VARIABLE] = str(home)

    def ready(address: str, port: int) -> None:
        if json:
            print_json({"address": address, "port": port})
        else:
            out.print(address, markup=False, soft_wrap=True)
            err.print("Open this address in a browser; Ctrl-C ends the server.")

    serve_page(port, browser=not no_browser, ready=ready)
