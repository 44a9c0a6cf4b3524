"""A conversation with a base that may wear an adapter, changed at any moment."""

from collections.abc import Generator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.bank.gates import RowMix
from loratelier.base import Base, with_tokens
from loratelier.kit.errors import InputError
from loratelier.scope.decode import decode
from loratelier.scope.inspection import NO_EFFECT
from loratelier.scope.prompt import encode_prompt, end_ids, words
from loratelier.scope.strength import check_strength
from loratelier.serve.library import Found, Library, citations, with_notes
from loratelier.serve.sampling import Sampling, chooser

# end: the model ended it; limit: max_new_tokens; context: the base reads no further;
# interrupted: the person stopped it.
Stopped = Literal["end", "limit", "context", "interrupted"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    ``adapter`` and ``strength`` are what the base wore when it said it, None for nothing; a user's
    turn has only ``role`` and ``content``. ``seconds`` is the wall time, ``tokens`` counts the end
    token too. ``notes`` are those that stood before the question, each with its place in a file and
    whether the answer names it.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    adapter: str | None = None
    strength: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    stopped: Stopped | None = None
    notes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Both:
    """The answers of the base and of the base wearing the adapter to the same conversation."""

    question: str
    base: Turn
    adapter: Turn


@dataclass
class _Reply:
    """A reply while it is being written; ``shown`` characters of it went out already."""

    ids: list[int] = field(default_factory=list)
    shown: int = 0


class Dialogue:
    """A history of messages, and what the base wears for the next reply.

    A reply is read and written anew over the whole conversation with the gates that are open then:
    switching an adapter changes how the earlier turns are understood too, as ordinary LoRA does.

    Args:
        base: the base; its weights are never written.
        bank: holds adapters over that base; what is worn is added to it.
        system: a system message that opens the conversation.
        sampling: how tokens are chosen.
        max_new_tokens: the most tokens of a reply.
        library: what is asked is looked up there, and what is found stands before the question.
    """

    def __init__(
        self,
        base: Base,
        bank: AdapterBank,
        *,
        system: str | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int = 256,
        library: Library | None = None,
    ) -> None:
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}", "Let one token or more be said")
        self.bare = base
        # The base as each adapter reads it: some bring tokens of their own.
        self._knowing: dict[str, Base] = {}
        self.bank = bank
        self.sampling = sampling or Sampling()
        self.max_new_tokens = max_new_tokens
        self.library = library
        self.chosen: str | None = None
        self.is_on = True
        self.strengths: dict[str, float] = {}
        self.turns: list[Turn] = []
        self._system = system
        self._seen: dict[str, Adapter] = {}
        self._choose = chooser(self.sampling)
        self.reset()

    @property
    def base(self) -> Base:
        """The base, with the tokens that the worn adapter brought."""
        return self.bare if self.worn is None else self._knowing[self.worn]

    @property
    def worn(self) -> str | None:
        """The adapter that the next reply is given with; None while it is off."""
        return self.chosen if self.is_on else None

    @property
    def strength(self) -> float | None:
        """The strength of the adapter that is worn."""
        return None if self.worn is None else self.strengths[self.worn]

    def reset(self) -> None:
        """Forget the conversation; what is worn stays."""
        self.turns = [] if self._system is None else [Turn("system", self._system)]

    def wear(self, adapter: Adapter | str, strength: float | None = None) -> str:
        """Put on an adapter, given or from the store, and return a line that says so.

        Without ``strength`` it has the one that it had last, at first its card's, or 1.

        Raises:
            InputError: no such adapter, one for another base, or a strength out of range.
        """
        loaded = adapter if isinstance(adapter, Adapter) else self._find(adapter)
        first = 1.0 if loaded.card.strength is None else loaded.card.strength
        wanted = self.strengths.get(loaded.name, first) if strength is None else strength
        check_strength(wanted)
        knowing = with_tokens(self.bare, loaded.card.tokens)
        loaded.require_fit(knowing)
        self.bank.add(loaded.name, loaded)
        self._knowing[loaded.name] = knowing
        self._seen[loaded.name] = loaded
        self.strengths[loaded.name] = wanted
        self.chosen, self.is_on = loaded.name, True
        said = f"Wearing '{loaded.name}' at strength {wanted:g}."
        return said if loaded.has_effect else f"{said} {NO_EFFECT}."

    def _find(self, name: str) -> Adapter:
        # One that was given as a folder is known by its name from then on.
        return self._seen[name] if name in self._seen else store.open(name)

    def take_off(self) -> str:
        """Close the gate; the adapter stays chosen."""
        self.is_on = False
        return "The base answers as it is."

    def put_on(self) -> str:
        """Open the gate again.

        Raises:
            InputError: no adapter was chosen yet.
        """
        name = self._require_chosen()
        self.is_on = True
        return f"Wearing '{name}' at strength {self.strengths[name]:g}."

    def set_strength(self, strength: float) -> str:
        """Change the strength of the chosen adapter.

        Raises:
            InputError: no adapter was chosen yet, or a strength out of range.
        """
        name = self._require_chosen()
        self.strengths[name] = check_strength(strength)
        off = "" if self.is_on else " It is off: /on puts it on."
        return f"'{name}' has strength {strength:g}.{off}"

    def _require_chosen(self) -> str:
        if self.chosen is None:
            raise InputError("No adapter is worn", "Put one on with /wear NAME")
        return self.chosen

    def say(self, text: str) -> Generator[str, None, None]:
        """Say something and yield the reply in pieces as it is written.

        Both messages are in :attr:`turns` once the reply is over, and also when it was left early
        after its first word.

        Raises:
            InputError: an empty message, or a conversation that is longer than the base can read;
                the conversation is then as it was.
        """
        found = self._looked_up(text)
        ids = self._encode([*self.turns, Turn("user", text)], found)
        limit = self._limit(len(ids))
        # Taken now: what is worn may be changed while the reply is still being written.
        name, strength = self.worn, self.strength
        reply, began = _Reply(), perf_counter()
        stopped: Stopped = "interrupted"
        steps = self._decode(ids, [self._mix()], limit)
        try:
            for (token,) in steps:
                if token is not None:
                    reply.ids.append(token)
                    yield self._piece(reply, done=False)
            stopped = self._stopped(reply.ids, limit)
            yield self._piece(reply, done=True)
        finally:
            # Closes the gates even when the reader walks away in the middle.
            steps.close()
            if reply.ids:
                said, seconds = words(self.base, reply.ids), perf_counter() - began
                answer = Turn(
                    "assistant",
                    said,
                    name,
                    strength,
                    seconds,
                    len(reply.ids),
                    stopped,
                    tuple(citations(said, found)),
                )
                self.turns += [Turn("user", text), answer]

    def both(self) -> Both:
        """Answer the last user message with the base and with the adapter; the history stays.

        Raises:
            InputError: nothing was asked yet, or no adapter was chosen.
        """
        name = self._require_chosen()
        asked = [number for number, turn in enumerate(self.turns) if turn.role == "user"]
        if not asked:
            raise InputError("Nothing was asked yet", "Say something first, then /both")
        found = self._looked_up(self.turns[asked[-1]].content)
        ids = self._encode(self.turns[: asked[-1] + 1], found)
        limit, began = self._limit(len(ids)), perf_counter()
        strength = self.strengths[name]
        written: list[list[int]] = [[], []]
        for step in self._decode(ids, [None, {name: strength}], limit):
            for row, token in zip(written, step, strict=True):
                row.extend([] if token is None else [token])
        seconds = perf_counter() - began
        base, adapter = (
            Turn(
                "assistant",
                words(self.base, row),
                worn,
                strength if worn else None,
                seconds,
                len(row),
                self._stopped(row, limit),
            )
            for row, worn in zip(written, (None, name), strict=True)
        )
        return Both(self.turns[asked[-1]].content, base, adapter)

    def _mix(self) -> RowMix:
        return None if self.worn is None else {self.worn: self.strengths[self.worn]}

    def _looked_up(self, text: str) -> list[Found]:
        return [] if self.library is None else self.library.search(text)

    def _encode(self, turns: list[Turn], found: list[Found]) -> tuple[int, ...]:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return encode_prompt(self.base, with_notes(messages, found)).ids

    def _limit(self, length: int) -> int:
        """Return how many tokens a reply to a conversation of ``length`` tokens may have."""
        context = self.base.context
        if context is None:
            return self.max_new_tokens
        if length >= context:
            raise InputError(
                f"The conversation has {length} tokens, and {self.base.name} reads {context}, "
                "its reply included",
                "Say less, or begin anew with /reset",
            )
        return min(self.max_new_tokens, context - length)

    def _decode(
        self, ids: tuple[int, ...], mix: list[RowMix], limit: int
    ) -> Generator[list[int | None], None, None]:
        with self.bank.activate(mix):
            yield from decode(
                self.base.model,
                ids,
                self._choose,
                rows=len(mix),
                ends=end_ids(self.base),
                limit=limit,
            )

    def _stopped(self, ids: list[int], limit: int) -> Stopped:
        if ids and ids[-1] in end_ids(self.base):
            return "end"
        return "limit" if limit == self.max_new_tokens else "context"

    def _piece(self, reply: _Reply, *, done: bool) -> str:
        """Return the words that were not shown yet; half a character waits for its other half."""
        text = words(self.base, reply.ids)
        whole = text if done else text.rstrip("\ufffd")
        piece = whole[reply.shown :]
        reply.shown = max(reply.shown, len(whole))
        return piece
