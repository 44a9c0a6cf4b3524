"""Answers as documents of the OpenAI API: whole ones, and the pieces of a stream."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loratelier.scope.pieces import Pieces
from loratelier.serve.engine.asked import Event, Token
from loratelier.serve.library import Found, citations


@dataclass
class Written:
    """What one answer has so far."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None

    def take(self, event: Event) -> None:
        """Add an event."""
        self.text += event.text
        self.tokens += event.tokens
        self.finish = event.finish


class Form:
    """The form of the answers to one request.

    Args:
        model: the model as it was asked for.
        fingerprint: of the base.
        pieces: makes text of single tokens.
        logprobs: whether log probabilities are told.
        route: the decision, where it is to be explained.
    """

    id_prefix = ""
    whole = ""
    piece = ""
    # What stood before the question; None where nothing was to be looked up.
    found: Sequence[Found] | None = None

    def __init__(
        self,
        model: str,
        fingerprint: str,
        pieces: Pieces,
        *,
        logprobs: bool,
        route: dict[str, Any] | None = None,
    ) -> None:
        self._pieces = pieces
        self._logprobs = logprobs
        self._route = route
        self._head = {
            "id": f"{self.id_prefix}{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint.removeprefix("sha256:")[:16],
        }

    def document(self, written: Sequence[Written], usage: dict[str, Any]) -> dict[str, Any]:
        """Return a whole answer."""
        choices = [self.choice(index, each) for index, each in enumerate(written)]
        told: dict[str, Any] = {} if self._route is None else {"route": self._route}
        if self.found is not None:
            told["citations"] = citations(" ".join(each.text for each in written), self.found)
        return {**self._head, "object": self.whole, "choices": choices, "usage": usage, **told}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Return a piece of a stream."""
        return {**self._head, "object": self.piece, "choices": choices, **more}

    def opening(self, count: int) -> list[dict[str, Any]]:
        """Return the pieces that come before the first word."""
        pieces = [self.chunk([], route=self._route)] if self._route is not None else []
        if self.found is not None:
            # Which of them the answer names is not known yet.
            notes = [
                {key: value for key, value in each.items() if key != "named"}
                for each in citations("", self.found)
            ]
            pieces.append(self.chunk([], citations=notes))
        return pieces

    def choice(self, index: int, written: Written) -> dict[str, Any]:
        """Return one whole answer."""
        raise NotImplementedError

    def change(self, index: int, event: Event, before: Written) -> dict[str, Any] | None:
        """Return what an event adds, ``before`` it; None where that is nothing."""
        raise NotImplementedError

    def token(self, number: int) -> str:
        """Return the text of one token."""
        return self._pieces(number)


class ChatForm(Form):
    """``chat.completion``."""

    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    piece = "chat.completion.chunk"

    def opening(self, count: int) -> list[dict[str, Any]]:
        """Return the pieces that come before the first word: who speaks."""
        said = {"role": "assistant", "content": ""}
        choices = [_delta(index, said, None, None) for index in range(count)]
        return [*super().opening(count), self.chunk(choices)]

    def choice(self, index: int, written: Written) -> dict[str, Any]:
        """Return one whole answer."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": written.text, "refusal": None},
            "logprobs": self._told(written.tokens),
            "finish_reason": written.finish,
        }

    def change(self, index: int, event: Event, before: Written) -> dict[str, Any] | None:
        """Return what an event adds; None where that is nothing."""
        told = self._told(event.tokens) if event.tokens else None
        if not (event.text or told or event.finish):
            return None
        said = {"content": event.text} if event.text or told else {}
        return _delta(index, said, told, event.finish)

    def _told(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        content = [
            {
                **self._likelihood(token.id, token.logprob),
                "top_logprobs": [self._likelihood(*each) for each in token.top],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _likelihood(self, number: int, logprob: float | None) -> dict[str, Any]:
        text = self.token(number)
        # Half a character is told as \xNN, and its bytes are not said twice.
        whole = None if "\\x" in text else list(text.encode("utf-8"))
        return {"token": text, "logprob": finite(logprob), "bytes": whole}


class CompletionForm(Form):
    """``text_completion``; ``prompts`` are said before the answers where they are echoed."""

    id_prefix = "cmpl-"
    whole = "text_completion"
    piece = "text_completion"
    echoed: Sequence[str] = ()

    def opening(self, count: int) -> list[dict[str, Any]]:
        """Return the pieces that come before the first word: the echo."""
        choices = [_text(index, text, None, None) for index, text in enumerate(self.echoed)]
        return [*super().opening(count), *([self.chunk(choices)] if choices else [])]

    def choice(self, index: int, written: Written) -> dict[str, Any]:
        """Return one whole answer."""
        echo = self.echoed[index] if self.echoed else ""
        told = self._told(written.tokens, 0)
        return _text(index, echo + written.text, told, written.finish)

    def change(self, index: int, event: Event, before: Written) -> dict[str, Any] | None:
        """Return what an event adds; None where that is nothing."""
        told = self._told(event.tokens, len(before.text)) if event.tokens else None
        if not (event.text or told or event.finish):
            return None
        return _text(index, event.text, told, event.finish)

    def _told(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.piece)
        return {
            "tokens": [self.token(token.id) for token in tokens],
            "token_logprobs": [finite(token.logprob) for token in tokens],
            "top_logprobs": [
                {self.token(number): finite(value) for number, value in token.top}
                for token in tokens
            ],
            "text_offset": offsets,
        }


def usage(prompt: int, cached: int, written: int) -> dict[str, Any]:
    """Return the counts of tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def finite(logprob: float | None) -> float:
    """Return a log probability as JSON can hold it; -9999 stands for impossible, as elsewhere."""
    return -9999.0 if logprob is None or logprob < -9999.0 else float(logprob)


def _delta(
    index: int, said: dict[str, Any], told: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": index, "delta": said, "logprobs": told, "finish_reason": finish}


def _text(index: int, text: str, told: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": told, "finish_reason": finish}
