"""Writing and reading many texts on both sides of a change, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.kit.progress import task
from loratelier.scope.change import Change
from loratelier.scope.decode import aligned, columns, decode_each
from loratelier.scope.prompt import end_ids
from loratelier.scope.reasoning.draws import Draws

Ids = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What is written on both sides: a prompt for each, and the stream that both draw from."""

    before: Ids
    after: Ids
    stream: str


class Writer:
    """Writes on both sides of a change at once.

    Args:
        change: what is looked at; where it has no effect one side is written and stands for both.
        at_once: rows of a batch, both sides counted.
    """

    def __init__(self, change: Change, at_once: int) -> None:
        self._change = change
        self._model = change.base.model
        self._ends = end_ids(change.base)
        self._jobs_at_once = max(1, at_once // 2)

    def write(
        self, jobs: Sequence[Job], *, limit: int, temperature: float, what: str
    ) -> list[tuple[list[int], list[int]]]:
        """Return what each side writes after its prompt, its end token included."""
        self._require_room(jobs, limit)
        written: list[tuple[list[int], list[int]]] = []
        with task(what, total=len(jobs)) as bar:
            for part in self._parts(jobs):
                written += self._write(part, limit, temperature)
                bar.advance(len(part))
        return written

    @torch.no_grad()
    def likelihoods(
        self, texts: Sequence[tuple[Ids, Ids, Ids]], *, what: str
    ) -> list[tuple[float, float]]:
        """Return the log-probability of texts on both sides, in nats.

        Args:
            texts: the prompt before, the prompt after, and what is read after either.
            what: what the progress bar says.
        """
        found: list[tuple[float, float]] = []
        with task(what, total=len(texts)) as bar:
            for part in self._parts(texts):
                befores = [(before, text) for before, _, text in part]
                afters = [(after, text) for _, after, text in part]
                found += self._sides(self._likely(self._rows(befores, afters)))
                bar.advance(len(part))
        return found

    def _write(
        self, jobs: Sequence[Job], limit: int, temperature: float
    ) -> list[tuple[list[int], list[int]]]:
        prompts = self._rows([job.before for job in jobs], [job.after for job in jobs])
        streams = [job.stream for job in jobs] * (len(prompts) // len(jobs))
        choose = Draws(streams, temperature).chooser()
        with self._change.by_row(self._shares(len(prompts))):
            steps = decode_each(self._model, prompts, choose, ends=self._ends, limit=limit)
            return self._sides(columns(steps, len(prompts)))

    def _likely(self, rows: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Return the log-probability of each text after its prompt."""
        kept = max(len(text) for _, text in rows) + 1
        given = aligned(self._model, [(*prompt, *text) for prompt, text in rows])
        with self._change.by_row(self._shares(len(rows))):
            logits = self._model(**given, use_cache=False, logits_to_keep=kept).logits
        return [_summed(one, text) for one, (_, text) in zip(logits.double(), rows, strict=True)]

    def _rows(self, before: Sequence[T], after: Sequence[T]) -> list[T]:
        return [*before, *after] if self._change.effect else list(before)

    def _shares(self, rows: int) -> list[float]:
        if not self._change.effect:
            return [0.0] * rows
        return [0.0] * (rows // 2) + [1.0] * (rows // 2)

    def _sides(self, rows: Sequence[T]) -> list[tuple[T, T]]:
        if not self._change.effect:
            return [(row, row) for row in rows]
        half = len(rows) // 2
        return list(zip(rows[:half], rows[half:], strict=True))

    def _parts(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        for start in range(0, len(items), self._jobs_at_once):
            yield items[start : start + self._jobs_at_once]

    def _require_room(self, jobs: Sequence[Job], limit: int) -> None:
        base = self._change.base
        longest = max((max(len(job.before), len(job.after)) for job in jobs), default=0)
        if base.context is not None and longest + limit > base.context:
            raise InputError(
                f"A prompt of {longest} tokens and {limit} more do not fit {base.name}, which "
                f"reads {base.context}",
                "Shorten the prompt, or let fewer tokens be written",
            )


def _summed(logits: Tensor, text: Ids) -> float:
    """Return the log-probability of the last tokens of a row: logits [kept, V], the last unused."""
    likely = logits[-len(text) - 1 : -1].log_softmax(-1)
    return float(likely.gather(1, torch.tensor(text, device=logits.device)[:, None]).sum())
