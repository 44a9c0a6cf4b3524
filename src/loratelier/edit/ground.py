"""The ground that an edit leaves alone: places in texts, to optimise on and to judge by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.base.likelihood import general_text
from loratelier.scope.compare import divergence
from loratelier.scope.spellings import padded

Ids = tuple[int, ...]
# Of a text this many tokens are read, and every third place is looked at: neighbouring places say
# much the same, and a head over a large vocabulary costs as much as several layers.
_LENGTH, _STEP = 24, 3
# Paragraphs of general text, by what they are for. The covariance is taken of the first ones too.
_OPTIMISED, _JUDGED = range(4), range(24, 32)
COVERED = range(24)
_KEYS, _CHECKED, _JUDGED_NEIGHBOURS = 8, 4, 6
_OWN = 8


@dataclass(frozen=True)
class Ground:
    """Rows of tokens and places in them, each of a kind: general, neighbours, own, prompt.

    ``keys`` are places that the input side of an edit turns away from. Some neighbours are not
    among them: what an edit does to these is what it does to neighbours it has not seen.
    """

    rows: tuple[Ids, ...]
    places: tuple[tuple[int, int], ...]
    kinds: tuple[str, ...]
    keys: tuple[tuple[int, int], ...]

    @cached_property
    def weights(self) -> Tensor:
        """What each place counts, float64 [places]: every kind as much as every other."""
        own = {kind: 1 / self.kinds.count(kind) / len(set(self.kinds)) for kind in set(self.kinds)}
        return torch.tensor([own[kind] for kind in self.kinds], dtype=torch.float64)

    def batch(self, device: Any) -> Tensor:
        """Return the rows as one tensor, filled at the ends: int64 [rows, T]."""
        return torch.tensor(padded(list(self.rows)), device=device)


@dataclass(frozen=True)
class Spread:
    """How far a look moved at places: KL(before || after) in nats, and argmax flips."""

    mean: float
    max: float
    flips: int
    places: int


@dataclass(frozen=True)
class Locality:
    """What an edit changed where it should not, at places that it was not optimised on.

    ``mean`` counts every kind of text as much as every other; ``max`` and ``flips`` are over all
    places; ``kinds`` has each kind by itself. ``optimised`` is the mean over what the budget was
    held on.
    """

    mean: float
    max: float
    flips: int
    places: int
    kinds: Mapping[str, Spread]
    optimised: float


def lay(
    base: Base, prompts: Sequence[Ids], near: Sequence[Sequence[Ids]], own: Sequence[Ids]
) -> tuple[Ground, Ground]:
    """Return what is optimised on, and what is judged by; they share no text.

    Args:
        base: the base.
        prompts: the places that are edited; their other tokens belong to the first.
        near: for each prompt its neighbours, which are dealt out in turn.
        own: texts of the person's own, dealt out in turn.
    """
    paragraphs = [_general(base, text) for text in general_text()]
    first, second = _Layer(), _Layer()
    for number, ids in enumerate(prompts):
        if not any(other[: len(ids)] == ids for other in prompts[:number]):
            edited = {len(other) - 1 for other in prompts if ids[: len(other)] == other}
            first.add(
                "prompt",
                ids,
                [at for at in range(len(ids)) if at not in edited][-_LENGTH:],
                key=True,
            )
    share = max(1, len(near))
    for each in near:
        for ids in each[0::3][: max(2, _KEYS // share)]:
            first.add("neighbours", ids, [len(ids) - 1], key=True)
        for ids in each[1::3][: max(2, _CHECKED // share)]:
            first.add("neighbours", ids, [len(ids) - 1])
        for ids in each[2::3][: max(2, _JUDGED_NEIGHBOURS // share)]:
            second.add("neighbours", ids, [len(ids) - 1])
    for number in _OPTIMISED:
        first.add("general", paragraphs[number], _some(paragraphs[number]))
    for number in _JUDGED:
        second.add("general", paragraphs[number], _some(paragraphs[number]))
    for layer, dealt in ((first, own[0::2][:_OWN]), (second, own[1::2][:_OWN])):
        for ids in dealt:
            layer.add("own", ids[:_LENGTH], _some(ids[:_LENGTH]))
    return first.done(), second.done()


class _Layer:
    """A ground that is being laid."""

    def __init__(self) -> None:
        self._rows: list[Ids] = []
        self._places: list[tuple[int, int]] = []
        self._kinds: list[str] = []
        self._keys: list[tuple[int, int]] = []

    def add(self, kind: str, ids: Ids, columns: Sequence[int], *, key: bool = False) -> None:
        if columns:
            places = [(len(self._rows), column) for column in columns]
            self._places += places
            self._keys += places if key else []
            self._kinds += [kind] * len(columns)
            self._rows.append(ids)

    def done(self) -> Ground:
        return Ground(*map(tuple, (self._rows, self._places, self._kinds, self._keys)))  # type: ignore[arg-type]


def _general(base: Base, text: str) -> Ids:
    return tuple(base.tokenizer(text)["input_ids"][:_LENGTH])


def _some(ids: Ids) -> list[int]:
    return list(range(min(_STEP, len(ids)) - 1, len(ids), _STEP))


def locality(ground: Ground, before: Tensor, after: Tensor, optimised: float) -> Locality:
    """Measure how far two looks' logits [places, V] are apart on a ground."""
    old, new = before.double().log_softmax(-1), after.double().log_softmax(-1)
    moved = divergence(old, new)
    flips = old.argmax(-1) != new.argmax(-1)
    kinds = {}
    for kind in dict.fromkeys(ground.kinds):
        here = torch.tensor([each == kind for each in ground.kinds], device=moved.device)
        kinds[kind] = Spread(
            float(moved[here].mean()),
            float(moved[here].max()),
            int(flips[here].sum()),
            int(here.sum()),
        )
    return Locality(
        mean=float((moved.cpu() * ground.weights).sum()),
        max=float(moved.max()),
        flips=int(flips.sum()),
        places=len(ground.places),
        kinds=kinds,
        optimised=optimised,
    )
