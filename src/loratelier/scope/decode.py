"""Writing token by token with a KV cache: one loop for the greedy and for the sampled."""

from collections.abc import Callable, Collection, Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

# (scores float32 [rows, vocabulary], tokens written so far int64 [rows, n]) -> tokens [rows]
Choose = Callable[[Tensor, Tensor], Tensor]


def likeliest(scores: Tensor, _written: Tensor) -> Tensor:
    """Choose the token with the highest score in each row."""
    return scores.argmax(dim=-1)


def decode(
    model: Any,
    prompt: Sequence[int],
    choose: Choose,
    *,
    rows: int,
    ends: Collection[int],
    limit: int,
) -> Iterator[list[int | None]]:
    """Yield one token for each row and step; None in a row that has ended.

    All rows read the same prompt: what makes them differ is the gates that are open while this
    runs. The end token itself is yielded, and nothing after it.

    Args:
        model: a transformers causal model.
        prompt: token ids, at least one.
        choose: picks the next tokens from the scores.
        rows: how many rows to write.
        ends: token ids that end a row.
        limit: the most tokens that a row may have.
    """
    return decode_each(model, [prompt] * rows, choose, ends=ends, limit=limit)


@torch.no_grad()
def decode_each(
    model: Any,
    prompts: Sequence[Sequence[int]],
    choose: Choose,
    *,
    ends: Collection[int],
    limit: int,
) -> Iterator[list[int | None]]:
    """Yield what :func:`decode` does for rows that each read a prompt of their own.

    Prompts of unlike lengths are filled up at the left and masked there; what a row writes is what
    it would write alone.

    Args:
        model: a transformers causal model.
        prompts: token ids of each row, at least one.
        choose: picks the next tokens from the scores.
        ends: token ids that end a row.
        limit: the most tokens that a row may have.
    """
    given = aligned(model, prompts)
    step = given["input_ids"]
    written = step[:, :0]
    open_rows = [True] * len(prompts)
    cache = None
    for _ in range(limit):
        seen = model(**given, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = seen.past_key_values
        chosen = choose(seen.logits[:, -1].float(), written).to(step.device)
        tokens = chosen.tolist()
        yield [token if row else None for token, row in zip(tokens, open_rows, strict=True)]
        open_rows = [
            row and token not in ends for token, row in zip(tokens, open_rows, strict=True)
        ]
        if not any(open_rows):
            return
        step = chosen[:, None]
        given = _next(given, step)
        written = torch.cat([written, step], dim=1)


def aligned(model: Any, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return what a model reads of prompts that end at the same column: int64 [rows, longest].

    Prompts of one length are read plainly, without a mask.
    """
    longest = max(map(len, prompts))
    filled = [[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts]
    ids = torch.tensor(filled, device=model.device)
    if all(len(prompt) == longest for prompt in prompts):
        return {"input_ids": ids}
    gaps = torch.tensor([longest - len(prompt) for prompt in prompts], device=model.device)
    steps = torch.arange(longest, device=model.device)
    mask = (steps[None] >= gaps[:, None]).long()
    given = {"input_ids": ids, "attention_mask": mask}
    # Models without places, such as recurrent ones, take none.
    if "position_ids" in signature(model.forward).parameters:
        given["position_ids"] = (steps[None] - gaps[:, None]).clamp_min(0)
    return given


def _next(given: dict[str, Tensor], step: Tensor) -> dict[str, Tensor]:
    """Return what is read after one more token in each row."""
    coming = {"input_ids": step}
    if "attention_mask" in given:
        mask = given["attention_mask"]
        coming["attention_mask"] = torch.cat([mask, torch.ones_like(step)], dim=1)
    if "position_ids" in given:
        coming["position_ids"] = given["position_ids"][:, -1:] + 1
    return coming


def columns(steps: Iterator[list[int | None]], rows: int) -> list[list[int]]:
    """Gather what :func:`decode` yields into one list of tokens for each row."""
    gathered: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for row, token in zip(gathered, step, strict=True):
            if token is not None:
                row.append(token)
    return gathered
