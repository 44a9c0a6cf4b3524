"""What every model that writes for us can do: answer messages."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Answer:
    """What a model said and what it took: tokens of the prompt and of the answer.

    ``estimated``: the tokens are guessed, since the server reported none. ``cut``: it came to its
    longest length before it came to its end.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool = False
    cut: bool = False


class Failed(Exception):
    """One request got no answer; the others go on. The text says why, for the record.

    ``passing``: it was tried often enough and may be answered another day. Otherwise the server has
    refused what it asks.
    """

    def __init__(self, why: str, *, passing: bool) -> None:
        super().__init__(why)
        self.passing = passing


class Halted(Exception):
    """The run is being stopped: what has not been sent is not sent any more."""


class Asked(Protocol):
    """A model that answers."""

    @property
    def name(self) -> str:
        """The model, as lineage names it."""

    @property
    def parallel(self) -> int:
        """How many requests it takes at once."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that makes its answers other ones: where it is, its settings. Never a key."""

    def ask(self, messages: Messages, most_tokens: int, halt: threading.Event) -> Answer:
        """Answer a conversation that ends with the user; wait no longer when ``halt`` is set.

        Raises:
            Failed: this request got no answer.
            Halted: ``halt`` was set while it waited for its turn.
            InputError: no request can be answered: a wrong key, an unknown model.
        """
