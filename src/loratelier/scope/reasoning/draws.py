"""One stream of random numbers for both sides: equal distributions give equal tokens.

Each token's turn has one exponential number a token of the vocabulary, and the token whose number
over its probability is the smallest is written; that draws from the distribution exactly. Both
sides see the same numbers. Distributions p and q then part with probability
``1 - sum_x 1 / sum_y max(p_y/p_x, q_y/q_x)``, at most ``2 TV / (1 + TV)`` with TV their total
variation (Daliri, Musco, Suresh, arXiv:2408.07978). One uniform number and the inverse of the
cumulative distribution would part far more often: a little mass that moves between two tokens moves
every border between them.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from loratelier.scope.decode import Choose, likeliest


class Draws:
    """Chooses tokens for streams; the same stream gives the same numbers whatever is beside it.

    Args:
        streams: what seeds each row's numbers; rows of one name draw alike.
        temperature: divides the scores; 0 is greedy and draws nothing.
    """

    def __init__(self, streams: Sequence[str], temperature: float) -> None:
        self._streams = tuple(streams)
        self._temperature = temperature
        self._generators = {name: _generator(name) for name in self._streams}

    def chooser(self) -> Choose:
        """Return what a decoding loop asks at every step."""
        return likeliest if self._temperature == 0 else self._choose

    def _choose(self, scores: Tensor, _written: Tensor) -> Tensor:
        likely = (scores.double() / self._temperature).log_softmax(-1).cpu()
        noise = {name: _noise(one, likely.shape[-1]) for name, one in self._generators.items()}
        return torch.stack(
            [(row - noise[name]).argmax() for row, name in zip(likely, self._streams, strict=True)]
        )


def _generator(name: str) -> torch.Generator:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)


def _noise(generator: torch.Generator, size: int) -> Tensor:
    """Return the logarithms of exponential numbers: float64 [size]."""
    return torch.empty(size, dtype=torch.float64).exponential_(generator=generator).log()
