"""What is measured on a row, and the formulas: per-token losses in, one number or a reason out.

All losses are ``-log p`` in nats. ``given`` is an answer after its prompt, ``alone`` the same
tokens without it; both hold the same number of tokens by construction.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loratelier.kit.errors import InputError, did_you_mean

Losses = NDArray[np.float32]

# Raised when a formula changes, so that numbers of two versions are never compared unawares.
VERSION = 1


@dataclass(frozen=True)
class Metric:
    """A score: its full name with the variant, what it needs, and what it says in one line."""

    name: str
    meaning: str
    needs_base: bool = True
    needs_alone: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("ppl", "perplexity of the answers after their prompts"),
        Metric("bpb", "bits per byte of the answers after their prompts"),
        Metric("ifd-loss-ratio", "mean loss with the prompt / mean loss without", needs_alone=True),
        Metric("ifd-ppl-ratio", "perplexity with the prompt / without", needs_alone=True),
        Metric("s-ifd", "exp(mean change of loss) over the tokens it moves", needs_alone=True),
        Metric("token-mask", "tokens that the base finds too unlikely, one flag a token"),
        Metric("length", "tokens in the answers"),
        Metric("novelty", "1 - cosine similarity to the nearest other row", needs_base=False),
    )
}
# Short names, each for one variant; a column bears the name that was asked for.
ALIASES = {"ifd": "ifd-loss-ratio"}
DEFAULT = ("ppl", "ifd", "bpb", "s-ifd")


@dataclass(frozen=True)
class Unscored:
    """Why there is no number."""

    reason: str


NO_QUESTION = Unscored("plain text has no question to leave away")


@dataclass(frozen=True)
class Likelihood:
    """What a base says about one row.

    Attributes:
        given: losses of every scored token after its prompt, float32 [T], answers in their order.
        size: UTF-8 bytes of the text that those tokens spell.
        pair: (given, alone) over the tokens that both runs score, float32 [S] each, or why not.
    """

    given: Losses
    size: int
    pair: tuple[Losses, Losses] | Unscored


Value = float | int | Unscored


def parse_metrics(names: str | Sequence[str]) -> tuple[str, ...]:
    """Read ``"ppl,ifd"`` or a list of names; keep the order, once each.

    Raises:
        InputError: an unknown name, or none at all.
    """
    words = names.split(",") if isinstance(names, str) else names
    wanted = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    for word in wanted:
        if word not in METRICS and word not in ALIASES:
            raise InputError(f"There is no metric '{word}'", did_you_mean(word, known()))
    if not wanted:
        raise InputError("No metric is named", f"Known: {', '.join(known())}")
    return wanted


def known() -> list[str]:
    """Return every name that ``--metrics`` understands."""
    return [*METRICS, *ALIASES]


def metric_of(column: str) -> Metric:
    """Return the metric that a column holds."""
    return METRICS[ALIASES.get(column, column)]


def perplexity(said: Likelihood) -> Value:
    """exp of the mean loss per token; the prompt and the end token do not count."""
    return _exp(_mean(said.given))


def bits_per_byte(said: Likelihood) -> Value:
    """Summed loss in bits over the UTF-8 bytes: comparable across tokenizers."""
    return float(said.given.sum(dtype=np.float64)) / math.log(2) / said.size


def ifd_loss_ratio(said: Likelihood) -> Value:
    """Instruction-following difficulty as in arXiv 2308.12032: L(y|x) / L(y), mean losses."""
    if isinstance(said.pair, Unscored):
        return said.pair
    given, alone = map(_mean, said.pair)
    return given / alone if alone > 0 else Unscored("the answer alone is certain already")


def ifd_ppl_ratio(said: Likelihood) -> Value:
    """Instruction-following difficulty as in arXiv 2402.00530: exp(L(y|x) - L(y))."""
    if isinstance(said.pair, Unscored):
        return said.pair
    given, alone = map(_mean, said.pair)
    return _exp(given - alone)


def change_threshold(said: Sequence[Likelihood], keep: float) -> float | None:
    """Return the |change of loss| that a share ``keep`` of all tokens of the corpus exceeds.

    The percentile runs over the whole corpus (arXiv 2506.01317), so the same row may have another
    S-IFD in another corpus. None when no row has both runs.
    """
    changes = [np.abs(_change(*one.pair)) for one in said if not isinstance(one.pair, Unscored)]
    if not changes:
        return None
    return float(np.quantile(np.concatenate(changes), 1 - keep))


def selective_ifd(said: Likelihood, threshold: float | None) -> Value:
    """S-IFD, arXiv 2506.01317: exp(mean change of loss) over tokens with |change| > threshold."""
    if isinstance(said.pair, Unscored) or threshold is None:
        return said.pair if isinstance(said.pair, Unscored) else NO_QUESTION
    change = _change(*said.pair)
    moved = change[np.abs(change) > threshold]
    if not moved.size:
        return Unscored(f"the prompt moves no token by more than {threshold:.3g} nats")
    return _exp(float(moved.mean()))


def hard_tokens(losses: Losses, above: float) -> list[bool]:
    """Say which tokens the base finds unlikelier than a perplexity of ``above``.

    Selective token masking (arXiv 2501.14315) leaves them out of the training loss.
    """
    return [bool(flag) for flag in losses.astype(np.float64) > math.log(above)]


def _change(given: Losses, alone: Losses) -> NDArray[np.float64]:
    return given.astype(np.float64) - alone.astype(np.float64)


def _mean(losses: Losses) -> float:
    return float(losses.mean(dtype=np.float64))


def _exp(value: float) -> Value:
    try:
        return math.exp(value)
    except OverflowError:
        return Unscored(f"exp({value:.4g}) is no finite number")
