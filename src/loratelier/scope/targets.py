"""Targets: a number that is read off the model at a text, and whose change is to be explained.

What may be asked for:

- ``" Paris"`` or a token's number: the log-probability that the text goes on so;
- ``(" Paris", " London")``: a contrast, the log-probability of the one less that of the other;
- :class:`Divergence`: KL(before || after) of the next token, at the last position or at all;
- :class:`Mass`: the probability that the text goes on with a word, in any of its spellings;
- None: the contrast of the likeliest next token after against the likeliest before, or, where these
  are the same, the divergence at the last position.

A text of several tokens is read whole, teacher-forced: its log-probability is the sum over its
tokens, each after those before it. No text is cut to its first token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.compare import divergence
from loratelier.scope.continuations import Continuations
from loratelier.scope.pieces import Pieces
from loratelier.scope.reading import Text, logits_at
from loratelier.scope.spellings import continuation_ids, require_room, spellings

_BLOCK = 32  # positions that are held in float64 at once


@dataclass(frozen=True)
class Divergence:
    """KL(before || after) of the next token in nats; over all positions it is their mean."""

    where: Literal["last", "all"] = "last"


@dataclass(frozen=True)
class Mass:
    """The probability that the text goes on with a word, with a blank or not, capital or not."""

    word: str


Words = str | int
Asked = Words | tuple[Words, Words] | Divergence | Mass


@dataclass(frozen=True)
class Target:
    """A number that is read off the model.

    Attributes:
        words: what it is.
        unit: ``nats`` or ``probability``.
        text: what is read.
        score: logits [..., rows, kept, V] -> float64 [...], with gradients.
    """

    words: str
    unit: Literal["nats", "probability"]
    text: Text
    score: Callable[[Tensor], Tensor] = field(repr=False, compare=False)


def target_of(change: Change, ids: Sequence[int], asked: Asked | Target | None = None) -> Target:
    """Make a target of what was asked for, after a text.

    Args:
        change: what is looked at.
        ids: the text's tokens, at least one.
        asked: see the head of this module; a target that is one already is taken as it is.

    Raises:
        InputError: no text, a text to look for that is empty, a token that the base lacks, or more
            tokens than the base reads.
    """
    if isinstance(asked, Target):
        return asked
    if not ids:
        raise InputError("The prompt is empty", "Give some text")
    ids = tuple(ids)
    if asked is None:
        return _default(change, ids)
    if isinstance(asked, Divergence):
        return _divergence(change, ids, asked)
    if isinstance(asked, Mass):
        return _mass(change.base, ids, asked.word)
    if isinstance(asked, tuple):
        return _contrast(change.base, ids, *asked)
    said, tokens = _words(change.base, asked)
    return _sequences(
        change.base, ids, [tokens], f"log-probability of {said}", "nats", lambda own: own[..., 0]
    )


@torch.no_grad()
def _default(change: Change, ids: tuple[int, ...]) -> Target:
    logits = logits_at(change, Text((ids,), 1), [0.0, 1.0])[:, 0, -1]
    before, after = logits.argmax(-1).tolist()
    if before == after:
        return _divergence(change, ids, Divergence())
    return _contrast(change.base, ids, after, before)


def _contrast(base: Base, ids: tuple[int, ...], toward: Words, against: Words) -> Target:
    (said, these), (other, those) = _words(base, toward), _words(base, against)
    if these == those:
        raise InputError(f"The contrast is of {said} with itself", "Give two different texts")
    return _sequences(
        base,
        ids,
        [these, those],
        f"log-probability of {said} less that of {other}",
        "nats",
        lambda own: own[..., 0] - own[..., 1],
    )


def _mass(base: Base, ids: tuple[int, ...], word: str) -> Target:
    forms = spellings(base, word)
    said = ", ".join(f"“{form.text}”" for form in forms)
    return _sequences(
        base,
        ids,
        [form.ids for form in forms],
        f"probability of {said} together",
        "probability",
        lambda own: own.exp().sum(-1),
    )


def _words(base: Base, asked: Words) -> tuple[str, tuple[int, ...]]:
    """Return how a text or token is called, and its tokens."""
    if isinstance(asked, str):
        tokens = continuation_ids(base, asked)
        many = f" ({len(tokens)} tokens)" if len(tokens) > 1 else ""
        return f"“{asked}”{many}", tokens
    size = int(base.model.config.get_text_config().vocab_size)
    if not 0 <= asked < size:
        raise InputError(f"There is no token {asked}", f"The base's go from 0 to {size - 1}")
    return f"“{Pieces(base.tokenizer)(asked)}”", (asked,)


def _sequences(
    base: Base,
    ids: tuple[int, ...],
    continuations: Sequence[tuple[int, ...]],
    words: str,
    unit: Literal["nats", "probability"],
    combine: Callable[[Tensor], Tensor],
) -> Target:
    """Return a target of the log-probabilities of continuations: combine takes [..., n]."""
    read = Continuations.after(base, ids, continuations)
    return Target(words, unit, read.text, lambda logits: combine(read.likely(logits)))


@torch.no_grad()
def _divergence(change: Change, ids: tuple[int, ...], asked: Divergence) -> Target:
    kept = 1 if asked.where == "last" else len(ids)
    require_room(change.base, len(ids), "The prompt")
    text = Text((ids,), kept)
    reference = logits_at(change, text, [0.0])[0, 0]

    def block(logits: Tensor, before: Tensor) -> Tensor:
        old, new = before.double().log_softmax(-1), logits.double().log_softmax(-1)
        return divergence(old.expand_as(new), new).sum(-1)

    def score(logits: Tensor) -> Tensor:
        parts = [
            # Float64 over a whole vocabulary is made anew on the way back rather than kept.
            checkpoint(block, logits[..., 0, at : at + _BLOCK, :], reference[at : at + _BLOCK],
                       use_reentrant=False)
            for at in range(0, kept, _BLOCK)
        ]  # fmt: skip
        return torch.stack(parts).sum(0) / kept

    where = "at the last position" if kept == 1 else f"on average over all {kept} positions"
    return Target(f"KL(before || after) of the next token, {where}", "nats", text, score)
