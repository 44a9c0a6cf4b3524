"""From a corpus to a synthetic one: each piece asked for, stored at once, checked, in order."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loratelier.corpus.folder import Corpus
from loratelier.corpus.synthesize.asked import Answer, Asked, Failed, Messages
from loratelier.corpus.synthesize.checks import Invalid
from loratelier.corpus.synthesize.cost import Cost, Rates, tokens_in
from loratelier.corpus.synthesize.material import Item, Talk, items
from loratelier.corpus.synthesize.rows import Made, Piecework, rebuild
from loratelier.corpus.synthesize.store import Store, key_of
from loratelier.corpus.synthesize.tasks import TASKS, Piece
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import remark
from loratelier.kit.progress import task as progress

ROLE = "a patient teacher who asks back"
_IN_A_ROW = 5  # requests without an answer, one after the other, after which the run stops
_BEGAN = 120  # characters of an unusable answer in the record


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        task: one of :data:`~loratelier.corpus.synthesize.tasks.TASKS`.
        role: who the assistant is in a dialogue; None for :data:`ROLE`.
        limit: how many training rows to write from; None takes all.
        most_tokens: the longest answer.
        corrections: how often a model may mend an answer that does not fit.
        rates: prices, for the cost.

    Raises:
        InputError: an unknown task, a role where none is played, a number out of range.
    """

    task: str
    role: str | None = None
    limit: int | None = None
    most_tokens: int = 2048
    corrections: int = 2
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"The task '{self.task}' is unknown", did_you_mean(self.task, TASKS))
        if self.role is not None and "{role}" not in TASKS[self.task].wording:
            raise InputError(f"The task '{self.task}' plays no role", "Leave --role away")
        if self.role is not None and not self.role.strip():
            raise InputError("The role is empty", "Say who the assistant is")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit = {self.limit} leaves nothing to do", "Give 1 or more")
        if self.most_tokens < 1:
            raise InputError(f"most_tokens = {self.most_tokens} leaves no answer", "Give 1 or more")
        if self.corrections < 0:
            raise InputError(f"corrections = {self.corrections} is below 0", "Give 0 or more")


@dataclass(frozen=True)
class Plan:
    """What is still to be asked for, about; and how many of all requests are answered already."""

    open: Cost
    requests: int
    answered: int


@dataclass(frozen=True)
class Synthesized:
    """The new corpus, what this run took, and what all of it took with earlier runs.

    ``failed`` counts requests without a usable answer, ``unanswered`` those of them that got none:
    the same call asks for these again, the store has the others.
    """

    corpus: Corpus
    now: Cost
    all: Cost
    failed: int
    unanswered: int


@dataclass(frozen=True)
class _Outcome:
    """What came of one piece: what was made, or why nothing; ``fresh`` was asked for just now."""

    made: Made
    spent: Cost
    fresh: Cost
    passing: bool = False


class _Open(Exception):
    """An answer that is not in the store."""


