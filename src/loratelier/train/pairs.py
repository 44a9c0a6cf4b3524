"""Preference pairs: two answers to the same words, of which one is preferred."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.corpus.formats import render
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.train.examples import Example, Messages, to_example
from loratelier.train.recipe import Recipe
from loratelier.train.rows import divided, fitting


@dataclass(frozen=True)
class Pair:
    """One preference: the chosen and the rejected answer, each with the words before it.

    Of both only the answer and its end token are learned.
    """

    row: str
    conversation: str
    chosen: Example
    rejected: Example

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def longest(self) -> int:
        """Tokens of the longer of the two."""
        return max(len(self.chosen), len(self.rejected))


def pairs(base: Base, corpus: Corpus, recipe: Recipe) -> tuple[list[Pair], list[Pair]]:
    """Return the corpus' preferences: those to learn from and those held out.

    Each other version of an answer makes a pair with the one that was kept. Pairs with an answer
    longer than ``max_length`` are left out and named, pairs of equal answers left out and counted.

    Raises:
        InputError: the corpus has no other versions, its format is a text, or nothing is left.
    """
    candidates = corpus.candidates.to_pylist()
    if not candidates:
        raise InputError(
            f"{recipe.corpus} has no preferences: no answer in it has another version",
            "Build it from an export with regenerated answers, or from rows with chosen and "
            "rejected",
        )
    style = corpus.rows.column("format")[0].as_py()
    made, splits = [], {}
    for candidate in candidates:
        for number, other in enumerate(candidate["others"]):
            name = f"{candidate['id']}/{number}"
            splits[name] = candidate["split"]
            if other != candidate["kept"]:
                made.append(_pair(base, candidate, name, other, style))
    _say(candidates, len(made), len(splits))
    return divided(fitting(made, recipe, lambda pair: pair.longest), splits, recipe)


def _pair(base: Base, candidate: Mapping[str, Any], name: str, other: str, style: str) -> Pair:
    asked, conversation = candidate["prompt"], candidate["conversation"]
    chosen, rejected = (
        to_example(
            base,
            f"{name} {which}",
            conversation,
            _messages([*asked, {"role": "assistant", "content": text}], style),
            last_only=True,
        )
        for which, text in (("chosen", candidate["kept"]), ("rejected", other))
    )
    return Pair(name, conversation, chosen, rejected)


def _messages(messages: Messages, style: str) -> Messages:
    """Write a conversation as the corpus' rows are written, so that prompts look the same."""
    written = render(list(messages), style).messages
    if written is None:
        raise InputError(
            f"The corpus is in the format {style}, where an answer is no part of its own",
            "Build it with --format chat for preferences",
        )
    return written


def _say(candidates: list[dict[str, Any]], made: int, all_pairs: int) -> None:
    labelled = sum(len(each["others"]) for each in candidates if each["how"] == "labelled")
    if labelled < all_pairs:
        remark(
            f"{all_pairs - labelled} of {all_pairs} preferences are answers that were written "
            "again: that the person went on with one does not say that it is better"
        )
    if made < all_pairs:
        remark(f"{all_pairs - made} preferences are left out: both answers are the same")
