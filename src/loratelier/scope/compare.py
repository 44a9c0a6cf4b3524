"""From two sets of logits to KL and to the tokens that moved."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loratelier.kit.errors import InputError
from loratelier.scope.moves import Move, Position, Total
from loratelier.scope.pieces import Pieces

# Positions that are held in float64 at once: 16 x 150,000 x 8 bytes = 19 MB a tensor.
_BLOCK = 16


@dataclass(frozen=True)
class Place:
    """A token of the text, and the one that stands next if that is known."""

    index: int
    id: int
    next_id: int | None


@dataclass(frozen=True)
class Compared:
    """The positions, and each token's change of probability: float64 [V].

    ``change`` is the sum over all positions, ``first_change`` is that of the first one.
    """

    positions: tuple[Position, ...]
    change: Tensor
    first_change: Tensor


def compare(
    before: Tensor, after: Tensor, places: Sequence[Place], *, top: int, pieces: Pieces
) -> Compared:
    """Compare the two models' expectations after each place.

    Args:
        before: the base's logits [T, V], any floating type.
        after: the adapter's logits [T, V].
        places: the T tokens after which they stand.
        top: how many risen and how many fallen tokens to keep.
        pieces: makes tokens readable.

    Raises:
        InputError: logits that are no numbers.
    """
    positions: list[Position] = []
    change = torch.zeros(before.shape[-1], dtype=torch.float64, device=before.device)
    first_change = change
    for start in range(0, len(places), _BLOCK):
        block = slice(start, start + _BLOCK)
        # float32 would lose a KL below 1e-7, and could make it negative.
        old = torch.log_softmax(before[block].double(), dim=-1)
        new = torch.log_softmax(after[block].double(), dim=-1)
        moved = new.exp() - old.exp()
        first_change = moved[0] if start == 0 else first_change
        change = change + moved.sum(dim=0)
        positions.extend(_block(old, new, places[block], top, pieces))
    return Compared(tuple(positions), change, first_change)


def totals(change: Tensor, top: int, pieces: Pieces) -> tuple[tuple[Total, ...], tuple[Total, ...]]:
    """Return the tokens whose probability rose and fell most in all, largest change first.

    Args:
        change: each token's change of probability, summed over places: float64 [V].
        top: how many of each.
        pieces: makes tokens readable.
    """
    kept = min(top, change.shape[0])
    rose, fell = change.topk(kept), (-change).topk(kept)
    return (
        tuple(
            Total(n, pieces(n), value)
            for n, value in zip(rose.indices.tolist(), rose.values.tolist(), strict=True)
            if value > 0
        ),
        tuple(
            Total(n, pieces(n), -value)
            for n, value in zip(fell.indices.tolist(), fell.values.tolist(), strict=True)
            if value > 0
        ),
    )


def divergence(old: Tensor, new: Tensor) -> Tensor:
    """Return KL(old || new) in nats from log-probabilities [..., V]: float64 [...]."""
    p, step = old.exp(), new - old
    # Both sum to 1, so sum(q - p) may be added: each term is then positive by itself and a KL of
    # 1e-13 keeps its digits, where p * (old - new) alone would leave rounding of either sign.
    gain = torch.where(step < 1, p * torch.expm1(step), new.exp() - p)
    # A token that is impossible under `old` adds its q alone, whatever `step` came to be.
    return torch.where(old.isneginf(), new.exp(), gain - p * step).sum(dim=-1).clamp_min(0.0)


def _block(
    old: Tensor, new: Tensor, places: Sequence[Place], top: int, pieces: Pieces
) -> list[Position]:
    values = divergence(old, new)
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            "The model's scores are no finite numbers here",
            "Load the base in float32, or lower the strength",
        )
    change = new.exp() - old.exp()
    kept = min(top, change.shape[-1])
    rose, fell = change.topk(kept, dim=-1), (-change).topk(kept, dim=-1)
    return [
        Position(
            index=place.index,
            id=place.id,
            token=pieces(place.id),
            kl=float(values[row]),
            rose=_moves(old[row], new[row], rose.indices[row][rose.values[row] > 0], pieces),
            fell=_moves(old[row], new[row], fell.indices[row][fell.values[row] > 0], pieces),
            next=_next(old[row], new[row], place, pieces),
        )
        for row, place in enumerate(places)
    ]


def _next(old: Tensor, new: Tensor, place: Place, pieces: Pieces) -> Move | None:
    if place.next_id is None:
        return None
    return _moves(old, new, torch.tensor([place.next_id], device=old.device), pieces)[0]


def _moves(old: Tensor, new: Tensor, ids: Tensor, pieces: Pieces) -> tuple[Move, ...]:
    """Return the moves of some tokens at one position; ``old`` and ``new`` are [V]."""
    before, after = old[ids], new[ids]
    figures = zip(
        ids.tolist(),
        before.exp().tolist(),
        after.exp().tolist(),
        _ranks(old, before),
        _ranks(new, after),
        strict=True,
    )
    return tuple(Move(number, pieces(number), *rest) for number, *rest in figures)


def _ranks(everything: Tensor, values: Tensor) -> list[int]:
    return [int(n) + 1 for n in (everything[None, :] > values[:, None]).sum(dim=-1)]
