"""Any API of OpenAI's protocol: ``POST URL/chat/completions``, paced, its key never shown."""

import json
import os
import random
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from loratelier.corpus.synthesize.asked import Answer, Failed, Messages
from loratelier.corpus.synthesize.cost import tokens_in
from loratelier.corpus.synthesize.pace import Pace, rest
from loratelier.corpus.synthesize.wire import (
    Malformed,
    Wire,
    checked_key,
    connection_failure,
    retry_after,
)
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark

KEY = "OPENAI_API_KEY"
# Worth another try: the server is busy, or was for a moment.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
# One request's own fault: too long, against a rule of the server's.
_ONE = frozenset({400, 413, 422})
_REFUSED = {
    401: "the key is wrong or missing",
    402: "the account has no credit",
    403: "the key may not do this",
    404: "the address or the model is unknown",
}
_LONGEST_WAIT = 60.0  # seconds between two tries, where the server names no time
_PATIENCE = 600.0  # seconds that a server may ask us to wait
_NO_CREDIT = "insufficient_quota"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Api:
    """A model behind an API.

    Args:
        url: the base address, as ``https://api.example.org/v1``.
        model: the model's name there.
        key_env: the environment variable that holds the key; it may be unset for a server that
            wants none. The key is read from there and goes nowhere but to ``url``.
        temperature: as the protocol has it; None leaves it to the server.
        requests_per_minute: at most; None sets no bound.
        tokens_per_minute: of prompts and answers, on the mean; None sets no bound.
        parallel: requests at once.
        tries: how often one request is sent at most.
        timeout: seconds to wait for an answer.
        first_wait: seconds before the second try; each later wait is twice as long, at random
            between half and all of it. A ``Retry-After`` of the server's takes its place.

    Raises:
        InputError: an address that is none, a key that cannot be one or would travel unencrypted,
            a number out of range.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str = KEY,
        temperature: float | None = 0.7,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        parallel: int = 4,
        tries: int = 6,
        timeout: float = 120.0,
        first_wait: float = 1.0,
    ) -> None:
        for name, value in (
            ("requests per minute", requests_per_minute),
            ("tokens per minute", tokens_per_minute),
            ("parallel", parallel),
            ("tries", tries),
            ("timeout", timeout),
        ):
            if value is not None and value <= 0:
                raise InputError(f"{name} = {value} lets nothing through", "Give more than 0")
        key = checked_key(os.environ.get(key_env, ""), key_env)
        self._wire = Wire(url, key, timeout)
        self._key_env = key_env
        self._model = model
        self._temperature = temperature
        self._pace = Pace(requests_per_minute, tokens_per_minute)
        self._parallel = parallel
        self._tries = tries
        self._first_wait = first_wait
        self._dialect = _Dialect(temperature)
        self._reached = False

    def __repr__(self) -> str:
        return f"Api({self._wire.url!r}, {self._model!r})"

    @property
    def name(self) -> str:
        """The model's name there."""
        return self._model

    @property
    def parallel(self) -> int:
        """How many requests are sent at once."""
        return self._parallel

    @property
    def identity(self) -> Mapping[str, Any]:
        """Where the model is, and how words are drawn."""
        return {"api": self._wire.url, "model": self._model, "temperature": self._temperature}

    def ask(self, messages: Messages, most_tokens: int, halt: threading.Event) -> Answer:
        """Send one request, again and again while the failure is a passing one.

        Raises:
            Failed: it did not pass, or the server refuses this one request.
            Halted: the run is being stopped.
            InputError: the server refuses every request like this.
        """
        guess = sum(tokens_in(each["content"]) for each in messages)
        why = ""
        for attempt in range(1, self._tries + 1):
            self._pace.wait(guess, halt)
            wait = min(self._first_wait * 2 ** (attempt - 1), _LONGEST_WAIT)
            wait *= random.uniform(0.5, 1.0)
            spoken = self._dialect
            try:
                answer = _answer(self._send(messages, most_tokens, spoken), guess)
            except HTTPError as error:
                why, named = self._status(error, spoken)
                wait = wait if named is None else named
            except Malformed as error:
                why = str(error)
            except (URLError, HTTPException, OSError) as error:
                why = connection_failure(error, self._wire.url, reached=self._reached)
            else:
                self._pace.correct(answer.prompt_tokens + answer.answer_tokens - guess)
                return answer
            if attempt < self._tries:
                rest(wait, halt)
        raise Failed(f"{why}, {self._tries} times", passing=True)

    def _send(self, messages: Messages, most_tokens: int, spoken: "_Dialect") -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(each) for each in messages],
            spoken.limit: most_tokens,
        }
        if spoken.temperature is not None:
            body["temperature"] = spoken.temperature
        data = self._wire.post("/chat/completions", body)
        self._reached = True
        return data

    def _status(self, error: HTTPError, spoken: "_Dialect") -> tuple[str, float | None]:
        """Say what a passing failure was, and how long the server wants us to wait.

        Raises:
            Failed: a refusal of this one request.
            InputError: a refusal of all.
        """
        self._reached = True
        with error:
            fault = self._wire.fault(error)
        said = f"the server answered {error.code}" + (f" ({fault.words})" if fault.words else "")
        if error.code in _PASSING and fault.code != _NO_CREDIT:
            return said, self._asked_to_wait(error)
        if error.code in _ONE:
            if self._adapts(spoken, fault.about):
                return said, 0.0
            raise Failed(said, passing=False) from None
        if 300 <= error.code < 400:
            where = urlsplit(error.headers.get("Location") or "").netloc or "another address"
            raise InputError(
                f"{self._wire.url} redirects to {where}, and the key stays here",
                "Give the address itself with --api",
            ) from None
        meaning = "the account has no credit" if fault.code == _NO_CREDIT else ""
        meaning = meaning or _REFUSED.get(error.code, "it does not speak the protocol")
        raise InputError(
            f"{self._wire.url} answered {error.code}: {meaning}"
            + (f" ({fault.words})" if fault.words else ""),
            f"Check --api, --model and the environment variable {self._key_env}",
        ) from None

    def _asked_to_wait(self, error: HTTPError) -> float | None:
        seconds = retry_after(error.headers.get("Retry-After"))
        if seconds is None:
            return None
        if seconds > _PATIENCE:
            raise InputError(
                f"{self._wire.url} asks to wait {seconds:.0f} seconds",
                "Run the same again then; what was answered is kept",
            ) from None
        self._pace.pause(seconds)
        return seconds

    def _adapts(self, spoken: "_Dialect", about: str) -> bool:
        """Whether the next try says it otherwise: models differ in what they take."""
        if about == "max_tokens" and spoken.limit == "max_tokens":
            self._dialect = replace(self._dialect, limit="max_completion_tokens")
            return True
        if about == "temperature" and spoken.temperature is not None:
            if self._dialect.temperature is not None:
                remark(f"{self._model} takes no temperature: it is left to the server")
            self._dialect = replace(self._dialect, temperature=None)
            return True
        return False


@dataclass(frozen=True)
class _Dialect:
    """How a request is worded: newer models take the longest length by another name."""

    temperature: float | None
    limit: str = "max_tokens"


def _answer(data: bytes, guess: int) -> Answer:
    """Read an answer; ``guess`` stands for the prompt's tokens where none are reported."""
    try:
        document = json.loads(data)
        choice = document["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Malformed("the answer is none of the protocol") from error
    if not isinstance(text, str) or not text.strip():
        raise Malformed("the answer is empty")
    text = _SURROGATES.sub("\ufffd", text)
    cut = choice.get("finish_reason") == "length"
    usage = document.get("usage")
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    if None in counts:
        return Answer(text, guess, tokens_in(text), estimated=True, cut=cut)
    return Answer(text, counts[0] or 0, counts[1] or 0, cut=cut)


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else None
