"""Replay: general text beside the rows of every step, so that what is general is not forgotten.

A share of 1 to 5% of pretraining data stops much of the forgetting (arXiv:2502.06042). What the
drift is measured with is never replayed.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from loratelier.base import Base
from loratelier.base.likelihood import general_text
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.examples import Example, to_example
from loratelier.train.packing import pack, shuffled
from loratelier.train.recipe import Recipe
from loratelier.train.steps import Cut, Step, weighed

OURS = ("replay_en.txt", "replay_ru.txt")
# A shorter passage teaches little: most of what a model knows of a text needs its beginning.
SHORTEST = 32
# A text that begins like this much of a measured one is taken for it.
_ALIKE = 60


def general_rows(base: Base, recipe: Recipe) -> list[Example]:
    """Return the rows that are replayed: passages of prose, and chats as they stand.

    Raises:
        InputError: ``replay_from`` is nothing that can be read, or nothing of it is left.
    """
    source = recipe.guards.replay_from
    found = _from_corpus(base, recipe) if source and source.is_dir() else _from_text(base, recipe)
    rows = [row for row in found if row.targets and len(row) <= recipe.max_length]
    if not rows:
        raise InputError(f"There is nothing to replay in {source}")
    return rows


def with_replay(
    epochs: Sequence[Sequence[Step]], rows: Sequence[Example], recipe: Recipe, cut: Cut
) -> list[list[Step]]:
    """Add replayed rows to the steps, so many that they are the recipe's share of the tokens.

    Rows are whole, so a step may have a row more or less; what it has too much or too little is
    made up for by the next ones. All rows come once before one comes again.
    """
    share = recipe.guards.replay
    assert share is not None
    supply, owed = _endless(rows, recipe.seed), 0.0
    coming = next(supply)
    made: list[list[Step]] = []
    for steps in epochs:
        made.append([])
        for step in steps:
            wanted = step.tokens * share / (1 - share)
            owed += wanted
            drawn: list[Example] = []
            while owed > len(coming) / 2:
                drawn.append(coming)
                owed -= len(coming)
                coming = next(supply)
            made[-1].append(_joined(step, drawn, wanted, cut))
    return made


def digest_of(rows: Sequence[Example]) -> str:
    """Return ``sha256:...`` over what is replayed."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.ids, row.learned)).encode())
    return f"sha256:{digest.hexdigest()}"


def _joined(step: Step, drawn: Sequence[Example], wanted: float, cut: Cut) -> Step:
    if not drawn:
        return step
    packs = pack(drawn, cut.pack, padded=cut.padded)
    # All steps together have the mean; one with twice the tokens that it is to have weighs twice.
    weight = sum(len(row) for row in drawn) / wanted
    added = [replace(each, replayed=True) for each in weighed(packs, weight).packs]
    return Step((*step.packs, *added))


def _endless(rows: Sequence[Example], seed: int) -> Iterator[Example]:
    turn = 0
    while True:
        yield from shuffled(rows, seed, turn)
        turn += 1


def _from_text(base: Base, recipe: Recipe) -> list[Example]:
    source = recipe.guards.replay_from
    whole = "\n\n".join(_ours()) if source is None else _read(source)
    texts = [text.strip() for text in whole.split("\n\n") if text.strip()]
    names = [f"replay {number}" for number in range(len(texts))]
    return _passages(base, recipe, dict(zip(names, texts, strict=True)))


def _ours() -> list[str]:
    folder = files("loratelier.train") / "data"
    return [(folder / name).read_text(encoding="utf-8") for name in OURS]


def _read(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"guards.replay_from: {source} is neither a corpus folder nor a UTF-8 text file"
        ) from error


def _from_corpus(base: Base, recipe: Recipe) -> list[Example]:
    assert recipe.guards.replay_from is not None
    rows = Corpus.load(recipe.guards.replay_from).rows
    chosen = rows.select(["id", "messages", "text", "conversation"]).to_pylist()
    texts = {f"replay {row['id']}": row["text"] for row in chosen if row["text"] is not None}
    chats = [row for row in chosen if row["text"] is None]
    return [*_passages(base, recipe, texts), *_chats(base, chats)]


def _chats(base: Base, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
    return [
        to_example(base, f"replay {row['id']}", row["conversation"], row["messages"])
        for row in rows
        if not any(_is_measured(message["content"]) for message in row["messages"])
    ]


def _passages(base: Base, recipe: Recipe, texts: Mapping[str, str]) -> list[Example]:
    """Cut texts into passages about as long as what a step replays."""
    share = recipe.guards.replay
    assert share is not None
    size = max(SHORTEST, round(recipe.batch_tokens * share / (1 - share)))
    size = min(size, recipe.max_length)
    made: list[Example] = []
    for name, text in texts.items():
        if _is_measured(text):
            remark(f"{name} is not replayed: the drift is measured with it")
            continue
        ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        # Of equal length, as a last one of a few tokens would be of little use.
        count = max(1, round(len(ids) / size))
        borders = [len(ids) * part // count for part in range(count + 1)]
        for part, (begin, end) in enumerate(pairwise(borders)):
            learned = (False, *[True] * (end - begin - 1))
            made.append(Example(f"{name}/{part:04}", name, tuple(ids[begin:end]), learned))
    return made


def _is_measured(text: str) -> bool:
    return any(each[:_ALIKE] in text for each in general_text())
