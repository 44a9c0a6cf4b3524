"""One request for words, from its body to what the engine is asked and how it is answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from loratelier.route import Decision
from loratelier.serve.api.answers import Form, Written, usage
from loratelier.serve.api.bodies import Generation, ResponseFormat
from loratelier.serve.api.errors import ApiError, bad_request, json_response
from loratelier.serve.api.face import Writer
from loratelier.serve.api.headers import BASE, decision_headers
from loratelier.serve.api.keys import Caller
from loratelier.serve.api.metrics import Metrics
from loratelier.serve.api.running import Running
from loratelier.serve.api.streams import Closing
from loratelier.serve.engine.asked import Asked, Sampling


@dataclass(frozen=True)
class Bounds:
    """What answers are held to.

    Attributes:
        context: tokens that the base reads, its answer included; None where it does not say.
        vocabulary: how many tokens there are.
        default_tokens: the most tokens of an answer where the request says nothing.
        seconds: the longest that an answer may take.
    """

    context: int | None
    vocabulary: int
    default_tokens: int
    seconds: float

    def room(self, prompt: int, wanted: int | None) -> int:
        """Return how many tokens an answer may have.

        Raises:
            ApiError: the prompt and what is wanted are longer than the base reads.
        """
        if self.context is None:
            return wanted or self.default_tokens
        left = self.context - prompt
        if left < (wanted or 1):
            more = f" and {wanted} are wanted" if wanted else ""
            raise ApiError(
                400,
                f"The base reads {self.context} tokens; the prompt has {prompt}{more}",
                code="context_length_exceeded",
                param="messages",
            )
        return wanted or min(left, self.default_tokens)


@dataclass(frozen=True)
class Plan:
    """A request that is ready to be written: what was decided, and what the engine is asked."""

    decision: Decision
    asked: tuple[Asked, ...]
    prompt_tokens: int

    @property
    def label(self) -> str:
        """What metrics call what is worn: an adapter, ``base`` or ``mixture``."""
        names = list(self.decision.mix or ())
        return names[0] if len(names) == 1 else "mixture" if names else BASE

    @property
    def most(self) -> int:
        """The most tokens that it can take: prompts and answers."""
        return sum(len(each.ids) + each.sampling.max_tokens for each in self.asked)


def plan(
    body: Generation,
    decision: Decision,
    prompts: Sequence[tuple[int, ...]],
    bounds: Bounds,
    *,
    limit: int | None,
    alternatives: int | None,
) -> Plan:
    """Say what the engine is asked: each prompt ``n`` times, seeds counted up from the given one.

    Raises:
        ApiError: a prompt leaves no room, or holds or biases a token that there is not.
    """
    for ids in prompts:
        if max(ids) >= bounds.vocabulary:
            raise bad_request(f"There are {bounds.vocabulary} tokens", "prompt")
    biased = {int(number): bias for number, bias in (body.logit_bias or {}).items()}
    if any(number >= bounds.vocabulary for number in biased):
        raise bad_request(f"There are {bounds.vocabulary} tokens", "logit_bias")
    asked: list[Asked] = []
    for ids in prompts:
        room = bounds.room(len(ids), limit)
        for _ in range(body.n):
            seed = None if body.seed is None else (body.seed + len(asked)) % 2**63
            sampling = _sampling(body, decision.sampling, biased, seed, room, alternatives)
            asked.append(
                Asked(ids=ids, mix=decision.mix, sampling=sampling, deadline=bounds.seconds,
                      from_token=None)
            )  # fmt: skip
    return Plan(decision, tuple(asked), sum(map(len, prompts)))


def _sampling(
    body: Generation,
    role: Mapping[str, float],
    biased: Mapping[int, float],
    seed: int | None,
    room: int,
    alternatives: int | None,
) -> Sampling:
    """Take what the request says, else what the role says, else what OpenAI's API does."""

    def chosen(given: float | None, key: str, otherwise: float) -> float:
        return role.get(key, otherwise) if given is None else given

    return Sampling(
        temperature=chosen(body.temperature, "temperature", 1.0),
        top_p=chosen(body.top_p, "top_p", 1.0),
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        repetition_penalty=chosen(body.repetition_penalty, "repetition_penalty", 1.0),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=tuple(sorted(biased.items())),
        seed=seed,
        max_tokens=room,
        stop=body.stops,
        logprobs=alternatives,
        schema=schema_of(body.response_format),
        ignore_eos=body.ignore_eos,
    )


