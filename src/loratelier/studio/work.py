"""What a job does: the same functions that the command line calls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from loratelier.kit.errors import InputError
from loratelier.kit.home import room
from loratelier.kit.models import Strict
from loratelier.studio.jobs import Kind

Result = dict[str, Any]


class CorpusArgs(Strict):
    """What building a corpus takes; see ``loratelier corpus build``."""

    name: str
    sources: list[str]
    learn: str = "assistant"
    format: str = "chat"
    script: str | None = None
    language: str | None = None
    replace: bool = False


class TrainArgs(Strict):
    """What a training takes: a corpus of the home, a base, a name, and recipe keys by dots."""

    name: str
    corpus: str
    base: str
    set: dict[str, Any] = Field(default_factory=dict)
    replace: bool = False


class CheckArgs(Strict):
    """What a check takes; see ``loratelier check``."""

    adapter: str
    items: int = 40


def corpus_folder(name: str) -> Path:
    """Return the folder of a corpus of the home, whether it is there or not.

    Raises:
        InputError: a name that could be a path.
    """
    plain = name.strip() and Path(name).name == name and not name.startswith(".")
    if not plain:
        raise InputError(f"'{name}' is no name for a corpus", "Use letters, digits, '-' and '_'")
    return room("corpora") / name


def _corpus(args: CorpusArgs, resume: bool) -> Result:
    from loratelier.corpus import build_corpus
    from loratelier.corpus.folder import check_target

    target = corpus_folder(args.name)
    check_target(target, replace=args.replace)
    corpus = build_corpus(
        args.sources,
        format=args.format,
        learn=args.learn,
        script=args.script,
        language=args.language,
    )
    corpus.save(target, replace=args.replace)
    return {"corpus": args.name, "counts": corpus.report.counts()}


def _train(args: TrainArgs, resume: bool) -> Result:
    from loratelier.train import train

    recipe = recipe_of(args)
    adapter = train(recipe, replace=args.replace, resume=resume)
    return {
        "adapter": adapter.name,
        "effect": adapter.has_effect,
        "metrics": adapter.card.metrics,
    }


def recipe_of(args: TrainArgs) -> Any:
    """Return the recipe of a training.

    Raises:
        InputError: a key or a value that no recipe has.
    """
    from loratelier.train.recipe_file import load_recipe

    folder = corpus_folder(args.corpus)
    if not folder.is_dir():
        raise InputError(f"There is no corpus '{args.corpus}'", "Build it first")
    # A page stops runs by hand, so little may be lost: the state is saved more often.
    given = {"corpus": str(folder), "base": args.base, "name": args.name, "save_seconds": 10.0}
    return load_recipe(None, given | args.set)


def _check(args: CheckArgs, resume: bool) -> Result:
    from loratelier.adapter import store
    from loratelier.base import load_base
    from loratelier.check import check_adapter
    from loratelier.check.behaviour import parse_behaviour
    from loratelier.check.own import find_corpus
    from loratelier.corpus import Corpus

    folder = store.find(args.adapter)
    worn = store.open(args.adapter)
    place = find_corpus(worn)
    if worn.card.base.spec is None:
        raise InputError(f"The card of '{worn.name}' names no base", "Check it in the terminal")
    tests = None
    if worn.behaviour is not None:
        tests = parse_behaviour(worn.behaviour, str(folder / "behaviour.yaml"))
    verdict = check_adapter(
        load_base(worn.card.base.spec),
        worn,
        corpus=Corpus.load(place) if place else None,
        behaviour=tests,
        strength=worn.card.strength or 1.0,
        items=args.items,
    )
    store.update_card(folder, {"verdict": verdict.for_card()})
    return {"adapter": args.adapter, "passed": verdict.passed}


_KINDS: dict[Kind, tuple[type[Strict], Callable[[Any, bool], Result]]] = {
    "corpus": (CorpusArgs, _corpus),
    "train": (TrainArgs, _train),
    "check": (CheckArgs, _check),
}


def read_args(kind: Kind, args: dict[str, Any]) -> Any:
    """Read a job's arguments.

    Raises:
        InputError: an unknown key, or a value that is not allowed.
    """
    from pydantic import ValidationError

    from loratelier.kit.models import problem

    try:
        return _KINDS[kind][0].model_validate(args)
    except ValidationError as error:
        raise InputError(problem(error)) from error


def do(kind: Kind, args: dict[str, Any], *, resume: bool) -> Result:
    """Do a job, here and now."""
    return _KINDS[kind][1](read_args(kind, args), resume)
