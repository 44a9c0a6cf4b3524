"""``loratelier adapters``: what is in the store."""

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, err, megabytes, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.adapter import Adapter
    from loratelier.adapter.store import Entry

app = typer.Typer(help="The store of adapters.", no_args_is_help=True)

NO_EFFECT = "no effect: its update is zero everywhere"

Force = Annotated[bool, typer.Option("--force", help="Replace what stands there.")]


@app.command(name="list")
def _list(json: Json = False) -> None:
    """List the adapters; a damaged one is listed with what is wrong."""
    from rich.table import Table

    from loratelier.adapter import store

    entries = store.entries()
    if json:
        print_json([_row(entry) for entry in entries])
        return
    if not entries:
        err.print(
            "The store is empty. `loratelier train` or `loratelier adapters import` fills it."
        )
        return
    table = Table("Adapter", "Base", "Rank", "Layers", "Size", "Remark", box=None, pad_edge=False)
    for entry in entries:
        adapter = entry.adapter
        if adapter is None:
            table.add_row(entry.name, "", "", "", "", f"damaged: {entry.error}")
            continue
        base = adapter.card.base.name or "unproven"
        remark = "" if adapter.has_effect else NO_EFFECT
        size = megabytes(adapter.bytes)
        rank = str(adapter.rank) if _has_rank(adapter) else "-"
        table.add_row(entry.name, base, rank, str(len(adapter.sites)), size, remark)
    out.print(table)


def _has_rank(adapter: "Adapter") -> bool:
    return bool(adapter.tensors or adapter.extras.experts)


def _row(entry: "Entry") -> dict[str, Any]:
    if entry.adapter is None:
        return {"name": entry.name, "error": entry.error}
    return {"name": entry.name, "error": None, **_facts(entry.adapter)}


@app.command(name="show")
def _show(
    name: Annotated[str, typer.Argument(help="A name in the store, or a folder.")],
    json: Json = False,
) -> None:
    """Show where an adapter comes from, where it sits, and what was measured."""
    from loratelier.adapter import store

    adapter = store.open(name)
    card = adapter.card
    if json:
        print_json({"name": name, **_facts(adapter), "card": card.model_dump(mode="json")})
        return
    base = f"{card.base.name} ({card.base.fingerprint})" if card.proven else "unproven: no card"
    lines = [
        ("Base", base),
        ("Rank, alpha", f"{adapter.rank}, {adapter.settings.alpha:g}")
        if _has_rank(adapter)
        else ("Rank, alpha", "none: whole modules in place of the base's"),
        ("Sits in", _places(adapter)),
        ("Parameters", f"{adapter.parameters:,} ({megabytes(adapter.bytes)})"),
        ("Digest", adapter.digest),
    ]
    if card.corpus:
        corpus = card.corpus
        lines.append(("Corpus", f"{corpus.rows} rows, {len(corpus.files)} files, {corpus.hash}"))
    if "held_out_nll" in card.metrics:
        m = card.metrics
        lines += [
            (
                "Held-out loss",
                f"{m['held_out_nll_base']:.4f} -> {m['held_out_nll']:.4f} nats a token "
                f"({m['held_out_nll_change']:+.1%})",
            ),
        ]
    if "held_out_margin" in card.metrics:
        m = card.metrics
        lines.append(
            (
                "Held-out DPO loss",
                f"{m['held_out_loss_base']:.4f} -> {m['held_out_loss']:.4f}, margin "
                f"{m['held_out_margin']:+.3f}, {m['held_out_accuracy']:.0%} preferred rightly",
            )
        )
    if "general_bpb" in card.metrics:
        m = card.metrics
        lines.append(
            (
                "General text",
                f"{m['general_bpb_base']:.4f} -> {m['general_bpb']:.4f} bits a byte "
                f"({m['general_bpb_change']:+.2%})",
            )
        )
    if card.strength is not None:
        lines.append(("Strength", f"{card.strength:g}, recommended by calibration"))
    if card.method and card.truncation_error is not None:
        lines.append(("Merged", f"{card.method}, truncation error {card.truncation_error:.2%}"))
    lines += [("Parent", _parent(parent)) for parent in card.parents]
    lines += [("Made", card.created or "unknown")]
    if not adapter.has_effect:
        lines.append(("Effect", NO_EFFECT))
    width = max(len(label) for label, _ in lines) + 2
    for label, text in lines:
        out.print(f"{label:<{width}}{text}", markup=False, soft_wrap=True)


