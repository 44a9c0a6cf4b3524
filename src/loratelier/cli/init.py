"""``loratelier init``: four questions, a recommendation, and a recipe to begin with."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loratelier.cli.console import Json, err, out, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.base.plan.figures import Gpu
    from loratelier.corpus import Corpus
    from loratelier.train.advice import Offer, Texts

_GIB, _MIB = 2**30, 2**20
_ASSISTANT, _USER = "assistant", "user"


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="init")(_init)


def _init(
    voice: Annotated[
        str | None,
        typer.Option(help="Whose voice: me, assistant, or a speaker's name in chats."),
    ] = None,
    texts: Annotated[
        list[Path] | None, typer.Option(help="Which texts: files, folders; several times.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Which base; 'auto' recommends one.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Which machine: this one, or a GPU by name (h100).")
    ] = None,
    name: Annotated[str, typer.Option(help="What the adapter is to be called.")] = "mine",
    hours: Annotated[
        float, typer.Option(help="How long training may take at most, for 'auto'.", min=0.01)
    ] = 2.0,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The folder for the corpus and the recipe.")
    ] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, take what is offered.")] = False,
    json: Json = False,
) -> None:
    """Ask whose voice, which texts, which base and which machine; write a corpus and a recipe."""
    from loratelier.train.advice import offers, recommended, texts_of

    asks = not yes and not json and sys.stdin.isatty()
    recipe, folder = output / f"{name}.yaml", output / f"{name}-corpus"
    for target in (recipe, folder):
        if target.exists():
            raise InputError(f"{target} is there already", "Choose another --name or --output")
    whose = _answer(voice, "Whose voice (me, assistant, or a name)?", _ASSISTANT, asks)
    given = texts or ([Path(_typed("Which texts (a file or a folder)?"))] if asks else None)
    if not given:
        raise InputError("No texts are named", "Give them: loratelier init --texts ~/notes")
    corpus = _corpus(given, whose)
    held = texts_of(corpus)
    place = _place(_answer(machine, "Which machine (this, or a GPU by name)?", "this", asks))
    wanted = base or "auto"
    found = offers(held, place, None if wanted == "auto" else _named(wanted))
    chosen = recommended(found, hours) if wanted == "auto" else found[0]
    if not json:
        _tell(held, place, found, chosen)
    if asks and wanted == "auto":
        wanted = str(typer.prompt("Which base?", default=chosen.base.spec))
        if wanted != chosen.base.spec:
            (chosen,) = offers(held, place, _named(wanted))
    if asks and not typer.confirm("Write the corpus and the recipe?", default=True):
        raise typer.Exit
    corpus.save(folder)
    _write(recipe, _recipe(chosen, name, folder, held, place))
    next_step = f"loratelier train {recipe}"
    if json:
        print_json(_document(held, place, found, chosen, recipe, folder, next_step))
        return
    out.print(f"Written: {folder}, {recipe}. Next: {next_step}", markup=False, soft_wrap=True)


def _answer(given: str | None, question: str, otherwise: str, asks: bool) -> str:
    if given is not None or not asks:
        return given or otherwise
    return str(typer.prompt(question, default=otherwise))


def _typed(question: str) -> str:
    return str(Path(str(typer.prompt(question))).expanduser())


def _corpus(texts: list[Path], whose: str) -> "Corpus":
    from loratelier.corpus import build_corpus

    sources = [path.expanduser() for path in texts]
    if whose in (_ASSISTANT, "me", _USER):
        learn = _ASSISTANT if whose == _ASSISTANT else _USER
        try:
            return build_corpus(sources, learn=learn, holdout=0.15)
        except InputError:
            # Texts that are no dialogue have one voice.
            return build_corpus(sources, format="raw", holdout=0.15)
    return build_corpus(sources, learn=_USER, speaker=whose, holdout=0.15)


def _place(machine: str) -> "Gpu":
    import torch

    from loratelier.base.plan import figures
    from loratelier.base.plan.machine import this_cpu

    if machine not in ("this", "cpu"):
        return figures.gpu(machine)
    if machine == "this" and torch.cuda.is_available():
        try:
            return figures.gpu(torch.cuda.get_device_name())
        except InputError:
            err.print("We have no figures of this GPU: the plan is for the CPU", markup=False)
    return this_cpu()


def _named(spec: str) -> Any:
    from loratelier.base.known import Known, known_bases
    from loratelier.base.plan.figures import shape_of

    for known in known_bases():
        if known.spec == spec:
            return [known]
    shape = shape_of(spec)
    # What it reads is not known to us; the person who names it knows.
    return [Known(spec, shape.name, ("en", "ru"), "see its card", shape.config.to_json_string())]


def _tell(texts: "Texts", place: "Gpu", found: "list[Offer]", chosen: "Offer") -> None:
    from rich.table import Table

    from loratelier.base.known import known_source

    spoken = ", ".join(texts.languages) or "no language that we know"
    out.print(
        f"{texts.rows} rows, {texts.characters:,} characters, about {texts.tokens:,} tokens; "
        f"{spoken}. Machine: {place.name}, {place.memory / _GIB:.1f} GiB.",
        markup=False,
        soft_wrap=True,
    )
    table = Table("", "base", "reads", "method", "memory", "time, at most", "adapter", box=None)
    for offer in found:
        table.add_row(
            "*" if offer is chosen else "",
            offer.base.spec,
            " ".join(offer.base.languages),
            offer.method,
            f"{offer.memory / _GIB:.1f} GiB" + ("" if offer.fits else ", too much"),
            _time(offer.seconds),
            f"{offer.adapter / _MIB:.0f} MB",
        )
    out.print(table)
    out.print(f"Times and memory are estimates. {known_source()}", markup=False, soft_wrap=True)
    if chosen.base.spec == "demo":
        out.print("The demo base is for trying the road: it is small, and English only.")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _recipe(chosen: "Offer", name: str, corpus: Path, texts: "Texts", place: "Gpu") -> str:
    from loratelier.train.advice import BATCH, EPOCHS, RANK

    packed = "quantization: nf4      # the base in 4 bits: it would not fit otherwise\n"
    return (
        f"# {texts.rows} rows, about {texts.tokens:,} tokens ({', '.join(texts.languages)}).\n"
        f"# On {place.name}: about {chosen.memory / _GIB:.1f} GiB, {_time(chosen.seconds)} at most,"
        f" an adapter of {chosen.adapter / _MIB:.0f} MB. Estimates.\n"
        f"base: {chosen.base.spec}\n"
        f"corpus: {corpus.name}\n"
        f"name: {name}\n\n"
        f"{packed if chosen.method == 'qlora' else ''}"
        f"rank: {RANK}                # the width of the update; 4 to 32 for a voice\n"
        f"alpha: {2 * RANK}              # the update is scaled by alpha / rank\n"
        f"epochs: {EPOCHS}              # at most: it ends when the held-out loss stops falling\n"
        f"learning_rate: 5e-4\n"
        f"batch_tokens: {BATCH}     # whole rows packed into one step\n"
        f"max_length: 2048       # a longer row is left out and named, never cut\n"
        f"guards:\n"
        f"  drift_budget: 0.02   # bits per byte on general English may rise by 2%\n"
    )


def _write(path: Path, text: str) -> None:
    from loratelier.kit.files import write_atomic
    from loratelier.train import load_recipe

    write_atomic(path, text)
    load_recipe(path)  # what is written is what training takes


def _document(
    texts: "Texts",
    place: "Gpu",
    found: "list[Offer]",
    chosen: "Offer",
    recipe: Path,
    corpus: Path,
    next_step: str,
) -> dict[str, Any]:
    def told(offer: "Offer") -> dict[str, Any]:
        return {
            "base": offer.base.spec,
            "languages": list(offer.base.languages),
            "licence": offer.base.licence,
            "method": offer.method,
            "memory_bytes": offer.memory,
            "seconds": offer.seconds,
            "adapter_bytes": offer.adapter,
            "fits": offer.fits,
            "reads": offer.reads,
        }

    return {
        "rows": texts.rows,
        "characters": texts.characters,
        "tokens": texts.tokens,
        "languages": list(texts.languages),
        "machine": {"name": place.name, "memory_bytes": place.memory},
        "offers": [told(offer) for offer in found],
        "recommended": told(chosen),
        "recipe": str(recipe),
        "corpus": str(corpus),
        "next": next_step,
    }
