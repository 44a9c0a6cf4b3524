"""Both looks of a base read the same batches: once bare, once wearing the adapter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.scope import Change
from loratelier.scope.compare import divergence
from loratelier.scope.decode import likeliest
from loratelier.scope.prompt import end_ids, words

BEFORE, AFTER = 0.0, 1.0
# Tokens that are in a batch at once, padding included: their logits are all there together.
_AT_ONCE = 1024

# (place, token): how likely is the token right after that place of the sequence?
Asked = tuple[int, int]


@dataclass(frozen=True)
class Read:
    """One text under both looks, over its ``tokens`` read places.

    ``before`` and ``after`` are nats, ``-sum log p``; ``kl`` is the sum of KL(before || after) in
    nats; ``agreed`` counts places at which both find the same token likeliest.
    """

    tokens: int
    before: float
    after: float
    kl: float
    agreed: int


@dataclass(frozen=True)
class Text:
    """Token ids, of which those from ``begin`` (at least 1) on are read as targets."""

    ids: tuple[int, ...]
    begin: int


class Looks:
    """Reads and writes with both looks of a change.

    The two looks read the very same batches one after the other, so that padding and rounding
    are the same for both. Where nothing can change, the second is not computed but is the first.
    """

    def __init__(self, change: Change) -> None:
        self.change = change
        self.base: Base = change.base
        self.effect = change.effect

    @torch.no_grad()
    def compare(self, text: Text) -> Read:
        """Read one text with both."""
        batch = torch.tensor([list(text.ids)], device=self.base.model.device)
        labels = batch[0, text.begin :].cpu()
        last = len(labels) + 1
        old = self._log_probabilities(batch, last, BEFORE)
        new = self._log_probabilities(batch, last, AFTER) if self.effect else old
        kl = divergence(old, new) if self.effect else torch.zeros(len(labels))
        return Read(
            tokens=len(labels),
            before=_nats(old, labels),
            after=_nats(new, labels),
            kl=float(kl.sum()),
            agreed=int((old.argmax(-1) == new.argmax(-1)).sum()),
        )

    def _log_probabilities(self, batch: Tensor, last: int, look: float) -> Tensor:
        """Return log p of the last places but the very last, which foretells nothing: [N, V]."""
        with self.change.at(look):
            logits = self.base.model(input_ids=batch, use_cache=False, logits_to_keep=last).logits
        return torch.log_softmax(logits[0, :-1].double(), dim=-1).cpu()

    @torch.no_grad()
    def chances(
        self, sequences: Sequence[Sequence[int]], asked: Sequence[Sequence[Asked]], look: float
    ) -> list[dict[Asked, float]]:
        """Return log p of what is asked of each sequence, in nats.

        Sequences are read in padded batches. Padding stands on the right, where no place that is
        read can see it.
        """
        found: list[dict[Asked, float]] = [{} for _ in sequences]
        for chosen in _batches([len(one) for one in sequences]):
            longest = max(len(sequences[n]) for n in chosen)
            ids = [[*sequences[n], *[0] * (longest - len(sequences[n]))] for n in chosen]
            first = min(place for n in chosen for place, _ in asked[n])
            with self.change.at(look):
                logits = self.base.model(
                    input_ids=torch.tensor(ids, device=self.base.model.device),
                    use_cache=False,
                    logits_to_keep=longest - first,
                ).logits
            for row, n in enumerate(chosen):
                for place, token in asked[n]:
                    scores = torch.log_softmax(logits[row, place - first].double(), dim=-1)
                    found[n][place, token] = float(scores[token])
        return found

    @torch.no_grad()
    def answers(
        self, prompts: Sequence[Sequence[int]], limit: int, look: float
    ) -> list[tuple[int, ...]]:
        """Write greedy answers to many prompts at once, each without its end token.

        Prompts are padded on the left and hidden there by the attention mask.
        """
        ends, device = end_ids(self.base), self.base.model.device
        longest = max(len(prompt) for prompt in prompts)
        gaps = [longest - len(prompt) for prompt in prompts]
        step = torch.tensor(
            [[0] * gap + list(p) for gap, p in zip(gaps, prompts, strict=True)], device=device
        )
        mask = torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps], device=device)
        places = (mask.cumsum(-1) - 1).clamp_min(0)
        written: list[list[int]] = [[] for _ in prompts]
        going, cache = [True] * len(prompts), None
        with self.change.at(look):
            for _ in range(limit):
                seen = self.base.model(
                    input_ids=step,
                    attention_mask=mask,
                    position_ids=places,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                cache = seen.past_key_values
                chosen = likeliest(seen.logits[:, -1].float(), step)
                for row, token in enumerate(chosen.tolist()):
                    going[row] = going[row] and token not in ends
                    if going[row]:
                        written[row].append(token)
                if not any(going):
                    break
                step, places = chosen[:, None], places[:, -1:] + 1
                mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        return [tuple(row) for row in written]

    def texts(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Return answers as text."""
        return [words(self.base, ids).strip() for ids in answers]


def _nats(scores: Tensor, labels: Tensor) -> float:
    return float(-scores.gather(-1, labels[:, None]).sum())


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of like length, as many as fit."""
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > _AT_ONCE:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch
