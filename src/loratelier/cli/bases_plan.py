"""``loratelier bases plan``: what training a base takes, before it is here."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, out, print_json
from loratelier.kit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from loratelier.base.plan import MemoryPlan, Method
    from loratelier.base.plan.figures import Gpu, Shape

_DTYPES = ("auto", "float32", "bfloat16")
_GIB = 2**30


def register(app: typer.Typer) -> None:
    """Add the verb to ``loratelier bases``."""
    app.command(name="plan")(_plan)


def _plan(
    spec: Annotated[
        str,
        typer.Argument(help="A base, a folder, a config.json; or 1b, 7b, 30b-a3b or 70b."),
    ],
    method: Annotated[
        str | None, typer.Option(help="lora, qlora or full; all of them without it.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=1024, help="Of the adapter.")] = 8,
    targets: Annotated[
        str | None, typer.Option(help="As in a recipe: all, or q,v, or all,head.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="As in a recipe: 20-29.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the base: auto, float32 or bfloat16.")] = "auto",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a step.")] = 512,
    pack: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens at once in memory: 1024 on a CPU, 16384 on a GPU."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the longest row, which is never cut."),
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations a second time.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(help="A GPU by name, or cpu; all that we know without it.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Shared out over so many (FSDP).")] = 1,
    json: Json = False,
) -> None:
    """Say what training takes in memory and time, from a config alone.

    Memory is counted on the model without its weights. Time is an estimate from figures.
    """
    from loratelier.base.plan import Training, plan_training
    from loratelier.base.plan.figures import shape_of

    methods = _methods(method)
    on_cpu = gpu is not None and gpu.lower() == "cpu"
    if on_cpu and gpus > 1:
        raise InputError("--gpus shares a run out over GPUs, and cpu is none", "Leave one out")
    shape = shape_of(spec)
    places = _places(gpu)
    asked = Training(
        rank=rank,
        targets=targets.replace(",", " ").split() if targets else None,
        layers=_numbers(layers),
        batch_tokens=batch_tokens,
        pack_tokens=pack,
        longest=max_length,
        checkpointing=checkpointing,
        device="cpu" if on_cpu else "cuda",
        gpus=gpus,
    )
    plans: dict[tuple[Method, bool], MemoryPlan] = {}
    for each in methods:
        # A chip without bfloat16 trains in float32, but for what is not packed in 4 bits.
        for half in sorted({_has_half(place, each) for place in places}, reverse=True):
            wanted = replace(asked, method=each, dtype=_dtype(dtype, half))
            plans[each, half] = plan_training(shape.config, wanted)
    if json:
        print_json(_document(shape, plans, places))
        return
    _print(shape, plans, places)


def _methods(word: str | None) -> "tuple[Method, ...]":
    methods: tuple[Method, ...] = ("lora", "qlora", "full")
    chosen = tuple(method for method in methods if word in (None, method))
    if not chosen:
        raise InputError(f"There is no method '{word}'", did_you_mean(word or "", methods))
    return chosen


def _places(name: str | None) -> "list[Gpu]":
    from loratelier.base.plan import figures, machine

    if name is None:
        return list(figures.gpus().values())
    return [machine.this_cpu() if name.lower() == "cpu" else figures.gpu(name)]


def _has_half(place: "Gpu", method: str) -> bool:
    return place.bf16 is not None or method != "lora"


def _dtype(word: str, half: bool) -> Any:
    import torch

    if word not in _DTYPES:
        raise InputError(f"There is no dtype '{word}' here", did_you_mean(word, _DTYPES))
    if word == "auto":
        return None if half else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[word]


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from loratelier.train.recipe import layer_numbers

    if text is None or text == "all":
        return None
    try:
        return layer_numbers(text)
    except ValueError as error:
        raise InputError(f"--layers: {error}") from error


def _gib(size: int) -> str:
    return f"{size / _GIB:,.1f}" if size >= 0.05 * _GIB else f"{size / _GIB:.3f}"


def _count(number: int) -> str:
    return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:,.1f}M"


def _seconds(number: float) -> str:
    return f"{number:,.0f} s" if number >= 100 else f"{number:.2g} s"


def _verdict(plan: "MemoryPlan", place: "Gpu") -> str:
    """Return whether a run fits, and else how many of the GPUs hold it."""
    if plan.total <= place.memory:
        return "fits"
    if place.name == "cpu":
        return "does not fit"
    needed = plan.needed(place.memory)
    return f"{needed} GPUs" if needed else "no"


def _print(
    shape: "Shape", plans: "dict[tuple[Method, bool], MemoryPlan]", places: "list[Gpu]"
) -> None:
    from rich.table import Table

    from loratelier.base.plan.pace import SHARE

    columns = {key: plan for key, plan in plans.items() if key[1] or len(places) == 1}
    first = next(iter(plans.values()))
    active = f", {_count(first.active)} of them for a token" * (first.active < first.parameters)
    out.print(f"{shape.name}: {_count(first.parameters)} parameters{active}", markup=False)
    out.print(f"{first.tokens:,} tokens at once, all learned; figures in GiB", end="")
    out.print(f", for each of {first.gpus} GPUs" if first.gpus > 1 else "")
    parts = Table("", *[f"{key[0]} {plan.dtype}" for key, plan in columns.items()], box=None)
    for part in first.parts:
        sizes = [plan.parts[part] for plan in columns.values()]
        if any(sizes):
            parts.add_row(part, *[_gib(size) if size else "–" for size in sizes])
    parts.add_row("together", *[_gib(plan.total) for plan in columns.values()])
    parts.add_row("the most at", *[plan.fullest.name for plan in columns.values()])
    parts.add_row("trained", *[_count(plan.trained) for plan in columns.values()])
    out.print(parts)
    fits = Table("", "GiB", *[method for method, _ in columns], box=None)
    for place in places:
        cells = []
        for method, _ in columns:
            plan = plans[method, _has_half(place, method)]
            cells.append(f"{_verdict(plan, place)}, {_seconds(plan.burden.on(place).seconds)}")
        fits.add_row(place.name, _gib(place.memory), *cells)
    out.print(fits)
    whose = "this machine's product, measured now" if places[0].name == "cpu" else "makers' figures"
    out.print(
        f"Seconds are an estimate for 1,000 learned tokens on one of them at {SHARE:.0%} of the "
        f"peak ({whose}), not measured.",
        soft_wrap=True,
    )


def _document(
    shape: "Shape", plans: "dict[tuple[Method, bool], MemoryPlan]", places: "list[Gpu]"
) -> dict[str, Any]:
    from loratelier.base.plan.figures import gpu_source
    from loratelier.base.plan.pace import SHARE

    return {
        "base": shape.name,
        "source": shape.source,
        "figures": gpu_source(),
        "share_of_peak": SHARE,
        "plans": [
            {
                "method": plan.method,
                "dtype": plan.dtype,
                "gpus": plan.gpus,
                "tokens_at_once": plan.tokens,
                "targets_at_once": plan.targets,
                "parameters": plan.parameters,
                "active_parameters": plan.active,
                "trained_parameters": plan.trained,
                "total_bytes": plan.total,
                "fullest": plan.fullest.name,
                "moments": [
                    {"name": moment.name, "total_bytes": moment.total, "parts": dict(moment.parts)}
                    for moment in plan.moments
                ],
                "on": [
                    {
                        "name": place.name,
                        "memory_bytes": place.memory,
                        "fits": plan.total <= place.memory,
                        "needed": plan.needed(place.memory) if place.name != "cpu" else None,
                        "seconds_per_1000_tokens": pace.seconds,
                        "bound_by": pace.bound,
                        "estimated_from_figures": True,
                    }
                    for place in places
                    if _has_half(place, method) == half
                    for pace in [plan.burden.on(place)]
                ],
            }
            for (method, half), plan in plans.items()
        ],
    }
