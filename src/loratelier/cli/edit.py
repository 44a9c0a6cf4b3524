"""``loratelier edit`` and ``loratelier edits``: probabilities set by hand, and taken off again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratelier.cli.console import Json, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.adapter import Adapter
    from loratelier.edit import Edit

_BARE = ("none", "base")

edits = typer.Typer(help="Edits that adapters wear: list, stack, undo.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs to the root command."""
    app.command(name="edit")(_edit)
    app.add_typer(edits, name="edits")


def _edit(
    adapter: Annotated[str, typer.Argument(help="A name, a folder, or 'none' for the base.")],
    prompt: Annotated[str, typer.Option(help="The text before what is set.")],
    wanted: Annotated[
        list[str],
        typer.Option("--set", metavar="TEXT=P", help="What comes next with which probability."),
    ],
    name: Annotated[str, typer.Option(help="The name that the result gets in the store.")],
    base: Annotated[str | None, typer.Option(help="The base; untold the one of the card.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat template.")] = False,
    paraphrase: Annotated[
        list[str] | None, typer.Option(help="Another wording, to be reported on.")
    ] = None,
    spread: Annotated[
        bool | None,
        typer.Option("--spread/--no-spread", help="Whether it should hold after those as well."),
    ] = None,
    neighbour: Annotated[
        list[str] | None, typer.Option(help="A prompt to be left alone, beside our own ones.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="A corpus whose texts are to be left alone.")
    ] = None,
    budget: Annotated[float, typer.Option(help="KL elsewhere that it may cost, in nats.")] = 0.01,
    norm: Annotated[float, typer.Option(help="Its largest share of the weight's norm.")] = 0.25,
    within: Annotated[float, typer.Option(help="How far off still counts as reached.")] = 0.02,
    layer: Annotated[
        list[int] | None, typer.Option(help="A layer to try, instead of ours.")
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Keep the edit by itself, to be stacked later.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    json: Json = False,
) -> None:
    """Set what comes next after a prompt. Exit 1 when the wish cannot be met within the limits."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.edit import set_distribution

    target = _free(name, force)
    asked = _asked(wanted)
    worn = None if adapter in _BARE else store.open(adapter)
    spec = base or (worn.card.base.spec if worn is not None else None)
    if spec is None:
        whose = f"The card of '{worn.name}' names no base" if worn else "No base is named"
        raise InputError(whose, "Give it with --base")
    edit = set_distribution(
        load_base(spec),
        worn,
        prompt,
        asked,
        chat=chat,
        paraphrases=paraphrase or (),
        spread=spread,
        neighbours=neighbour or (),
        own=_texts(corpus) if corpus is not None else (),
        layers=layer,
        budget=budget,
        norm=norm,
        within=within,
        name=name,
    )
    (edit.alone if alone else edit.adapter).save(target, replace=force)
    if json:
        print_json(edit.to_json())
    else:
        _print(edit, name)
    if not edit.met:
        raise typer.Exit(1)


def _free(name: str, force: bool) -> Path:
    from loratelier.adapter import store

    target = store.path_of(name)
    if target.exists() and not force:
        raise InputError(f"There is an adapter '{name}'", "Choose another name, or say --force")
    return target


def _asked(wanted: list[str]) -> dict[str | int, float]:
    """Read ``TEXT=P``; a text may hold '=' itself, and its blanks count."""
    asked: dict[str | int, float] = {}
    for each in wanted:
        text, given, chance = each.rpartition("=")
        try:
            number = float(chance)
        except ValueError:
            number = -1.0
        if not given or not text or number == -1.0:
            raise InputError(f"'{each}' is no wish", 'Write --set " token=0.6"')
        if text in asked:
            raise InputError(f"'{text}' is asked for twice", "Give it one probability")
        asked[text] = number
    return asked


def _texts(folder: Path) -> list[str]:
    from loratelier.corpus import Corpus

    texts = []
    for row in Corpus.load(folder).rows.to_pylist():
        messages = row.get("messages") or []
        texts += [row["text"]] if row.get("text") else [each["content"] for each in messages]
    return texts


def _print(edit: "Edit", name: str) -> None:
    from rich.table import Table

    headline, *rest = edit.sentences
    out.print(headline, style="bold", markup=False, soft_wrap=True)
    for sentence in rest:
        out.print(sentence, markup=False, soft_wrap=True)
    if edit.paraphrases:
        table = Table("Other wording", "Text", "Before", "After", box=None)
        for each in edit.paraphrases:
            for text, after in each.after.items():
                table.add_row(each.prompt, text, f"{each.before[text]:.1%}", f"{after:.1%}")
        out.print(table)
    out.print(f"'{name}' is in the store.", markup=False, soft_wrap=True)


@edits.command("list")
def _list(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or a folder.")],
    json: Json = False,
) -> None:
    """List the edits that an adapter wears, oldest first."""
    from loratelier.adapter import store
    from loratelier.edit import edits_of

    found = edits_of(store.open(adapter))
    if json:
        print_json(found)
        return
    if not found:
        out.print(f"'{adapter}' wears no edits.", markup=False)
    for each in found:
        rank = sum(each["ranks"].values())
        for asked in each["asked"]:
            wishes = ", ".join(f"'{text}' {chance:g}" for text, chance in asked["set"].items())
            line = f"{each['name']} (rank {rank}): after '{asked['prompt']}' {wishes}"
            out.print(line, markup=False, soft_wrap=True)


@edits.command("stack")
def _stack(
    adapter: Annotated[str, typer.Argument(help="A name, a folder, or 'none' for the base.")],
    parts: Annotated[list[str], typer.Argument(help="Edits by themselves, made with --alone.")],
    name: Annotated[str, typer.Option(help="The name that the result gets in the store.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    json: Json = False,
) -> None:
    """Put edits on top of an adapter."""
    from loratelier.adapter import store
    from loratelier.edit import stack

    target = _free(name, force)
    worn = None if adapter in _BARE else store.open(adapter)
    _keep(stack(worn, [store.open(part) for part in parts], name), target, force, json)


@edits.command("undo")
def _undo(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or a folder.")],
    name: Annotated[str, typer.Option(help="The name that the result gets in the store.")],
    parts: Annotated[
        list[str] | None, typer.Argument(help="Which edits to take off; untold, all.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    json: Json = False,
) -> None:
    """Take edits off an adapter; without all of them it is the old one to the last bit."""
    from loratelier.adapter import store
    from loratelier.edit import unstack

    target = _free(name, force)
    _keep(unstack(store.open(adapter), parts or None, name=name), target, force, json)


@edits.command("sites")
def _sites(
    adapter: Annotated[str, typer.Argument(help="A name in the store, or a folder.")],
    name: Annotated[str, typer.Option(help="The name that the result gets in the store.")],
    scale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE=F", help="Strength of sites, as '*.layers.11.*=0.5'; 0 removes."
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE=N,N", help="Directions of a site to take out; 1 is strongest."),
    ] = None,
    intruders: Annotated[
        bool, typer.Option("--drop-intruders", help="Take out what the base's weights never had.")
    ] = False,
    base: Annotated[str | None, typer.Option(help="The base; untold the one of the card.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    json: Json = False,
) -> None:
    """Change an adapter site by site: strengths, directions, intruder dimensions."""
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.edit import drop_directions, drop_intruders, scale_sites

    target = _free(name, force)
    if not (scale or drop or intruders):
        raise InputError("Nothing is to be changed", "Give --scale, --drop or --drop-intruders")
    worn = result = store.open(adapter)
    if scale:
        strengths = {site: _number(given) for site, given in map(_pair, scale)}
        result = scale_sites(result, strengths, name=name)
    if drop:
        numbers = {
            site: [int(_number(n)) for n in given.split(",")] for site, given in map(_pair, drop)
        }
        result = drop_directions(result, numbers, name=name)
    if intruders:
        spec = base or worn.card.base.spec
        if spec is None:
            raise InputError(f"The card of '{worn.name}' names no base", "Give it with --base")
        result = drop_intruders(load_base(spec), result, name=name)
    _keep(result, target, force, json)


def _pair(text: str) -> tuple[str, str]:
    site, given, value = text.rpartition("=")
    if not given or not site:
        raise InputError(f"'{text}' has no value", "Write SITE=VALUE")
    return site, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"'{text}' is no number") from None


def _keep(adapter: "Adapter", target: Path, force: bool, json: bool) -> None:
    from loratelier.edit import edits_of

    adapter.save(target, replace=force)
    names = [each["name"] for each in edits_of(adapter)]
    if json:
        print_json({"name": target.name, "digest": adapter.digest, "edits": names})
        return
    worn = f"with {len(names)} edits" if names else "without edits"
    out.print(f"'{target.name}' is in the store, {worn}, rank {adapter.rank}.", markup=False)
