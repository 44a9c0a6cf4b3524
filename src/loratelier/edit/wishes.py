"""What is asked for: strings with probabilities after prompts, and the places where they are set.

The probability of a string of several tokens is that of its chain: the product of each token's
probability after those before it. When such a product is to become P where it is Q now, every token
of the chain gets its present probability raised to the power log P / log Q: each link's surprise is
shrunk or stretched by the same factor, no link leaves (0, 1), and the product is P exactly. Strings
that begin alike share their first links. Every link is then a wish of its own: a place (the prompt
with the links before it) and tokens with probabilities there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.scope.continuations import Continuations, Tokens
from loratelier.scope.prompt import Messages, encode_prompt
from loratelier.scope.reading import logits_of
from loratelier.scope.spellings import continuation_ids

Said = str | int
# A chance that counts as certain would make the power above infinite.
_SURE = 1 - 1e-9


@dataclass(frozen=True)
class Request:
    """One prompt and what is asked after it: each string's tokens with its probability."""

    prompt: str
    ids: tuple[int, ...]
    asked: Mapping[Tokens, float]
    said: Mapping[Tokens, str]


@dataclass(frozen=True)
class Wish:
    """One place, after ``ids``, and the probabilities asked of tokens there."""

    ids: tuple[int, ...]
    asked: Mapping[int, float]


def read_prompt(base: Base, prompt: str | Messages, *, chat: bool) -> tuple[str, tuple[int, ...]]:
    """Return a prompt's words and its tokens; messages, and a text with ``chat``, as a dialogue.

    Raises:
        InputError: it is empty, or the base has no chat template.
    """
    raw = isinstance(prompt, str) and not chat
    if isinstance(prompt, str) and not prompt.strip():
        raise InputError("The prompt is empty", "Give some text")
    read = encode_prompt(base, prompt, raw=raw)
    return read.question, read.ids


def request(
    base: Base, prompt: str | Messages, asked: Mapping[Said, float], *, chat: bool = False
) -> Request:
    """Check what is asked after a prompt and put it in tokens.

    Args:
        base: the base.
        prompt: a text, after which the very next token is meant, or messages, which go through the
            chat template.
        asked: strings, or numbers of tokens, with their probabilities.
        chat: put a text through the chat template too.

    Raises:
        InputError: an empty prompt or wish, an unknown token, a probability that is none, or
            probabilities that cannot be had together.
    """
    words, ids = read_prompt(base, prompt, chat=chat)
    if not asked:
        raise InputError("Nothing is asked for", "Give at least one token with its probability")
    tokens: dict[Tokens, float] = {}
    said: dict[Tokens, str] = {}
    for what, chance in asked.items():
        own = _tokens(base, what)
        if own in tokens:
            raise InputError(f"'{what}' is asked for twice: it is the same tokens as '{said[own]}'")
        tokens[own] = _probability(what, chance)
        said[own] = base.tokenizer.decode(list(own)) if isinstance(what, int) else what
    _require_room_for_all(tokens, said)
    return Request(words, ids, tokens, said)


def _tokens(base: Base, what: Said) -> Tokens:
    if isinstance(what, str):
        ids = continuation_ids(base, what)
        unknown = base.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and what != base.tokenizer.unk_token:
            raise InputError(f"The base {base.name} has no tokens for '{what}'", "Ask for another")
        return ids
    size = int(base.model.config.get_text_config().vocab_size)
    if isinstance(what, bool) or not 0 <= what < size:
        raise InputError(
            f"There is no token {what}", f"The base {base.name} has tokens 0 to {size - 1}"
        )
    return (what,)


def _probability(what: Said, chance: object) -> float:
    number = isinstance(chance, int | float) and not isinstance(chance, bool)
    if not number or not 0 < float(chance) < 1:  # type: ignore[arg-type]
        raise InputError(
            f"The probability of '{what}' is {chance!r}", "It lies between 0 and 1, ends excluded"
        )
    return float(chance)  # type: ignore[arg-type]


def _require_room_for_all(tokens: Mapping[Tokens, float], said: Mapping[Tokens, str]) -> None:
    for own, chance in tokens.items():
        longer = [other for other in tokens if other != own and other[: len(own)] == own]
        if sum(tokens[other] for other in longer) >= chance and longer:
            raise InputError(
                f"'{said[longer[0]]}' begins with '{said[own]}' and cannot be as likely",
                "Ask less of the longer one",
            )
    total = sum(
        chance
        for own, chance in tokens.items()
        if not any(len(o) < len(own) and own[: len(o)] == o for o in tokens)
    )
    if total >= 1:
        raise InputError(
            f"The probabilities sum to {total:g}", "Leave some for the rest: less than 1 in all"
        )


@torch.no_grad()
def chances(base: Base, ids: Sequence[int], strings: Sequence[Tokens]) -> dict[Tokens, float]:
    """Return how likely the model, as it is now, finds strings and all their beginnings."""
    heads = dict.fromkeys(own[: n + 1] for own in strings for n in range(len(own)))
    reading = Continuations.after(base, ids, list(heads))
    likely = reading.likely(logits_of(base.model, reading.text)[0])
    return dict(zip(heads, likely.exp().tolist(), strict=True))


def wishes(base: Base, asked: Request) -> list[Wish]:
    """Return the places where the tokens of a request stand, with what is asked there.

    The model is read in the look that is active.
    """
    known = {(): 1.0} | chances(base, asked.ids, list(asked.asked))
    return _links((), asked.asked, known, asked.ids)


def _links(
    head: Tokens, wanted: Mapping[Tokens, float], known: Mapping[Tokens, float], ids: Tokens
) -> list[Wish]:
    """Return the wish after ``head`` and those below it; ``wanted`` is given that head."""
    groups: dict[int, dict[Tokens, float]] = {}
    for own, chance in wanted.items():
        if len(own) > len(head):
            groups.setdefault(own[len(head)], {})[own] = chance
    if not groups:
        return []
    shares = {token: _share((*head, token), below, known, head) for token, below in groups.items()}
    needed = {
        token: below.get((*head, token)) or sum(below.values()) for token, below in groups.items()
    }
    if sum(shares.values()) >= 1:  # what begins alike would leave nothing for the rest
        spare, least = sum(shares.values()) - sum(needed.values()), sum(needed.values())
        shrunk = (1 - least) / 2 / spare
        shares = {
            token: needed[token] + (shares[token] - needed[token]) * shrunk for token in shares
        }
    found = [Wish((*ids, *head), shares)]
    for token, below in groups.items():
        rest = {own: chance / shares[token] for own, chance in below.items()}
        found += _links((*head, token), rest, known, ids)
    return found


def _share(
    start: Tokens, below: Mapping[Tokens, float], known: Mapping[Tokens, float], head: Tokens
) -> float:
    if start in below:
        return below[start]
    now = min(_SURE, sum(known[own] for own in below) / known[head])
    link = min(_SURE, known[start] / known[head])
    return float(link ** (math.log(sum(below.values())) / math.log(now)))
