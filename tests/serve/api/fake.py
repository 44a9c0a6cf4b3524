"""An engine that writes what it was asked for: quick, and every request can be looked at."""

import threading
import time
from types import SimpleNamespace

from loratelier.serve.engine.asked import Busy, Event, Token


class FakeAdapters:
    def __init__(self):
        self.held = {}

    def add(self, name, adapter):
        self.held[name] = adapter

    replace = add

    def remove(self, name):
        del self.held[name]

    @property
    def names(self):
        return tuple(self.held)


class FakeTicket:
    def __init__(self, engine, asked):
        self.engine, self.asked = engine, asked
        self.cached_tokens, self.first_token_seconds = 1, 0.0
        self.cancelled = threading.Event()

    def cancel(self):
        self.cancelled.set()

    def events(self, timeout=None):
        try:
            yield from self._events()
        finally:
            self.engine.running.discard(self)

    def _events(self):
        engine, sampling = self.engine, self.asked.sampling
        if engine.breaks:
            yield Event((), "", engine.breaks, "broken on order")
            return
        worn = "+".join(self.asked.mix or ()) or "base"
        said = (engine.says or "I am {}.").format(worn)
        ids = engine.tokenizer(said, add_special_tokens=False)["input_ids"]
        finish = "stop"
        if engine.endless or len(ids) > sampling.max_tokens:
            ids, finish = (ids * sampling.max_tokens)[: sampling.max_tokens], "length"
        for number in ids:
            if self.cancelled.wait(engine.pause):
                yield Event((), "", "cancelled")
                return
            piece = engine.tokenizer.decode([number])
            top = () if not sampling.logprobs else ((number, -0.5),) * sampling.logprobs
            logprob = None if sampling.logprobs is None else -0.5
            yield Event((Token(number, piece, logprob, top),), piece)
        yield Event((), "", finish)


class FakeEngine:
    def __init__(self, base, pause=0.0):
        self.tokenizer = base.tokenizer
        self.adapters = FakeAdapters()
        self.pause = pause
        self.endless = False
        self.says = None
        self.breaks = None
        self.most = 64
        self.running = set()
        self.asked = []
        self.stopped = None

    def start(self):
        pass

    def stop(self, grace):
        self.stopped = grace
        for ticket in list(self.running):
            ticket.cancel()

    def submit(self, asked):
        if len(self.running) >= self.most:
            raise Busy("full")
        self.asked.append(asked)
        ticket = FakeTicket(self, asked)
        self.running.add(ticket)
        return ticket

    def embed(self, ids):
        return [[1.0, float(len(each))] for each in ids]

    def stats(self):
        return SimpleNamespace(running=len(self.running), waiting=0)

    @property
    def last(self):
        return self.asked[-1]

    def prompt(self):
        """What the engine was last asked, special tokens and all."""
        return self.tokenizer.decode(list(self.last.ids))

    def wait_until_idle(self, seconds=5):
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            time.sleep(0.01)
        return not self.running
