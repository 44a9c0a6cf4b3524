"""Writing token by token with a KV cache: one loop for the greedy and for the sampled."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

# (scores float32 [rows, vocabulary], tokens written so far int64 [rows, n]) -> tokens [rows]
Choose = Callable[[Tensor, Tensor], Tensor]


def likeliest(scores: Tensor, _written: Tensor) -> Tensor:
    """Choose the token with the highest score in each row."""
    return scores.argmax(dim=-1)


@torch.no_grad()
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
    step = torch.tensor([list(prompt)] * rows, device=model.device)
    written = step[:, :0]
    open_rows = [True] * rows
    cache = None
    for _ in range(limit):
        seen = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
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
        written = torch.cat([written, step], dim=1)


def columns(steps: Iterator[list[int | None]], rows: int) -> list[list[int]]:
    """Gather what :func:`decode` yields into one list of tokens for each row."""
    gathered: list[list[int]] = [[] for _ in range(rows)]
    for step in steps:
        for row, token in zip(gathered, step, strict=True):
            if token is not None:
                row.append(token)
    return gathered
