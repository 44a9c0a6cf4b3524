"""The engine: requests come and go in one running batch, each wearing its own adapters.

One thread runs the model. At each turn of its loop it reads a piece of a prompt that is waiting,
and writes one token in every row; a row that is over makes room for the next. What a request is
answered with does not depend on who else is there: rows are apart in the cache, in their gates and
in their random numbers (up to the rounding of products of other shapes).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch

from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.base.decoder import hidden_states
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark
from loratelier.serve.engine.asked import Asked, Busy, Event, Finish, Token
from loratelier.serve.engine.held import Held
from loratelier.serve.engine.prefixes import Prefix, Prefixes
from loratelier.serve.engine.requests import require_readable, row_of
from loratelier.serve.engine.row import Row
from loratelier.serve.engine.slots import Slots, masks
from loratelier.serve.engine.ticket import Ticket

# Adapters that are kept side by side for a batch whose rows change.
_AT_HAND = 64


@dataclass(frozen=True)
class EngineSettings:
    """How much an engine does at once.

    ``max_rows``: answers written at once. ``max_queue``: requests that wait; one more is refused.
    ``cache_bytes``: of the prefix cache, 0 for none. ``prefill_chunk``: tokens of a prompt read
    between two steps of those that are being written.
    """

    max_rows: int = 16
    max_queue: int = 256
    cache_bytes: int = 512 * 2**20
    prefill_chunk: int = 256


@dataclass(frozen=True)
class Stats:
    """What an engine is doing and has done; times in seconds."""

    running: int
    waiting: int
    finished: int
    prompt_tokens: int
    written_tokens: int
    cache_hits: int
    cache_misses: int
    cache_tokens: int
    cache_bytes: int
    busy_seconds: float


class Engine:
    """Answers requests in batches.

    Args:
        base: the base; its model must not be used by others while the engine runs.
        settings: how much at once.

    Raises:
        InputError: the base keeps something else than keys and values of every token.
    """

    def __init__(self, base: Base, *, settings: EngineSettings | None = None) -> None:
        self.base = base
        self.settings = settings or EngineSettings()
        config = base.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if not kinds <= {"full_attention", "sliding_attention"}:
            raise InputError(
                f"{base.name} has layers of the kinds {', '.join(sorted(kinds))}",
                "The engine serves models with full or sliding attention; chat with it instead",
            )
        # A budget makes the bank look into its stacks instead of copying them for each row, so that
        # a batch whose rows change costs nothing.
        self._bank = AdapterBank(base.model, resident_bytes=2**62)
        self.adapters = Held(base, self._bank, self._on_thread)
        self._slots = Slots(config.num_hidden_layers, self.settings.max_rows)
        self._prefixes = Prefixes(self.settings.cache_bytes)
        self._tables: dict[int, Any] = {}
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._reading: Row | None = None
        self._chores: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_running = False
        self._stopping: float | None = None
        self._worn: tuple[object, ExitStack] = (None, ExitStack())
        self._finished = self._prompted = self._written = 0
        self._busy = 0.0

    def start(self) -> None:
        """Begin to answer."""
        self._is_running = True
        self._thread = threading.Thread(target=self._run, name="loratelier-engine", daemon=True)
        self._thread.start()

    def stop(self, grace: float = 0.0) -> None:
        """Take no more requests, let those that run be answered for ``grace`` seconds, and end."""
        with self._wake:
            self._stopping = perf_counter() + grace
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._bank.close()

    def submit(self, asked: Asked) -> Ticket:
        """Begin an answer.

        Raises:
            Busy: the queue is full, or the engine is stopping.
            InputError: nothing asked, more than the base can read, an unknown adapter, a gate or a
                schema that is none.
        """
        ticket = Ticket(asked)
        with self._wake:
            self._require_room()
        versions = self.adapters.take(tuple(asked.mix or ()))
        try:
            row = row_of(self.base, ticket, versions, self.adapters.knowing(versions), self._tables)
            with self._wake:
                self._require_room()
                self._waiting.append(row)
                self._wake.notify()
        except BaseException:
            self._on_thread(lambda: self.adapters.give_back(versions))
            raise
        return ticket

    def embed(self, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the mean of the base's last hidden states for each text, of length 1.

        Raises:
            InputError: a text without tokens, or one that is longer than the base can read.
        """
        for each in ids:
            require_readable(self.base, len(each))
        return [self._on_thread(partial(self._embedded, each)) for each in ids]

    def stats(self) -> Stats:
        """Return what the engine is doing and has done."""
        with self._wake:
            reading = 1 if self._reading is not None else 0
            return Stats(
                running=len(self._running) + reading,
                waiting=len(self._waiting),
                finished=self._finished,
                prompt_tokens=self._prompted,
                written_tokens=self._written,
                cache_hits=self._prefixes.hits,
                cache_misses=self._prefixes.misses,
                cache_tokens=self._prefixes.tokens,
                cache_bytes=self._prefixes.nbytes,
                busy_seconds=self._busy,
            )

    def _require_room(self) -> None:
        if self._stopping is not None:
            raise Busy("the engine is stopping")
        if len(self._waiting) >= self.settings.max_queue:
            raise Busy(f"{len(self._waiting)} requests are waiting already")

    def _on_thread(self, chore: Callable[[], Any]) -> Any:
        """Carry out a chore on the thread that runs the model, between two steps."""
        done: Future[Any] = Future()
        with self._wake:
            here = not self._is_running or threading.current_thread() is self._thread
            if not here:
                self._chores.append((chore, done))
                self._wake.notify()
        return chore() if here else done.result()

    @torch.no_grad()
    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._has_work():
                    self._wake.wait()
                chores, self._chores = list(self._chores), deque()
                stopping = self._stopping
            if chores:
                self._undress()  # what is worn cannot be taken away
            for chore, done in chores:
                _carry_out(chore, done)
            self._drop_those_left()
            if stopping is not None and (not self._rows() or perf_counter() > stopping):
                for row in self._rows():
                    self._end(row, "shutdown")
                self._undress()
                self._close()
                return
            began = perf_counter()
            self._read()
            self._write()
            self._busy += perf_counter() - began

    def _close(self) -> None:
        """Carry out what was asked of the thread in its last moment; then it is asked nothing."""
        with self._wake:
            self._is_running = False
            chores, self._chores = list(self._chores), deque()
        for chore, done in chores:
            _carry_out(chore, done)

    def _has_work(self) -> bool:
        return bool(self._chores or self._rows() or self._stopping is not None)

    def _rows(self) -> list[Row]:
        reading = [] if self._reading is None else [self._reading]
        return [*self._running, *reading, *self._waiting]

    def _drop_those_left(self) -> None:
        for row in self._rows():
            if row.ticket.cancelled:
                self._end(row, "cancelled")
            elif row.ticket.is_late:
                self._end(row, "deadline")

    def _read(self) -> None:
        """Read a piece of the prompt whose turn it is."""
        if self._reading is None:
            with self._wake:
                if not self._waiting or len(self._running) >= self.settings.max_rows:
                    return
                self._reading = self._waiting.popleft()
            self._begin(self._reading)
        row = self._reading
        try:
            scores = self._piece(row)
        except Exception as error:  # one request's fault is not that of the others
            self._fail(row, error)
            return
        if scores is None:
            return
        self._reading = None
        self._running.append(row)
        self._chosen(row, scores)

    def _begin(self, row: Row) -> None:
        found = self._prefixes.find(row.ids, row.key, row.trunk)
        if found is not None:
            prefix, length = found
            self._slots.put(len(self._running), prefix.kept, length)
            row.read = row.ticket.cached_tokens = length
        self._prompted += len(row.ids)

    def _piece(self, row: Row) -> torch.Tensor | None:
        """Read a piece of a prompt; return the scores after its last token when it is over."""
        model, device = self.base.model, self.base.device
        end = min(len(row.ids), row.read + self.settings.prefill_chunk)
        positions = torch.arange(row.read, end, device=device)[None]
        self._slots.read(len(self._running), row.read, end - row.read)
        self._wear([row.reading()])
        made = model(
            input_ids=torch.tensor([row.ids[row.read : end]], device=device),
            attention_mask=masks(model.config, positions, end, model.dtype),
            position_ids=positions,
            past_key_values=self._slots,
            use_cache=True,
            logits_to_keep=1,
        )
        row.read = end
        return None if end < len(row.ids) else made.logits[0, -1].float()

    def _write(self) -> None:
        """Write one token in every row."""
        rows = list(self._running)
        if not rows:
            return
        model, device = self.base.model, self.base.device
        lengths = [row.read for row in rows]
        positions = torch.tensor(lengths, device=device)[:, None]
        try:
            self._slots.step(lengths, device)
            self._wear([row.writing_now() for row in rows])
            made = model(
                input_ids=torch.tensor([[row.ids[-1]] for row in rows], device=device),
                attention_mask=masks(model.config, positions, self._slots.longest, model.dtype),
                position_ids=positions,
                past_key_values=self._slots,
                use_cache=True,
                logits_to_keep=1,
            )
        except Exception as error:
            for row in rows:
                self._fail(row, error)
            return
        # All of them before the first is over: one that is over lets another move into its slot.
        for row in rows:
            row.read += 1
        for row, scores in zip(rows, made.logits[:, -1].float(), strict=True):
            self._chosen(row, scores)

    def _chosen(self, row: Row, scores: torch.Tensor) -> None:
        try:
            chosen = row.chooser.choose(scores)
        except Exception as error:
            self._fail(row, error)
            return
        self._written += 1
        row.ids.append(chosen.id)
        written = len(row.ids) - row.prompt
        over = chosen.id in row.ends
        text = "" if over else row.writing.add(chosen.id)
        finish: Finish | None = None
        if over or row.writing.stopped:
            finish = "stop"
        elif written >= row.most:
            finish = "length"
        if finish is not None:
            text += row.writing.end()
        token = Token(chosen.id, text, chosen.logprob, chosen.top)
        if finish is None:
            row.ticket.put(Event((token,), text))
        else:
            self._end(row, finish, Event((token,), text, finish))

    def _wear(self, mix: list[dict[str, Any]]) -> None:
        """Open the gates of a pass; those that are open already stay so."""
        # Gates that are tensors belong to one pass of one row.
        plain = all(isinstance(gate, float) for row in mix for gate in row.values())
        if plain and self._worn[0] == mix:
            return
        self._undress()
        held = self.adapters.at_hand()
        beside = held if len(held) <= _AT_HAND else ()
        opened = ExitStack()
        opened.enter_context(self._bank.activate(mix, beside=beside, waits=False))
        self._worn = (mix if plain else None, opened)

    def _undress(self) -> None:
        self._worn[1].close()
        self._worn = (None, ExitStack())

    def _embedded(self, ids: Sequence[int]) -> list[float]:
        self._undress()
        with torch.no_grad():
            ids_of = torch.tensor([list(ids)], device=self.base.device)
            states = hidden_states(self.base.model, ids_of)
        mean = states[0].float().mean(0)
        found: list[float] = (mean / mean.norm().clamp_min(1e-12)).tolist()
        return found

    def _fail(self, row: Row, error: Exception) -> None:
        told = error.what if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        remark(f"A request failed: {told}")
        self._end(row, "error", Event((), row.writing.end(), "error", told))

    def _end(self, row: Row, finish: Finish, last: Event | None = None) -> None:
        """Let a row go, keep what it read, and fill its slot with another."""
        if row in self._running:
            slot, final = self._running.index(row), len(self._running) - 1
            self._keep(row, slot)
            moved = self._running.pop()
            if moved is not row:
                self._running[slot] = moved
                self._slots.move(final, slot, moved.read)
            if self._reading is not None:
                self._slots.move(final + 1, final, self._reading.read)
        elif row is self._reading:
            self._reading = None
        else:
            with self._wake:
                if row in self._waiting:
                    self._waiting.remove(row)
        self._undress()
        self.adapters.give_back([wear.version for wear in row.worn])
        self._finished += 1
        row.ticket.put(last or Event((), row.writing.end(), finish))

    def _keep(self, row: Row, slot: int) -> None:
        if self.settings.cache_bytes and row.read:
            ids = torch.tensor(row.ids[: row.read])
            kept = self._slots.taken(slot, row.read)
            self._prefixes.keep(Prefix(ids, row.key, row.trunk, kept))


def _carry_out(chore: Callable[[], Any], done: "Future[Any]") -> None:
    try:
        done.set_result(chore())
    except BaseException as error:
        done.set_exception(error)
