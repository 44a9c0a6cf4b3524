"""Who may ask: keys, the adapters that each may use, and how much in a minute."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from loratelier.kit.errors import InputError
from loratelier.kit.models import Strict, problem
from loratelier.serve.api.errors import ApiError

_SHA = re.compile(r"[0-9a-f]{64}")


class KeyRule(Strict):
    """One key of the file.

    Attributes:
        key: the key itself, as a client sends it after ``Bearer``.
        sha256: instead of the key its SHA-256 in hexadecimal, so that the file holds no secret.
        adapters: the adapters that it may use; without it all of them, with ``[]`` the base alone.
        requests_per_minute: how many requests; without it as many as there are.
        tokens_per_minute: prompt and answer together; without it as many as there are.
    """

    key: Annotated[str, Field(min_length=8)] | None = None
    sha256: str | None = None
    adapters: tuple[str, ...] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> "KeyRule":
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either 'key' or 'sha256'")
        if self.sha256 is not None and not _SHA.fullmatch(self.sha256):
            raise ValueError("'sha256' is 64 hexadecimal digits, in small letters")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the key, in hexadecimal."""
        return self.sha256 or _digest(self.key or "")


class KeyFile(Strict):
    """The whole file: ``keys:`` with a name for each, which is what logs and metrics say."""

    keys: dict[str, KeyRule]


class Bucket:
    """So much in a minute: it fills evenly, and what is taken must be in it.

    Args:
        most: what it holds, and what flows into it in a minute.
        clock: seconds that only grow.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._level = float(most)
        self._seen = clock()

    def wait_for(self, amount: float) -> float:
        """Return the seconds until that much is there; 0 when it is.

        More than the bucket ever holds is let through once the bucket is full: one long request
        then uses up the minute, and the debt is waited off afterwards.
        """
        self._fill()
        short = min(amount, self.most) - self._level
        return max(0.0, short * 60 / self.most)

    def take(self, amount: float) -> None:
        """Take that much, or give back what is negative; the level may fall below nothing."""
        self._fill()
        self._level = min(float(self.most), self._level - amount)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(float(self.most), self._level + (now - self._seen) * self.most / 60)
        self._seen = now


@dataclass(frozen=True)
class Caller:
    """Who asks.

    ``name`` is what the key is called in its file, ``anyone`` where there are no keys; ``allowed``
    is None for every adapter.
    """

    name: str
    allowed: frozenset[str] | None
    requests: Bucket | None = None
    tokens: Bucket | None = None

    def may(self, adapter: str) -> bool:
        """Whether this caller may use an adapter."""
        return self.allowed is None or adapter in self.allowed

    def admit(self, tokens: int) -> None:
        """Count a request, and set aside the tokens that it may take.

        Raises:
            ApiError: 429 with ``Retry-After``, when either is used up; nothing is counted then.
        """
        wanted = [(self.requests, 1, "requests"), (self.tokens, tokens, "tokens")]
        for bucket, amount, what in wanted:
            wait = bucket.wait_for(amount) if bucket is not None else 0
            if wait > 0:
                raise ApiError(
                    429,
                    f"This key's {what} of the minute are used up",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": str(int(wait) + 1)},
                )
        for bucket, amount, _ in wanted:
            if bucket is not None:
                bucket.take(amount)

    def give_back(self, tokens: int) -> None:
        """Return tokens that were set aside and not used."""
        if self.tokens is not None:
            self.tokens.take(-tokens)


ANYONE = Caller("anyone", None)


class Keys:
    """The callers by the digests of their keys; without rules everyone is let in."""

    def __init__(self, rules: Mapping[str, KeyRule] | None = None) -> None:
        self._callers = (
            None if rules is None else {r.digest: _caller(n, r) for n, r in rules.items()}
        )
        if rules is not None and len(self._callers or ()) < len(rules):
            raise InputError("Two names of the key file have the same key", "Give each its own")

    @classmethod
    def load(cls, path: Path) -> "Keys":
        """Read a key file.

        Raises:
            InputError: it is missing, is no YAML of this form, or holds a key twice; keys are
                never said.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The key file {path} cannot be read") from error
        except yaml.YAMLError as error:
            raise InputError(f"The key file {path} is no YAML") from error
        if not isinstance(values, dict):
            raise InputError(f"{path} is no key file", "It has 'keys:' with names under it")
        try:
            return cls(KeyFile.model_validate(values).keys)
        except InputError as error:
            raise InputError(f"{path}: {error.what}", error.mend) from error
        except ValidationError as error:
            # Without what was given, which may be a key.
            raise InputError(f"{path}: {problem(error).split(' (given:')[0]}") from error

    @property
    def are_asked_for(self) -> bool:
        """Whether a caller needs a key at all."""
        return self._callers is not None

    @property
    def count_tokens(self) -> bool:
        """Whether any key has so many tokens in a minute."""
        return any(caller.tokens is not None for caller in (self._callers or {}).values())

    def caller(self, authorization: str | None) -> Caller:
        """Return who sends an ``Authorization`` header.

        Raises:
            ApiError: 401, when a key is needed and this is none.
        """
        if self._callers is None:
            return ANYONE
        digest = _digest(bearer(authorization))
        # All are compared, each in constant time: how long it takes says nothing about a key.
        found = [who for own, who in self._callers.items() if hmac.compare_digest(own, digest)]
        if not found:
            raise ApiError(401, "This key is none of this server's", code="invalid_api_key")
        return found[0]


def is_key(authorization: str | None, key: str) -> bool:
    """Whether a header carries just this key."""
    return hmac.compare_digest(_digest(bearer(authorization)), _digest(key))


def bearer(authorization: str | None) -> str:
    """Return the key of an ``Authorization`` header; empty when there is none."""
    kind, _, key = (authorization or "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).hexdigest()


def _caller(name: str, rule: KeyRule) -> Caller:
    requests, tokens = rule.requests_per_minute, rule.tokens_per_minute
    return Caller(
        name,
        None if rule.adapters is None else frozenset(rule.adapters),
        None if requests is None else Bucket(requests),
        None if tokens is None else Bucket(tokens),
    )
