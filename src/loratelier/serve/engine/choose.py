"""How one row chooses its next token."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.serve.engine.asked import Sampling


@dataclass(frozen=True)
class Chosen:
    """A token, its log probability under the model itself, and the likeliest beside it."""

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


class Chooser:
    """Chooses the tokens of one answer; its random numbers are its own.

    Log probabilities are the model's, before anything is done to its scores. In order: biases,
    penalties, the schema, temperature, top-k, top-p, min-p.

    Args:
        sampling: how.
        prompt: what the repetition penalty counts beside the answer.
        grammar: what the answer is held to.
    """

    def __init__(
        self, sampling: Sampling, prompt: tuple[int, ...], grammar: "Grammar | None"
    ) -> None:
        self.sampling = sampling
        self.grammar = grammar
        self._prompt = torch.tensor(sorted(set(prompt)), dtype=torch.long)
        self._bias = sampling.logit_bias
        self._counts: dict[int, int] = {}
        self._dice = torch.Generator()
        if sampling.seed is None:
            self._dice.seed()
        else:
            self._dice.manual_seed(sampling.seed)

    def choose(self, scores: Tensor) -> Chosen:
        """Choose after ``scores``, float32 [vocabulary]."""
        sampling = self.sampling
        wanted = self._prepared(scores)
        token = int(wanted.argmax()) if sampling.temperature == 0 else self._drawn(wanted)
        self._counts[token] = self._counts.get(token, 0) + 1
        if self.grammar is not None:
            self.grammar.take(token)
        if sampling.logprobs is None:
            return Chosen(token, None, ())
        likely = scores.log_softmax(-1)
        values, ids = likely.topk(min(sampling.logprobs, len(likely)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Chosen(token, float(likely[token]), top)

    def _prepared(self, scores: Tensor) -> Tensor:
        sampling = self.sampling
        plain = (
            not self._bias
            and self.grammar is None
            and sampling.repetition_penalty == 1
            and not sampling.presence_penalty
            and not sampling.frequency_penalty
        )
        if plain:
            return scores
        wanted = scores.clone()
        for token, bias in self._bias:
            wanted[token] += bias
        if sampling.repetition_penalty != 1:
            # Of the prompt and the answer, as in CTRL (arXiv:1909.05858).
            seen = torch.cat([self._prompt, torch.tensor(list(self._counts), dtype=torch.long)])
            seen = seen.unique().to(wanted.device)
            found, penalty = wanted[seen], sampling.repetition_penalty
            wanted[seen] = torch.where(found > 0, found / penalty, found * penalty)
        if self._counts and (sampling.presence_penalty or sampling.frequency_penalty):
            written = torch.tensor(list(self._counts), device=wanted.device)
            often = torch.tensor(list(self._counts.values()), device=wanted.device)
            wanted[written] -= sampling.presence_penalty + sampling.frequency_penalty * often
        if self.grammar is not None:
            wanted = self.grammar.allow(wanted)
        return wanted

    def _drawn(self, scores: Tensor) -> int:
        sampling = self.sampling
        # On the CPU, so that a seed gives the same words on every device as far as scores agree.
        scores = scores.float().cpu() / sampling.temperature
        if 0 < sampling.top_k < len(scores):
            least = scores.topk(sampling.top_k).values[-1]
            scores = scores.masked_fill(scores < least, -torch.inf)
        shares = scores.softmax(-1)
        if sampling.top_p < 1:
            ordered, order = shares.sort(descending=True)
            # The first token is always kept, and the one with which the sum is reached.
            out = ordered.cumsum(0) - ordered >= sampling.top_p
            shares[order[out]] = 0
        if sampling.min_p > 0:
            shares[shares < sampling.min_p * shares.max()] = 0
        return int(torch.multinomial(shares, 1, generator=self._dice))


class Grammar:
    """A JSON schema as the tokens that may come next (llguidance)."""

    def __init__(self, base: Base, schema: str, size: int, tables: dict[int, Any]) -> None:
        """Make the grammar of a schema.

        Args:
            base: whose tokens.
            schema: as text.
            size: of the vocabulary.
            tables: tokenizers that were prepared before, by their identity; one is added.

        Raises:
            InputError: the schema is none that can be carried out.
        """
        import llguidance
        import llguidance.hf

        try:
            json.loads(schema)
        except ValueError as error:
            raise InputError(f"The schema is no JSON ({error})") from error
        table = tables.get(id(base.tokenizer))
        if table is None:
            table = llguidance.hf.from_tokenizer(base.tokenizer, n_vocab=size)
            tables[id(base.tokenizer)] = table
        wanted = llguidance.LLMatcher.grammar_from_json_schema(schema)
        self._matcher = llguidance.LLMatcher(table, wanted, log_level=0)
        if self._matcher.is_error():
            raise InputError(f"The schema cannot be carried out: {self._matcher.get_error()}")
        self._size = size

    def allow(self, scores: Tensor) -> Tensor:
        """Return the scores [vocabulary] with what may not come next at minus infinity."""
        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        allowed = bits.flatten()[: self._size].bool()
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def take(self, token: int) -> None:
        """Note a token that was chosen."""
        self._matcher.consume_token(token)
