"""``loratelier teach``: ask a teacher, and keep what it expects in a file."""

from pathlib import Path
from typing import Annotated

import typer

from loratelier.cli.console import Json, out, print_json


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="teach")(_teach)


def _teach(
    recipe: Annotated[Path, typer.Argument(help="A recipe of objective distill, with a teacher.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The parquet file to write.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe key: --set distill.top=64"),
    ] = None,
    json: Json = False,
) -> None:
    """Write down what a recipe's teacher expects at every learned place of its corpus.

    So a larger machine can ask the teacher: the file takes its place where the adapter is trained,
    with --set distill.teacher=null --set distill.file=FILE.
    """
    from loratelier.train.recipe_file import load_recipe, parse_set

    loaded = load_recipe(recipe, parse_set(changes or []))

    from loratelier.train.teacher import teach

    written = teach(loaded, output)
    if json:
        print_json({"file": str(written), "bytes": written.stat().st_size})
        return
    out.print(f"Written: {written}", markup=False, soft_wrap=True)