def schema_of(form: ResponseFormat | None) -> str | None:
    """Return the JSON schema that an answer is held to, as text."""
    if form is None or form.type == "text":
        return None
    if form.json_schema is None:
        return '{"type":"object"}'
    return json.dumps(form.json_schema.schema_, ensure_ascii=False)


class Answering:
    """Answers one planned request, whole or as a stream, and counts what it took.

    Args:
        engine: writes.
        metrics: count.
        caller: who asks; what was set aside of the quota and not used is given back.
    """

    def __init__(
        self, engine: Writer, metrics: Metrics, caller: Caller, plan: Plan, form: Form
    ) -> None:
        self._metrics = metrics
        self._caller = caller
        self._plan = plan
        self._form = form
        self._began = perf_counter()
        self._is_counted = False
        self._written = [Written() for _ in plan.asked]
        self._running = Running(engine, plan.asked)

    async def begin(self) -> None:
        """Ask the engine, within the caller's quota.

        Raises:
            ApiError: 429, when the queue is full or the quota used up.
            InputError: what is asked cannot be carried out.
        """
        self._caller.admit(self._plan.most)
        try:
            await self._running.begin()
        except BaseException:
            self._caller.give_back(self._plan.most)
            raise
        self._metrics.worn.add(1, self._plan.label, self._plan.decision.stage)

    async def whole(self, request: Request) -> Response:
        """Answer at once; a client that goes away cancels its request."""
        writing = asyncio.ensure_future(self._write())
        leaving = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                return Response(status_code=499)  # nobody is there to read it
            writing.result()
        finally:
            for task in (writing, leaving):
                task.cancel()
            await self._close()
        document = self._form.document(self._written, self._usage())
        return json_response(document, headers=decision_headers(self._plan.decision))

    def stream(self, *, with_usage: bool) -> Response:
        """Answer piece by piece, as server-sent events that end with ``[DONE]``."""
        return Closing(
            self._events(with_usage),
            self._close,
            media_type="text/event-stream",
            headers={
                **decision_headers(self._plan.decision),
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            },
        )

    async def _write(self) -> None:
        async for heard in self._running.events():
            self._hear(heard.index, heard.event)

    def _hear(self, index: int, event: Any) -> None:
        if event.tokens and not any(each.tokens for each in self._written):
            self._metrics.first.observe(perf_counter() - self._began, self._plan.label)
        self._written[index].take(event)

    async def _events(self, with_usage: bool) -> AsyncIterator[bytes]:
        try:
            for piece in self._form.opening(len(self._plan.asked)):
                yield _event(piece)
            async for heard in self._running.events():
                before = Written(text=self._written[heard.index].text)
                self._hear(heard.index, heard.event)
                choice = self._form.change(heard.index, heard.event, before)
                if choice is not None:
                    yield _event(self._form.chunk([choice]))
            if with_usage:
                yield _event(self._form.chunk([], usage=self._usage()))
        except ApiError as error:
            # The status has gone out already: the error is an event of its own.
            yield _event(error.document())
        yield b"data: [DONE]\n\n"

    async def _close(self) -> None:
        self._running.cancel()
        self._count()

    def _usage(self) -> dict[str, Any]:
        written = sum(len(each.tokens) for each in self._written)
        # n answers to one prompt read it once, as far as the bill goes.
        cached = min(self._running.cached_tokens, self._plan.prompt_tokens)
        return usage(self._plan.prompt_tokens, cached, written)

    def _count(self) -> None:
        if self._is_counted:
            return
        self._is_counted = True
        counts, label = self._usage(), self._plan.label
        written = counts["completion_tokens"]
        read = sum(len(each.ids) for each in self._plan.asked)
        self._caller.give_back(self._plan.most - read - written)
        self._metrics.prompt.add(counts["prompt_tokens"], label)
        self._metrics.cached.add(counts["prompt_tokens_details"]["cached_tokens"], label)
        self._metrics.written.add(written, label)
        for each in self._written:
            self._metrics.finished.add(1, label, each.finish or "broken")
        self._metrics.whole.observe(perf_counter() - self._began, label)


async def _gone(request: Request) -> None:
    """Return once the client has hung up."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


def _event(document: dict[str, Any]) -> bytes:
    body = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + body.encode("utf-8", errors="replace") + b"\n\n"
