"""``loratelier library``: notes that are looked up while an adapter keeps the voice."""

from pathlib import Path
from typing import Annotated

import typer

from loratelier.cli.console import Json, out, print_json

app = typer.Typer(no_args_is_help=True, help="Notes to be looked up: build, search, list.")


@app.command("build")
def _build(
    sources: Annotated[list[Path], typer.Argument(help="Notes, or one corpus folder.")],
    name: Annotated[str, typer.Option(help="What it is to be called.")],
    embed: Annotated[
        str | None, typer.Option(help="An embedding model: a folder or a name. None: words alone.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace one of that name.")] = False,
    json: Json = False,
) -> None:
    """Make a library of notes, or of a corpus that was built."""
    from loratelier.corpus import Corpus
    from loratelier.serve.library import build_library, read_notes

    is_corpus = len(sources) == 1 and (sources[0] / "manifest.json").exists()
    corpora = [Corpus.load(sources[0])] if is_corpus else read_notes(sources)
    library = build_library(corpora, name, embed=embed, replace=force)
    if json:
        print_json({"name": name, "path": str(library.path), **library.facts})
        return
    facts = library.facts
    out.print(f"Library '{name}': {facts['pieces']} pieces of {facts['files']} files", markup=False)


@app.command("search")
def _search(
    name: Annotated[str, typer.Argument(help="A library.")],
    text: Annotated[str, typer.Argument(help="What is asked.")],
    k: Annotated[int, typer.Option("-k", help="How many pieces at most.")] = 4,
    json: Json = False,
) -> None:
    """Show the pieces that say most of what is asked."""
    from loratelier.serve.library import Library

    found = Library.open(name).search(text, k)
    if json:
        print_json({"library": name, "found": [each.to_json() for each in found]})
        return
    if not found:
        out.print("Nothing in it has these words.", markup=False)
    for number, each in enumerate(found, start=1):
        piece = each.piece
        span = f":{piece.start}-{piece.end}" if piece.start is not None else f" {piece.item}"
        out.print(f"[{number}] {piece.file}{span.rstrip()}", markup=False)
        out.print(f"    {piece.text[:300]}", markup=False)


@app.command("list")
def _list(json: Json = False) -> None:
    """Show what there is."""
    from loratelier.serve.library.library import Library, names

    found = [{"name": name, **Library.open(name).facts} for name in names()]
    if json:
        print_json({"libraries": found})
        return
    for each in found:
        out.print(f"{each['name']}: {each['pieces']} pieces of {each['files']} files", markup=False)
