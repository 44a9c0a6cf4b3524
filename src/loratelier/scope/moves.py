"""How a token's probability moves at one place of a text, as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Move:
    """One token's probability at one position: under the base and under the adapter.

    Ranks count from 1, the likeliest token.
    """

    id: int
    token: str
    before: float
    after: float
    rank_before: int
    rank_after: int

    @property
    def notable(self) -> bool:
        """Whether the change is one that a person can see; the lists keep the others too."""
        return abs(self.after - self.before) >= 0.0005


@dataclass(frozen=True)
class Position:
    """What is expected after one token of the text.

    ``kl`` is KL(base || adapter) in nats over the next token; ``rose`` and ``fell`` are the tokens
    whose probability changed most, by absolute change, largest first. ``next`` is the token that
    does stand next in the text, None after the prompt's last.
    """

    index: int
    id: int
    token: str
    kl: float
    rose: tuple[Move, ...]
    fell: tuple[Move, ...]
    next: Move | None


@dataclass(frozen=True)
class Total:
    """How much one token's probability changed, summed over positions."""

    id: int
    token: str
    change: float