@dataclass(frozen=True)
class _Writer:
    """Everything that turns one piece into an outcome."""

    asked: Asked
    settings: Settings
    store: Store | None

    def from_store(self, item: Item, piece: Piece) -> _Outcome | None:
        """Return the outcome if every answer that it takes is in the store."""
        try:
            return self._write(item, piece, self._not_asked)
        except _Open:
            return None

    def write(self, item: Item, piece: Piece, halt: threading.Event) -> _Outcome:
        """Ask, check the answer, and ask for a better one while it does not fit."""

        def ask(messages: Messages) -> Answer:
            return self.asked.ask(messages, self.settings.most_tokens, halt)

        return self._write(item, piece, ask)

    def opening(self, item: Item, piece: Piece) -> list[dict[str, str]]:
        """Return the request that a piece begins with."""
        return TASKS[self.settings.task].request(item, piece, self.settings.role or ROLE)

    def _not_asked(self, messages: Messages) -> Answer:
        raise _Open

    def _write(self, item: Item, piece: Piece, ask: Callable[[Messages], Answer]) -> _Outcome:
        reads = TASKS[self.settings.task].reads
        opening = self.opening(item, piece)
        messages, spent, fresh, why, said = opening, Cost(), Cost(), "", ""
        for attempt in range(self.settings.corrections + 1):
            key = self._key(item, piece, messages, attempt)
            answer = self.store.get(key) if self.store else None
            if answer is None:
                try:
                    answer = ask(messages)
                except Failed as error:
                    made = Made(why=f"no answer: {error}", answered=False)
                    return _Outcome(made, spent, fresh, passing=error.passing)
                fresh += Cost.of(answer)
                if self.store:
                    self.store.put(key, answer)
            spent += Cost.of(answer)
            said = answer.text
            try:
                return _Outcome(Made(talks=_read(answer, reads, item, piece)), spent, fresh)
            except Invalid as error:
                why = str(error)
                messages = [*opening, *_correction(said, why)]
        began = " ".join(said.split())[:_BEGAN]
        return _Outcome(Made(why=f"no usable answer: {why}", began=began), spent, fresh)

    def _key(self, item: Item, piece: Piece, messages: Messages, attempt: int) -> str:
        # Two rows of the same words, and two attempts, each have an answer of their own.
        return key_of(
            {
                "by": dict(self.asked.identity),
                "most_tokens": self.settings.most_tokens,
                "messages": [dict(each) for each in messages],
                "row": [item.row, piece.message, attempt],
            }
        )


def _read(
    answer: Answer, reads: Callable[[str, Item, Piece], list[Talk]], item: Item, piece: Piece
) -> tuple[Talk, ...]:
    if answer.cut:
        raise Invalid("it was cut off at the longest length allowed; be shorter")
    return tuple(reads(answer.text, item, piece))


def _correction(answer: str, why: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant", "content": answer},
        {
            "role": "user",
            "content": f"This cannot be used: {why}. Give it once more, right, and nothing else.",
        },
    ]


def plan(corpus: Corpus, asked: Asked, settings: Settings, store: Path | None = None) -> Plan:
    """Return about what is still to be paid for: requests, tokens in and out.

    Tokens are guessed from characters, and every answer is taken to fit at once.

    Raises:
        InputError: a store that cannot be read, or that another run has.
    """
    kept = Store(store) if store is not None and store.exists() else None
    try:
        writer = _Writer(asked, settings, kept)
        total, number, answered = Cost(), 0, 0
        for item, piece in _pieces(corpus, settings):
            number += 1
            if kept and writer.from_store(item, piece):
                answered += 1
            else:
                total += _guess(writer, item, piece)
    finally:
        if kept:
            kept.close()
    return Plan(total, number, answered)


def _guess(writer: _Writer, item: Item, piece: Piece) -> Cost:
    request = sum(tokens_in(each["content"]) for each in writer.opening(item, piece))
    share = TASKS[writer.settings.task].answer_share
    answer = min(writer.settings.most_tokens, round(tokens_in(piece.material) * share))
    return Cost(1, request, answer)


def synthesize(corpus: Corpus, asked: Asked, settings: Settings, store: Path) -> Synthesized:
    """Write new rows from the training rows of a corpus.

    Each answer is in the store before the next request begins, so a run that was cut off goes on
    where it was: called again with the same arguments it asks for nothing that was answered. The
    store is left where it is; remove it when the corpus is saved. Held-out rows stay as they are,
    so that what is measured stays. Every message of the other rows is in a new row, or dropped with
    the reason.

    Raises:
        InputError: a server that refuses or stops answering, nothing to write from, or not one
            usable answer.
    """
    pieces = list(_pieces(corpus, settings))
    if not pieces:
        raise InputError(
            "The corpus has nothing to write from", "Build one with training rows in it"
        )
    kept = Store(store)
    try:
        outcomes = _outcomes(pieces, _Writer(asked, settings, kept))
    finally:
        kept.close()
    _check_any(outcomes, store)
    spent = sum((each.spent for each in outcomes), Cost())
    work = [
        Piecework(item.row, piece.message, each.made)
        for (item, piece), each in zip(pieces, outcomes, strict=True)
    ]
    made = rebuild(corpus, work, _note(asked, settings, spent))
    return Synthesized(
        made,
        now=sum((each.fresh for each in outcomes), Cost()),
        all=spent,
        failed=sum(not each.made.talks for each in outcomes),
        unanswered=sum(not each.made.answered for each in outcomes),
    )


