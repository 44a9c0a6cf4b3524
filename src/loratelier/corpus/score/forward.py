"""Losses of many passages: batched by length, logits made in chunks and only where they count.

Batches are padded on the right and no mask is given: in a causal model no token sees what stands
after it, so padding changes nothing and attention may take its fastest path.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loratelier.base import Base
from loratelier.base.decoder import head_of, hidden_states
from loratelier.base.likelihood import target_losses
from loratelier.corpus.score.layout import Passage
from loratelier.corpus.score.metrics import Losses

# Tokens in a batch. On a CPU more than this leaves the cache and gets slower again.
_BATCH = {"cpu": 1024, "cuda": 32768}
# Bytes of logits in a chunk. On a CPU they should stay in the last cache and below the size at
# which the allocator hands out fresh pages each time.
_CHUNK = {"cpu": 24 << 20, "cuda": 1 << 30}


@torch.no_grad()
def losses_of(base: Base, passages: Sequence[Passage]) -> Iterator[list[tuple[int, Losses]]]:
    """Yield, batch by batch, the number of a passage with its losses in nats (float32 [places]).

    Longest first, so that what does not fit fails at once and the time left is never too rosy.
    """
    if not passages:
        return
    batched = _projects(base)
    limit = _BATCH.get(base.device.type, 1024) if batched else 0
    for batch in _batches([passage.cost for passage in passages], limit):
        chosen = [passages[number] for number in batch]
        losses = _batch_losses(base, chosen) if batched else [_own(base, one) for one in chosen]
        yield list(zip(batch, losses, strict=True))


def _batches(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Group what is of like length so that a padded batch has at most ``limit`` tokens."""
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    batch: list[int] = []
    for number in order:
        # The first of a batch is its longest, so it decides how wide all are padded.
        if batch and lengths[batch[0]] * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _batch_losses(base: Base, passages: Sequence[Passage]) -> list[Losses]:
    hidden = _hidden(base, [passage.ids[: passage.cost] for passage in passages])
    width = hidden.shape[1]
    where = [
        number * width + place - 1
        for number, passage in enumerate(passages)
        for place in passage.places
    ]
    labels = [passage.ids[place] for passage in passages for place in passage.places]
    losses = _head_losses(
        base,
        hidden.flatten(0, 1),
        torch.tensor(where, device=base.device),
        torch.tensor(labels, device=base.device),
    )
    ends = np.cumsum([len(passage.places) for passage in passages])
    return np.split(losses, ends[:-1])


def _head_losses(base: Base, hidden: Tensor, where: Tensor, labels: Tensor) -> Losses:
    """Return ``-log p(label)`` for the hidden states at ``where``: float32 [N]."""
    head = head_of(base.model)
    words = base.model.config.get_text_config().vocab_size
    chunk = max(16, _CHUNK.get(base.device.type, 24 << 20) // (words * 4))
    # Used again for every chunk: fresh memory of this size costs as much as filling it.
    scratch = torch.empty((min(chunk, len(where)), words), device=base.device)
    losses = []
    for part, targets in zip(where.split(chunk), labels.split(chunk), strict=True):
        likely = torch.log_softmax(head(hidden[part]).float(), 1, out=scratch[: len(part)])
        losses.append(-likely.gather(1, targets[:, None])[:, 0])
    found: Losses = torch.cat(losses).cpu().numpy()
    return found


def _own(base: Base, passage: Passage) -> Losses:
    """Score one passage through the model's own forward."""
    ids = torch.tensor([passage.ids], device=base.device)
    places = torch.tensor(passage.places, device=base.device)
    steps = torch.arange(len(passage.ids), device=base.device)[None]
    losses = target_losses(base.model, ids, steps, places - 1, ids[0, places])
    found: Losses = losses.cpu().numpy()
    return found


def _projects(base: Base) -> bool:
    """Whether the model's logits are its decoder's output times its head, and no more.

    Some models scale or cap them on the way. They are found by looking, not by name, and are
    scored through their own forward, one passage at a time.
    """
    head: Any = head_of(base.model)
    if head is None:
        return False
    probe = (
        torch.arange(8, device=base.device)[None] % base.model.config.get_text_config().vocab_size
    )
    whole = base.model(input_ids=probe, use_cache=False).logits.float()
    made = head(hidden_states(base.model, probe))
    return made.shape == whole.shape and bool((made.float() - whole).abs().max() < 1e-4)


@torch.no_grad()
def hidden_means(
    base: Base, texts: Sequence[Sequence[int]]
) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
    """Yield, batch by batch, the number of a text with its mean last hidden state: [hidden].

    Args:
        base: its decoder is used, without the head.
        texts: token ids, one list a text; an empty one is left out.
    """
    filled = [number for number, ids in enumerate(texts) if len(ids)]
    lengths = [len(texts[number]) for number in filled]
    for batch in _batches(lengths, _BATCH.get(base.device.type, 1024)):
        chosen = [filled[place] for place in batch]
        hidden = _hidden(base, [texts[number] for number in chosen])
        means = [
            states[: len(texts[number])].float().mean(0).cpu().numpy()
            for states, number in zip(hidden, chosen, strict=True)
        ]
        yield list(zip(chosen, means, strict=True))


def _hidden(base: Base, texts: Sequence[Sequence[int]]) -> Tensor:
    """Return the last hidden states of texts padded to the longest: [texts, width, hidden]."""
    # What pads does not matter as long as it is a token.
    ids = torch.zeros((len(texts), max(map(len, texts))), dtype=torch.long)
    for number, text in enumerate(texts):
        ids[number, : len(text)] = torch.tensor(text)
    return hidden_states(base.model, ids.to(base.device))
