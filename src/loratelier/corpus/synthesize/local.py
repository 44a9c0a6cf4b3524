"""A base on this machine as the one who writes."""

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any

import torch

from loratelier.base import Base
from loratelier.corpus.synthesize.asked import Answer, Failed, Halted, Messages
from loratelier.kit.errors import InputError

_LEAST = 16  # tokens of room below which an answer is not worth beginning


class Local:
    """Answers with a loaded base, one request at a time.

    The same request gets the same answer in every run on one machine: each draws from a seed of its
    own, made of ``seed`` and its words, so that a run that goes on writes what it would have.

    Raises:
        InputError: the base has no chat template, or a temperature below 0.
    """

    def __init__(self, base: Base, *, temperature: float = 0.7, seed: int = 0) -> None:
        if not base.tokenizer.chat_template:
            raise InputError(
                f"The base {base.name} has no chat template", "Give a base that was tuned to talk"
            )
        if temperature < 0:
            raise InputError(f"temperature = {temperature} is below 0", "Give 0 or more")
        self._base = base
        self._temperature = temperature
        self._seed = seed
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The base's name."""
        return self._base.name

    @property
    def parallel(self) -> int:
        """One: the machine has one of each weight."""
        return 1

    @property
    def identity(self) -> Mapping[str, Any]:
        """The weights as they are loaded, and how words are drawn."""
        return {
            "base": self._base.fingerprint,
            "dtype": str(self._base.dtype).removeprefix("torch."),
            "quantization": self._base.quantization,
            "temperature": self._temperature,
            "seed": self._seed,
        }

    def ask(self, messages: Messages, most_tokens: int, halt: threading.Event) -> Answer:
        """Generate an answer.

        Raises:
            Failed: the request is longer than the base can read.
            Halted: the run is being stopped.
        """
        prompt = self._base.tokenizer.apply_chat_template(
            [dict(each) for each in messages],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).to(self._base.device)
        length = prompt["input_ids"].shape[1]
        context = self._base.context
        if context is not None and length + _LEAST > context:
            raise Failed(f"{length} tokens are more than the base reads ({context})", passing=False)
        room = most_tokens if context is None else min(most_tokens, context - length)
        with self._lock:
            if halt.is_set():
                raise Halted
            made = self._generate(prompt, room, self._seed_of(messages))[length:]
        ends = _ends(self._base)
        ids = [token for token in made if token not in ends]
        text = self._base.tokenizer.decode(ids, skip_special_tokens=True)
        return Answer(text, length, len(made), cut=len(ids) == len(made) >= room)

    def _generate(self, prompt: Mapping[str, Any], room: int, seed: int) -> list[int]:
        drawn: dict[str, Any] = {"do_sample": False}
        if self._temperature:
            drawn = {"do_sample": True, "temperature": self._temperature}
        tokenizer, model = self._base.tokenizer, self._base.model
        devices = [self._base.device] if self._base.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            made = model.generate(
                **prompt,
                max_new_tokens=room,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                **drawn,
            )
        ids: list[int] = made[0].tolist()
        return ids

    def _seed_of(self, messages: Messages) -> int:
        written = json.dumps([self._seed, [dict(each) for each in messages]])
        return int.from_bytes(hashlib.sha256(written.encode()).digest()[:7], "big")


def _ends(base: Base) -> set[int]:
    """Return the tokens at which the base stops."""
    given = base.model.generation_config.eos_token_id
    ends = {base.tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])}
    return {token for token in ends if token is not None}
