"""The field of a position: what may come next there, before and now, as bars."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.edit.wishes import read_prompt
from loratelier.kit.errors import InputError
from loratelier.scope.compare import divergence
from loratelier.scope.pieces import Pieces

_OLD, _NEW = "before", "now"


def prefix(base: Base, prompt: str, at: int | None) -> str:
    """Return the text up to token ``at`` (from 0, that token included); None for all of it.

    Raises:
        InputError: there is no such token, or the text up to there is other tokens by itself.
    """
    if at is None:
        return prompt
    encoded = base.tokenizer(prompt, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    if not 0 <= at < len(ids):
        raise InputError(f"There is no position {at}", f"The prompt has {len(ids)} tokens")
    text = prompt[: spans[at][1]]
    if list(base.tokenizer(text)["input_ids"]) != list(ids[: at + 1]):
        raise InputError(
            "The prompt cannot be cut there: its beginning reads as other tokens",
            "Choose the position beside it",
        )
    return text


@torch.no_grad()
def field(
    base: Base,
    prompt: str,
    *,
    before: Adapter | None,
    now: Adapter | None,
    strengths: Mapping[str, float] | None = None,
    chat: bool = False,
    at: int | None = None,
    keep: tuple[int, ...] = (),
    top: int = 12,
) -> dict[str, Any]:
    """Return what may come next after a position, and how far every other place has moved.

    Args:
        base: the base.
        prompt: a text; with ``chat`` a person's message.
        before: what the base wore at first; None for nothing.
        now: what it wears now.
        strengths: site -> factor on what is worn now, for a preview; an unnamed site has 1.
        chat: put the prompt through the chat template.
        at: the position whose field it is; None for the last.
        keep: tokens that are shown whatever their probability.
        top: how many of the likeliest are shown, of either look.

    Returns:
        ``{tokens, at, bars, rest, kl}``: the tokens' texts; bars as ``{id token before now}``;
        what all the others have, ``{before now}``; KL(before || now) in nats at every position.
    """
    _, ids = read_prompt(base, prompt, chat=chat)
    at = len(ids) - 1 if at is None else at
    if not 0 <= at < len(ids):
        raise InputError(f"There is no position {at}", f"The prompt has {len(ids)} tokens")
    pieces = Pieces(base.tokenizer)
    old, new = (each.log_softmax(-1) for each in _both(base, ids, before, now, strengths))
    likely = [int(n) for look in (new, old) for n in look[at].topk(top).indices]
    shown = sorted(
        dict.fromkeys((*likely[:top], *keep, *likely[top : top + top // 2])),
        key=lambda n: -float(torch.maximum(old[at, n], new[at, n])),
    )
    bars: list[dict[str, Any]] = [
        {
            "id": n,
            "token": pieces(n),
            "before": float(old[at, n].exp()),
            "now": float(new[at, n].exp()),
        }
        for n in shown
    ]
    return {
        "tokens": [pieces(n) for n in ids],
        "at": at,
        "bars": bars,
        "rest": {side: max(0.0, 1 - sum(bar[side] for bar in bars)) for side in ("before", "now")},
        "kl": divergence(old, new).tolist(),
    }


def _both(
    base: Base,
    ids: tuple[int, ...],
    before: Adapter | None,
    now: Adapter | None,
    strengths: Mapping[str, float] | None,
) -> tuple[Tensor, Tensor]:
    """Return the logits of both looks, float64 [T, V] each, read in one batch."""
    with ExitStack() as opened:
        bank = opened.enter_context(AdapterBank(base.model))
        rows: list[Any] = [None, None]
        for row, name, worn in ((0, _OLD, before), (1, _NEW, now)):
            if worn is not None:
                bank.add(name, worn)
                factors = (strengths or {}) if name == _NEW else {}
                rows[row] = {name: {site: float(factors.get(site, 1.0)) for site in worn.sites}}
        opened.enter_context(bank.activate(rows))
        batch = torch.tensor([list(ids)] * 2, device=base.model.device)
        logits = base.model(input_ids=batch, use_cache=False).logits.double()
    return logits[0], logits[1]


def token_of(base: Base, text: str) -> int:
    """Return the token that a text is, to be shown as a bar.

    Raises:
        InputError: it is none, or several.
    """
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise InputError(
            f"'{text}' is {len(ids)} tokens here", "Give one that is a single token; blanks count"
        )
    return int(ids[0])