def _pieces(corpus: Corpus, settings: Settings) -> list[tuple[Item, Piece]]:
    task = TASKS[settings.task]
    return [(item, piece) for item in items(corpus, settings.limit) for piece in task.pieces(item)]


def _outcomes(pieces: Sequence[tuple[Item, Piece]], writer: _Writer) -> list[_Outcome]:
    """Return what came of every piece, in order: from the store, and the rest by asking."""
    found = [writer.from_store(item, piece) for item, piece in pieces]
    missing = [number for number, outcome in enumerate(found) if outcome is None]
    if len(missing) < len(pieces):
        remark(f"{len(pieces) - len(missing)} of {len(pieces)} were answered before")
    halt = threading.Event()
    watch = _Watch(any_answer=len(missing) < len(pieces))
    with (
        ThreadPoolExecutor(writer.asked.parallel) as pool,
        progress(f"Asking {writer.asked.name}", total=len(missing)) as bar,
    ):
        running: dict[Future[_Outcome], int] = {}
        try:
            for number in missing:
                write = partial(writer.write, *pieces[number], halt)
                future = pool.submit(copy_context().run, write)
                running[future] = number
                if len(running) >= writer.asked.parallel:
                    _collect(running, found, watch, bar)
            while running:
                _collect(running, found, watch, bar)
        except BaseException:
            # Each thread stores its answer itself: what is on its way is paid for and not lost.
            halt.set()
            on_way = sum(not future.done() for future in running)
            if on_way:
                remark(f"Stopping when what is on its way is answered: {on_way}")
            raise
    return [outcome for outcome in found if outcome is not None]


def _collect(
    running: dict[Future[_Outcome], int], found: list[_Outcome | None], watch: "_Watch", bar: Any
) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        number = running.pop(future)
        outcome = future.result()
        found[number] = outcome
        watch.saw(outcome)
        bar.advance()
        bar.say(watch.note())


@dataclass
class _Watch:
    """Stops a run whose server has stopped answering, or refuses everything."""

    any_answer: bool
    without: int = 0
    spent: Cost = field(default_factory=Cost)

    def saw(self, outcome: _Outcome) -> None:
        self.spent += outcome.fresh
        if outcome.made.answered:
            self.any_answer, self.without = True, 0
            return
        # One long text after the other may be refused; a server that refuses from the start is off.
        if outcome.passing or not self.any_answer:
            self.without += 1
        if self.without >= _IN_A_ROW:
            raise InputError(
                f"{self.without} requests in a row got {outcome.made.why}",
                "Run the same again when it is mended; what was answered is kept",
            )

    def note(self) -> str:
        return f"{self.spent.prompt_tokens} tokens in, {self.spent.answer_tokens} out"


def _check_any(outcomes: Sequence[_Outcome], store: Path) -> None:
    if any(each.made.talks for each in outcomes):
        return
    reasons = Counter(each.made.why for each in outcomes)
    worst, number = reasons.most_common(1)[0]
    raise InputError(
        f"Not one answer could be used: {worst} ({number} of {len(outcomes)})",
        f"Try another model; {store} keeps what was answered",
    )


def _note(asked: Asked, settings: Settings, spent: Cost) -> dict[str, Any]:
    """Return what the manifest says about the run, without what came of it."""
    wanted = {
        "role": (settings.role or ROLE) if "{role}" in TASKS[settings.task].wording else None,
        "limit": settings.limit,
        "most_tokens": settings.most_tokens,
        "corrections": settings.corrections,
        "price_in": settings.rates.prompt,
        "price_out": settings.rates.answer,
        **asked.identity,
    }
    return {
        "task": settings.task,
        "version": TASKS[settings.task].version,
        "model": asked.name,
        "settings": {name: value for name, value in wanted.items() if value is not None},
        "requests": spent.requests,
        "prompt_tokens": spent.prompt_tokens,
        "answer_tokens": spent.answer_tokens,
        "estimated": spent.estimated,
        "price": spent.price(settings.rates),
    }
