"""Keywords: how likely the words that a person cares about are, before and after, along texts.

A word has several spellings (with and without a blank before it, with a capital) and each of them
its tokens. Where one token spells it, its probability is that of the word's beginning with just
that token. Where it takes several, the first token alone is no word: many others begin with it,
in Russian on an English vocabulary almost all do. So two figures are kept apart by name:

- ``first``: the mass of the spellings' first tokens, at every position: how likely a word begins
  that begins as this one does; at least as much as the word itself;
- ``whole``: the probability of the word itself, every spelling read to its end, teacher-forced, and
  summed; at the positions that are asked for, because each takes a pass of its own.

``whole`` counts what goes on with the word's letters: "art" in "article" counts where the tokenizer
cuts "article" so. A spelling is read in the tokenizer's own cut, other cuts of the same letters,
which a model hardly ever writes, are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.continuations import Continuations
from loratelier.scope.pieces import Pieces
from loratelier.scope.reading import Text, logits_at
from loratelier.scope.spellings import Spelling, require_room, spellings

_BLOCK = 32  # positions that are held in float64 at once


@dataclass(frozen=True)
class Form:
    """One spelling of a word: its text, its tokens and what each of them is."""

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class First:
    """What the first tokens of a word's spellings have, after one token of a text.

    Attributes:
        index: the position of that token.
        before: the probability of all of them together, before.
        after: the same after.
        rank_before: the best rank that one of them has, from 1, before.
        rank_after: the same after.
    """

    index: int
    before: float
    after: float
    rank_before: int
    rank_after: int


@dataclass(frozen=True)
class Whole:
    """What a word has as a whole, after one token of a text.

    Attributes:
        index: the position of that token.
        before: the probability that the text goes on with the word, in all spellings, before.
        after: the same after.
        forms: spelling -> its log-probability in nats before and after.
    """

    index: int
    before: float
    after: float
    forms: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Keyword:
    """One word along all texts.

    Attributes:
        word: as it was given.
        forms: its spellings; those that the same tokens spell are one.
        first: by text, then by position: every one.
        whole: by text, then by position: those that were asked for.
    """

    word: str
    forms: tuple[Form, ...]
    first: tuple[tuple[First, ...], ...]
    whole: tuple[tuple[Whole, ...], ...]

    @property
    def one_token(self) -> bool:
        """Whether each of its spellings is one token, so that ``first`` is ``whole``."""
        return all(len(form.ids) == 1 for form in self.forms)

    @property
    def before(self) -> float:
        """Its probability as a whole before, the mean over all positions asked for."""
        return _mean([each.before for text in self.whole for each in text])

    @property
    def after(self) -> float:
        """The same after."""
        return _mean([each.after for text in self.whole for each in text])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "word": self.word,
            "one_token": self.one_token,
            "before": self.before,
            "after": self.after,
            "forms": [
                {"text": f.text, "ids": list(f.ids), "pieces": list(f.pieces)} for f in self.forms
            ],
            "first": [[asdict(each) for each in text] for text in self.first],
            "whole": [
                [
                    {
                        "index": each.index,
                        "before": each.before,
                        "after": each.after,
                        "forms": {form: list(pair) for form, pair in each.forms.items()},
                    }
                    for each in text
                ]
                for text in self.whole
            ],
        }


@torch.no_grad()
def track_keywords(
    change: Change,
    texts: Sequence[Sequence[int]],
    words: Sequence[str],
    *,
    at: Literal["last"] | Sequence[int] = "last",
) -> tuple[Keyword, ...]:
    """Follow words along texts: how likely each is after every token, before and after.

    Args:
        change: what is looked at.
        texts: the tokens of one text or of several.
        words: what to look for, in any language; without their blanks.
        at: after which tokens the words are read whole: the last, or positions in every text.

    Returns:
        One entry for each word, in their order.

    Raises:
        InputError: no texts or words, a word that is blank, a position that a text does not have,
            or a text that is longer than the base can read.
    """
    if not words or not texts or not all(texts):
        raise InputError("There is nothing to look for", "Give one word and one text at least")
    known = {word: spellings(change.base, word) for word in dict.fromkeys(words)}
    first: dict[str, list[tuple[First, ...]]] = {word: [] for word in known}
    whole: dict[str, list[tuple[Whole, ...]]] = {word: [] for word in known}
    for ids in texts:
        along = _first(change, ids, known)
        after = [_whole(change, ids[: place + 1], known) for place in _places(ids, at)]
        for word in known:
            first[word].append(along[word])
            whole[word].append(tuple(found[word] for found in after))
    pieces = Pieces(change.base.tokenizer)
    return tuple(
        Keyword(
            word=word,
            forms=tuple(Form(s.text, s.ids, tuple(map(pieces, s.ids))) for s in known[word]),
            first=tuple(first[word]),
            whole=tuple(whole[word]),
        )
        for word in known
    )


def _places(ids: Sequence[int], at: Literal["last"] | Sequence[int]) -> list[int]:
    if isinstance(at, str):
        return [len(ids) - 1]
    if odd := [place for place in at if not 0 <= place < len(ids)]:
        raise InputError(f"A text of {len(ids)} tokens has no position {odd[0]}", "They begin at 0")
    return list(at)


def _shares(change: Change) -> list[float]:
    """Return before and after; before alone, for both, where nothing can change."""
    return [0.0, 1.0][: change.rows]


def _first(
    change: Change, ids: Sequence[int], known: Mapping[str, Sequence[Spelling]]
) -> dict[str, tuple[First, ...]]:
    require_room(change.base, len(ids), "The text")
    logits = logits_at(change, Text((tuple(ids),), len(ids)), _shares(change))[:, 0]
    found: dict[str, list[First]] = {word: [] for word in known}
    for start in range(0, len(ids), _BLOCK):
        likely = logits[:, start : start + _BLOCK].double().log_softmax(-1)
        for word, forms in known.items():
            tokens = sorted({form.ids[0] for form in forms})
            found[word] += _firsts(likely, tokens, start)
    return {word: tuple(each) for word, each in found.items()}


def _firsts(likely: Tensor, tokens: Sequence[int], start: int) -> list[First]:
    own = likely[..., tokens]
    masses = own.exp().sum(-1).tolist()
    ranks = (1 + (likely > own.amax(-1, keepdim=True)).sum(-1)).tolist()
    figures = zip(masses[0], masses[-1], ranks[0], ranks[-1], strict=True)
    return [First(start + n, *each) for n, each in enumerate(figures)]


def _whole(
    change: Change, ids: Sequence[int], known: Mapping[str, Sequence[Spelling]]
) -> dict[str, Whole]:
    tokens = list(dict.fromkeys(form.ids for forms in known.values() for form in forms))
    read = Continuations.after(change.base, ids, tokens)
    # One look at a time: both together would hold twice as many rows as there are words.
    values = [
        read.likely(logits_at(change, read.text, [share]))[0].tolist() for share in _shares(change)
    ]
    before = dict(zip(tokens, values[0], strict=True))
    after = dict(zip(tokens, values[-1], strict=True))
    return {
        word: Whole(
            index=len(ids) - 1,
            before=_mass([before[form.ids] for form in forms]),
            after=_mass([after[form.ids] for form in forms]),
            forms={form.text: (before[form.ids], after[form.ids]) for form in forms},
        )
        for word, forms in known.items()
    }


def _mass(likely: Sequence[float]) -> float:
    return float(torch.tensor(likely, dtype=torch.float64).exp().sum())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
