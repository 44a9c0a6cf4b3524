"""New tokens: words that become one token each, and the rows that stand for them.

Nothing is written to the base on disk. In memory its tokenizer is copied and taught the words, and
its embedding (and its output layer, where that is another weight) gets a row for each where it has
none to spare. A new row begins as the mean of all rows, the same on every machine; an adapter's
trained rows take its place while the adapter is worn.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from loratelier.base.base import Base
from loratelier.base.layers import ends_by_role
from loratelier.kit.errors import InputError


def with_tokens(base: Base, tokens: Mapping[str, int]) -> Base:
    """Return the base with tokens in its tokenizer and rows for them in its model.

    The tokenizer is a copy; the model is the same object, wider where it has to be. Its logits for
    what it knew before are the same to the last bit. Tokens that are there already stay.

    Args:
        base: a base.
        tokens: word -> the number that an adapter knows it by (``adapter.card.tokens``).

    Raises:
        InputError: a number belongs to another word here.
    """
    missing = [word for word in sorted(tokens, key=tokens.__getitem__) if not _knows(base, word)]
    taught = _taught(base, missing)
    for word, number in tokens.items():
        own = taught.tokenizer.convert_tokens_to_ids(word)
        if own != number:
            there = base.tokenizer.convert_ids_to_tokens(number)
            raise InputError(
                f"The token '{word}' has the number {number}, which is '{there}' in this base"
                if there is not None
                else f"The token '{word}' has the number {number}, and would be {own} here",
                "Load the base anew: adapters whose new tokens clash are not worn together",
            )
    _widen(base.model, len(taught.tokenizer))
    return taught


def vocabulary_size(base: Base) -> int:
    """Return how many tokens the model has rows for."""
    return int(base.model.get_input_embeddings().weight.shape[0])


@contextmanager
def taught(base: Base, words: Sequence[str]) -> Iterator[Base]:
    """Yield the base with new tokens while the context is open; then the model is as it was.

    Raises:
        InputError: a word is a token already.
    """
    for word in words:
        if _knows(base, word):
            raise InputError(
                f"'{word}' is a token of {base.name} already", "Leave it out of new_tokens"
            )
    knowing = _taught(base, words)
    before = _widen(base.model, len(knowing.tokenizer)) if words else {}
    try:
        yield knowing
    finally:
        _narrow(base.model, before)


def numbers_of(base: Base, words: Sequence[str]) -> dict[str, int]:
    """Return the numbers of tokens by their words."""
    return {word: base.tokenizer.convert_tokens_to_ids(word) for word in words}


def rows_to_train(base: Base, words: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of new tokens by layer, as PEFT's ``trainable_token_indices`` has them.

    The output layer is named only where its weight is one of its own: PEFT follows a tied one.

    Raises:
        InputError: the output layer adds a bias, which PEFT would leave out.
    """
    if not words:
        return {}
    numbers = sorted(numbers_of(base, words).values())
    ends = {role: name.rsplit(".", 1)[-1] for role, name in ends_by_role(base.model).items()}
    embedding, head = base.model.get_input_embeddings(), base.model.get_output_embeddings()
    if head is not None and getattr(head, "bias", None) is not None:
        raise InputError(f"{base.name} has an output layer with a bias: it takes no new tokens")
    if head is None or head.weight is embedding.weight:
        return {ends["embed"]: numbers}
    return {ends["embed"]: numbers, ends["head"]: numbers}


def _knows(base: Base, word: str) -> bool:
    return word in base.tokenizer.get_vocab()


def _taught(base: Base, words: Sequence[str]) -> Base:
    if not words:
        return base
    from tokenizers import AddedToken

    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    return replace(base, tokenizer=tokenizer)


_Before = dict[str, nn.Parameter]


@torch.no_grad()
def _widen(model: Any, count: int) -> _Before:
    """Give the vocabulary ``count`` rows if it has fewer; return the weights that were there."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight.shape[0] >= count:
        return {}
    before = {"embed": embedding.weight}
    tied = head is not None and head.weight is embedding.weight
    embedding.weight = _longer(embedding.weight, count)
    if head is not None:
        before["head"] = head.weight
        head.weight = embedding.weight if tied else _longer(head.weight, count)
        if getattr(head, "bias", None) is not None:
            before["bias"] = head.bias
            head.bias = _longer(head.bias, count)
    _count(model, count)
    return before


def _narrow(model: Any, before: _Before) -> None:
    if not before:
        return
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    embedding.weight = before["embed"]
    if "head" in before:
        head.weight = before["head"]
    if "bias" in before:
        head.bias = before["bias"]
    _count(model, before["embed"].shape[0])


def _longer(weight: Tensor, count: int) -> nn.Parameter:
    mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
    more = mean.expand(count - weight.shape[0], *weight.shape[1:])
    return nn.Parameter(torch.cat([weight, more]), requires_grad=False)


def _count(model: Any, count: int) -> None:
    """Tell the layers and the config how many rows there are."""
    model.get_input_embeddings().num_embeddings = count
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear):
        head.out_features = count
    model.config.get_text_config().vocab_size = count
