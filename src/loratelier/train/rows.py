"""Which rows of a corpus are learned, and which are held out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.examples import Example, to_example, to_text_example
from loratelier.train.packing import U
from loratelier.train.recipe import Recipe


def examples(base: Base, corpus: Corpus, recipe: Recipe) -> list[Example]:
    """Tokenize the corpus' rows; a row longer than ``max_length`` is left out and named.

    Raises:
        InputError: a row with a wrong mask, or no row that is left.
    """
    rows = corpus.rows.select(["id", "messages", "text", "conversation"]).to_pylist()
    made = [_example(base, row) for row in rows]
    return fitting(made, recipe, len)


def fitting(made: Sequence[U], recipe: Recipe, length: Callable[[U], int]) -> list[U]:
    """Return the rows that are no longer than ``max_length``; the others are named.

    Raises:
        InputError: none is left.
    """
    kept = [row for row in made if length(row) <= recipe.max_length]
    for row in made:
        if length(row) > recipe.max_length:
            remark(
                f"Row {row.row} is left out: {length(row)} tokens, max_length is "
                f"{recipe.max_length}"
            )
    if not kept:
        raise InputError(
            f"No row of {recipe.corpus} fits max_length = {recipe.max_length}",
            f"The shortest has {min(map(length, made), default=0)} tokens: --set max_length",
        )
    return kept


def require_taught(rows: Sequence[Example], tokens: Mapping[str, int]) -> None:
    """Make sure that every new token has something to be learned from.

    Raises:
        InputError: a token occurs in no row.
    """
    seen = {number for row in rows for number in row.ids}
    for word, number in tokens.items():
        if number not in seen:
            raise InputError(
                f"The new token '{word}' occurs in no row, so its row would learn nothing",
                "Leave it out of new_tokens, or bring texts that use it",
            )


def _example(base: Base, row: Mapping[str, Any]) -> Example:
    if row["text"] is not None:
        return to_text_example(base, row["id"], row["conversation"], row["text"])
    return to_example(base, row["id"], row["conversation"], row["messages"])


def split(
    corpus: Corpus, rows: Sequence[Example], recipe: Recipe
) -> tuple[list[Example], list[Example]]:
    """Return the rows to learn from and those held out; a conversation is never on both sides.

    Raises:
        InputError: nothing is left to learn from.
    """
    ids = corpus.rows.column("id").to_pylist()
    return divided(
        rows, dict(zip(ids, corpus.rows.column("split").to_pylist(), strict=True)), recipe
    )


def divided(
    rows: Sequence[U], splits: Mapping[str, str], recipe: Recipe
) -> tuple[list[U], list[U]]:
    """Divide rows as the recipe's ``holdout`` says, or as ``splits`` says of each row's name.

    Raises:
        InputError: nothing is left to learn from.
    """
    if recipe.holdout is None:
        withheld = [row for row in rows if splits[row.row] == "holdout"]
        learned = [row for row in rows if splits[row.row] != "holdout"]
    else:
        out = _chosen({row.conversation for row in rows}, recipe.holdout, recipe.seed)
        withheld = [row for row in rows if row.conversation in out]
        learned = [row for row in rows if row.conversation not in out]
    if not learned:
        raise InputError(
            f"No row of {recipe.corpus} is left to learn from", "Lower the recipe's holdout"
        )
    if not withheld:
        remark("No conversation is held out: nothing can say when to stop, the last state is kept")
    return learned, withheld


def _chosen(conversations: set[str], share: float, seed: int) -> set[str]:
    """Choose a share of the conversations, the same for the same seed; at least one if any."""
    ranked = sorted(
        conversations, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )
    count = max(1, round(share * len(ranked))) if share > 0 and len(ranked) > 1 else 0
    return set(ranked[:count])
