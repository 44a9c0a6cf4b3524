"""Distillation: learn what a teacher expects at each place, not only what stood there.

The loss of a place is ``(1 - hard) T^2 H(q, p_T) + hard (-log p)``: ``q`` the teacher's shares at
temperature T, among themselves; ``p_T`` the model's distribution at T (Hinton et al.,
arXiv:1503.02531). The teacher is asked once, before the first step.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.corpus import Corpus
from loratelier.kit.progress import remark, task
from loratelier.train.examples import Example
from loratelier.train.learner import Learner
from loratelier.train.objective import Figures, changed
from loratelier.train.packing import Pack, pack
from loratelier.train.recipe import Recipe
from loratelier.train.recipe_objectives import Distill
from loratelier.train.rows import examples, split
from loratelier.train.shares import Given, read_shares
from loratelier.train.teacher import ask

if TYPE_CHECKING:
    from loratelier.train.loop import Plan


@dataclass(frozen=True)
class Taught(Pack):
    """A pack that knows what is expected at each target.

    ``wanted``: int64 [N, k], tokens. ``shares``: float32 [N, k], which sum to 1; a token that only
    fills a line up has none.
    """

    wanted: Tensor
    shares: Tensor

    def to(self, device: torch.device) -> Self:
        """Return the pack on another device."""
        there = super().to(device)
        return replace(there, wanted=self.wanted.to(device), shares=self.shares.to(device))


class Distillation:
    """Learn rows towards given distributions."""

    def __init__(
        self,
        rows: tuple[list[Example], list[Example]],
        given: Given,
        distill: Distill,
        source: str,
    ) -> None:
        """Take rows, those to learn from and those held out, and what is expected in them.

        ``source`` is a digest of who said it.
        """
        self.source = source
        self._rows = rows
        self._given = given
        self.temperature = distill.temperature
        self.hard = distill.hard

    @classmethod
    def of(cls, base: Base, corpus: Corpus, recipe: Recipe, distill: Distill) -> Self:
        """Ask the teacher, or read the file.

        Raises:
            InputError: see :func:`loratelier.train.teacher.ask` and
                :func:`loratelier.train.shares.read_shares`.
        """
        rows = examples(base, corpus, recipe)
        if distill.file is not None:
            vocabulary = base.model.config.get_text_config().vocab_size
            known = set(corpus.rows.column("id").to_pylist())
            given = read_shares(distill.file, rows, known, base.tokenizer, vocabulary)
            source = f"sha256:{hashlib.sha256(distill.file.read_bytes()).hexdigest()}"
        else:
            given, source = ask(base, str(distill.teacher), rows, distill.top)
        return cls(split(corpus, _taught(rows, given), recipe), given, distill, source)

    def rows(
        self, base: Base, corpus: Corpus, recipe: Recipe
    ) -> tuple[list[Example], list[Example]]:
        """Return the rows that something is expected in."""
        return self._rows

    def lay(self, rows: Sequence[Example], limit: int, /, *, padded: bool = False) -> list[Pack]:
        """Lay rows side by side, with what is expected in them."""
        by_name = {row.row: row for row in rows}
        return [
            self._expecting(each, [by_name[name] for name in each.rows])
            for each in pack(rows, limit, padded=padded)
        ]

    def ready(self, plan: "Plan", prepared: Any, device: torch.device) -> "Plan":
        """Return the plan as it is."""
        return plan

    def loss(self, learner: Learner, pack: Pack) -> Tensor:
        """Return the weighted loss of the pack's targets; of other rows, that of plain learning."""
        if not isinstance(pack, Taught):
            return learner.loss(pack)
        return self.losses(learner, learner.seen(pack), pack) @ pack.weights

    def losses(self, learner: Learner, seen: Tensor, pack: Taught) -> Tensor:
        """Return each target's loss: [N]."""
        warm = pack.shares ** (1 / self.temperature)
        shares = warm / warm.sum(1, keepdim=True)
        soft = learner.reader.soft_nll_of(seen, pack.wanted, shares, self.temperature)
        soft = (1 - self.hard) * self.temperature**2 * soft
        return soft + self.hard * learner.reader.nll_of(seen, pack.labels) if self.hard else soft

    @torch.no_grad()
    def measure(self, prepared: Any, packs: Sequence[Pack], device: torch.device) -> Figures:
        """Return means over the held-out targets.

        ``loss``; ``kl``, nats a token from the teacher's shares at temperature 1; ``nll``,
        ``-log p`` of the rows' own tokens.
        """
        parts: dict[str, list[Tensor]] = defaultdict(list)
        with task("Measuring held-out rows", total=len(packs)) as bar:
            for each in packs:
                for name, values in prepared(self._figures, each.to(device)).items():
                    parts[name].append(values)
                bar.advance()
        return {name: float(torch.cat(each).double().mean()) for name, each in parts.items()}

    def _figures(self, learner: Learner, pack: Pack) -> dict[str, Tensor]:
        assert isinstance(pack, Taught)
        seen, reader = learner.seen(pack), learner.reader
        expected = torch.special.entr(pack.shares).sum(1)
        return {
            "loss": self.losses(learner, seen, pack),
            "kl": reader.soft_nll_of(seen, pack.wanted, pack.shares) - expected,
            "nll": reader.nll_of(seen, pack.labels),
        }

    def say(self, now: Figures, base: Figures | None) -> list[str]:
        """Return the loss, the distance from the teacher, and the rows' own loss."""
        return [
            f"held-out loss towards the teacher {changed(now, base, 'loss')}",
            f"KL from the teacher {now['kl']:.4f}",
            f"the rows' own tokens {now['nll']:.3f} nats",
        ]

    def _expecting(self, each: Pack, rows: Sequence[Example]) -> Taught:
        lines = [
            self._given[row.row].places[place]
            for row in rows
            for place, flag in enumerate(row.learned)
            if flag
        ]
        widest = max(len(ids) for ids, _ in lines)
        wanted = torch.zeros(len(lines), widest, dtype=torch.long)
        shares = torch.zeros(len(lines), widest)
        for number, (ids, parts) in enumerate(lines):
            wanted[number, : len(ids)] = ids
            shares[number, : len(ids)] = parts / parts.sum()
        return Taught(**vars(each), wanted=wanted, shares=shares)


def _taught(rows: Sequence[Example], given: Given) -> list[Example]:
    """Return rows of which only what something is expected of is learned."""
    found, untold = [], 0
    for row in rows:
        places = given[row.row].places if row.row in given else {}
        learned = tuple(n in places for n in range(len(row)))
        untold += row.targets - sum(learned)
        if places:
            found.append(replace(row, learned=learned))
    if untold:
        remark(f"{untold} learned tokens are left out: nothing says what is expected there")
    return found
