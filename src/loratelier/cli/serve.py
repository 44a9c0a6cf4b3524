"""``loratelier serve``: every adapter of the store behind the OpenAI API."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratelier.cli.console import Json, err, print_json

if TYPE_CHECKING:
    from loratelier.serve.api.server import Served

ADMIN = "LORATELIER_ADMIN_KEY"


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="serve")(_serve)


def _serve(
    base: Annotated[str, typer.Option(help="The base: demo, a hub id, a folder, a GGUF file.")],
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="What `auto` goes by; of several the first. None: signals alone."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Who may ask, what for and how much; none: everyone.")
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option(help="Opens the admin paths, which are not there otherwise.", envvar=ADMIN),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="What the base is called as a model; untold its name."),
    ] = None,
    quantization: Annotated[str | None, typer.Option(help="As for load_base: nf4.")] = None,
    library: Annotated[
        list[str] | None,
        typer.Option(help="A library that requests may look into; may be given several times."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Most tokens of an answer that says nothing of it.", min=1)
    ] = 512,
    timeout: Annotated[float, typer.Option(help="Seconds that an answer may take.", min=1)] = 600,
    grace: Annotated[
        float, typer.Option(help="Seconds for running answers when it is stopped.", min=0)
    ] = 20,
    json: Json = False,
) -> None:
    """Serve every adapter of the store that fits the base, until Ctrl-C or SIGTERM."""
    from loratelier.base import load_base
    from loratelier.serve.api.server import Served, ServeSettings
    from loratelier.serve.engine import Engine

    settings = ServeSettings(
        host=host,
        port=port,
        policies=tuple(policy or ()),
        key_file=key_file,
        admin_key=admin_key,
        model=model,
        default_tokens=max_tokens,
        seconds=timeout,
        grace=grace,
        libraries=tuple(library or ()),
    )
    loaded = load_base(base, quantization=quantization) if quantization else base
    served = Served(loaded, settings, Engine)
    served.run(lambda: _tell(served, json))


def _tell(served: "Served", json: bool) -> None:
    wardrobe = served.api.wardrobe
    if json:
        print_json(
            {
                "url": served.url,
                "pid": os.getpid(),
                "base": wardrobe.base_name,
                "adapters": sorted(wardrobe.names),
            }
        )
        sys.stdout.flush()
    names = ", ".join(sorted(wardrobe.names)) or "none"
    err.print(f"Serving {wardrobe.base_name} at {served.url}/v1; adapters: {names}", markup=False)