@app.command(name="verify")
def _verify(
    name: Annotated[str, typer.Argument(help="A name in the store, or a folder.")],
    base: Annotated[
        str | None, typer.Option(help="Also see whether it fits this base.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Check an adapter's files, and whether it fits a base; exit status 1 says that it does not."""
    from loratelier.adapter import Adapter, store
    from loratelier.base import load_base, with_tokens

    folder = store.find(name)
    loaded = None if base is None else load_base(base)
    try:
        adapter = Adapter.load(folder)
        if loaded is not None:
            adapter.require_fit(with_tokens(loaded, adapter.card.tokens))
    except InputError as error:
        if json:
            print_json({"name": name, "base": base, "passed": False, "error": str(error)})
        else:
            out.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    facts = _facts(adapter)
    if json:
        print_json({"name": name, "base": base, "passed": True, "error": None, **facts})
        return
    fit = f", and it fits {loaded.name}" if loaded is not None else ""
    out.print(f"'{name}' is whole{fit}.", markup=False)
    _print_remarks(adapter)


def _print_remarks(adapter: "Adapter") -> None:
    if adapter.ignored:
        names = ", ".join(adapter.ignored)
        out.print(f"Beside it lies what is never read: {names}", markup=False, soft_wrap=True)
    if not adapter.card.proven:
        out.print("It has no card of ours: unproven for any base, checked by its shapes when worn.")
    if not adapter.has_effect:
        out.print(f"It has {NO_EFFECT}.")


@app.command(name="import")
def _import(
    path: Annotated[Path, typer.Argument(help="A PEFT adapter's folder.")],
    name: Annotated[str, typer.Option(help="The name that it gets in the store.")],
    force: Force = False,
    json: Json = False,
) -> None:
    """Bring an adapter into the store, checked; code and tokenizers beside it are left behind."""
    from loratelier.adapter import store

    adapter = store.import_adapter(path, name, replace=force)
    if json:
        print_json({"name": name, **_facts(adapter)})
        return
    out.print(f"'{name}' is in the store.", markup=False)
    _print_remarks(adapter)


@app.command(name="export")
def _export(
    name: Annotated[str, typer.Argument(help="A name in the store.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, for PEFT and every other.")],
    merged: Annotated[
        bool,
        typer.Option("--merged", help="Write the whole base with the adapter in its weights."),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(help="The base for --merged; without it the one that the card names."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write an adapter out as a PEFT folder with its card, or a base with it in its weights."""
    from loratelier.adapter import store

    if merged:
        _export_merged(name, folder, base, force=force, json=json)
        return
    if base is not None:
        raise InputError("--base is there to merge the adapter into", "Say --merged too")
    written = store.export_adapter(name, folder, replace=force)
    if json:
        print_json({"name": name, "folder": str(written)})
        return
    out.print(f"'{name}' is written to {written}", markup=False, soft_wrap=True)


def _export_merged(name: str, folder: Path, base: str | None, *, force: bool, json: bool) -> None:
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.compose import merge_and_unload

    worn = store.open(name)
    spec = base or worn.card.base.spec
    if spec is None:
        raise InputError(f"The card of '{name}' names no base", "Give it with --base")
    strength = worn.card.strength or 1.0
    done = merge_and_unload(load_base(spec), {worn: strength}, folder, replace=force)
    if json:
        facts = {"worn": done.worn, "reloaded": done.reloaded, "lost": done.lost}
        print_json({"name": name, "folder": str(done.folder), "strength": strength, **facts})
        return
    out.print(
        f"The base with '{name}' (strength {strength:g}) is written to {done.folder}; read back, "
        f"its logits are within {done.reloaded:.1e}, and rounding lost {done.lost:.2%} of the "
        "update.",
        markup=False,
        soft_wrap=True,
    )


@app.command(name="remove")
def _remove(
    name: Annotated[str, typer.Argument(help="A name in the store.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete an adapter from the store."""
    from loratelier.adapter import store

    if not yes:
        store.require_stored(name)
        if not sys.stdin.isatty():
            raise InputError(f"'{name}' would be deleted for good", "Say --yes")
        typer.confirm(f"Delete '{name}' for good?", abort=True)
    store.remove(name)
    if json:
        print_json({"name": name, "removed": True})
        return
    out.print(f"'{name}' is gone.", markup=False)


def _parent(parent: dict[str, Any]) -> str:
    """Say an adapter's parent: its name with its weight in a merge, else what the card says."""
    if {"name", "weight", "digest"} <= parent.keys():
        return f"{parent['name']} × {parent['weight']} ({parent['digest']})"
    return str(parent)


def _facts(adapter: "Adapter") -> dict[str, Any]:
    return {
        "base": adapter.card.base.name,
        "fingerprint": adapter.card.base.fingerprint,
        "proven": adapter.card.proven,
        "rank": adapter.rank,
        "alpha": adapter.settings.alpha,
        "sites": list(adapter.sites),
        "parameters": adapter.parameters,
        "bytes": adapter.bytes,
        "digest": adapter.digest,
        "effect": adapter.has_effect,
        "ignored": list(adapter.ignored),
    }


def _places(adapter: "Adapter") -> str:
    """Say which kinds of layers at which depths: ``q_proj, v_proj in layers 0-29``."""
    layers: dict[str, set[int]] = defaultdict(set)
    for site in adapter.sites:
        numbers = re.findall(r"\.(\d+)\.", site)
        layers[site.rsplit(".", 1)[-1]].add(int(numbers[0]) if numbers else -1)
    by_depth: dict[str, list[str]] = defaultdict(list)
    for kind, depths in layers.items():
        by_depth[_ranges(sorted(depths))].append(kind)
    return "; ".join(f"{', '.join(kinds)} in layers {depth}" for depth, kinds in by_depth.items())


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
