"""What is asked of an engine, and what it answers."""

from dataclasses import dataclass
from typing import Literal

# Nothing, or adapter name -> gate.
Mix = None | dict[str, float]
# How an answer ended; None while it is being written.
Finish = Literal["stop", "length", "cancelled", "deadline", "shutdown", "error"]


class Busy(Exception):
    """The queue is full: ask again later."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    ``temperature`` 0 is greedy. ``logprobs`` is how many alternatives are told beside each token,
    None for no log probabilities. ``schema`` is a JSON schema, as text, that the answer is held to.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    schema: str | None = None
    ignore_eos: bool = False


@dataclass(frozen=True)
class Asked:
    """One request.

    ``deadline`` is in seconds from now. ``from_token`` is where the adapters begin to act; None
    for the start, or for what an adapter's own invocation says.
    """

    ids: tuple[int, ...]
    mix: Mix = None
    sampling: Sampling = Sampling()
    deadline: float | None = None
    from_token: int | None = None


@dataclass(frozen=True)
class Token:
    """One token: its number, the text that became certain with it, and how likely it was."""

    id: int
    piece: str
    logprob: float | None
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Event:
    """What was written since the event before; the last one says how it ended."""

    tokens: tuple[Token, ...]
    text: str
    finish: Finish | None = None
    error: str | None = None
