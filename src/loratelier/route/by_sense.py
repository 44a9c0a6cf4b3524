"""The stages by sense: the request against each adapter's centre, and the learned router."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from loratelier.base import Base, load_base
from loratelier.corpus.score.likeness import Vectors
from loratelier.kit.errors import InputError
from loratelier.route.decision import Choice
from loratelier.route.learned import LowRank, request_state
from loratelier.route.policy import Mixture, Policy
from loratelier.route.requests import asked_of
from loratelier.route.sense import BASE, Centroids, Figures, centroids, softmax
from loratelier.route.stages import READ, Question


@dataclass
class _Read:
    """What was made of one version of a policy."""

    policy: Policy
    centroids: Centroids | None = None
    is_read: bool = False
    learned: LowRank | None = None


class Senses:
    """What the stages by sense need, made when it is first asked for and when the policy changes.

    Args:
        base: reads requests; without it the policy's is loaded when a stage needs one.
    """

    def __init__(self, base: Base | None = None) -> None:
        self._base = base
        self._spec: str | None = None
        self._read: _Read | None = None

    def base(self, policy: Policy) -> Base:
        """Return the base that reads requests.

        Raises:
            InputError: none was given, and the policy names none.
        """
        if self._base is not None and self._spec in (None, policy.base):
            return self._base
        if policy.base is None:
            raise InputError(
                "The policy goes by hidden states and names no base", "Write 'base: demo' in it"
            )
        self._base, self._spec = load_base(policy.base), policy.base
        return self._base

    def centroids(self, policy: Policy) -> Centroids | None:
        """Return where the adapters lie; None where no adapter has a corpus or words about it."""
        read = self._of(policy)
        if not read.is_read:
            asked = asked_of(policy)
            base = self.base(policy) if asked and policy.embedding.by == "hidden" else None
            read.centroids = centroids(asked, base) if asked else None
            read.is_read = True
        return read.centroids

    def learned(self, policy: Policy) -> LowRank | None:
        """Return the trained router that a policy names, if it names one.

        Raises:
            InputError: it is missing or damaged, or was made for another base.
        """
        read = self._of(policy)
        if policy.learned is not None and read.learned is None:
            router = LowRank.load(policy.learned.folder)
            router.require_base(self.base(policy))
            read.learned = router
        return read.learned

    def _of(self, policy: Policy) -> _Read:
        if self._read is None or self._read.policy is not policy:
            self._read = _Read(policy)
        return self._read


@dataclass
class Sensed:
    """One turn as the stages by sense read it: its vector is made once, and only if needed.

    Attributes:
        whole: the policy before it was cut down to what the caller may use.
        state: the mean last hidden state of the turn, where the caller has it from its prefill.
    """

    senses: Senses
    whole: Policy
    state: Vectors | None = None

    def state_of(self, said: str) -> Vectors:
        """Return the mean last hidden state of the turn: [hidden]."""
        if self.state is None:
            self.state = request_state(self.senses.base(self.whole), said)
        return self.state


def by_embedding(question: Question, sensed: Sensed) -> Choice | None:
    """The turn lies nearest to what one adapter is asked, or to general requests."""
    said = question.said[:READ]
    found = sensed.senses.centroids(sensed.whole) if said.strip() else None
    if found is None:
        return None
    settings = question.policy.embedding
    vectors = sensed.state_of(said)[None] if settings.by == "hidden" else found.read([said])
    shares = _shares(found.names, found.scores(vectors)[0] / settings.temperature, question.policy)
    return _choice(question, "embedding", shares, settings.threshold)


def by_learned(question: Question, sensed: Sensed) -> Choice | None:
    """The learned router is sure enough of an adapter, or of the base."""
    said, settings = question.said[:READ], question.policy.learned
    router = sensed.senses.learned(sensed.whole) if said.strip() else None
    if router is None or settings is None:
        return None
    logits = router.logits(torch.from_numpy(sensed.state_of(said))).double().numpy()
    return _choice(
        question, "learned", _shares(router.names, logits, question.policy), settings.threshold
    )


def _shares(names: Sequence[str], logits: Figures, policy: Policy) -> dict[str, float]:
    """Return probabilities over what the caller may use, and the base."""
    kept = [n for n, name in enumerate(names) if name == BASE or name in policy.adapters]
    values = softmax(np.asarray(logits)[kept], 1.0).tolist()
    return dict(zip((names[n] for n in kept), values, strict=True))


def _choice(
    question: Question, stage: str, shares: dict[str, float], threshold: float
) -> Choice | None:
    ranked = sorted(shares, key=lambda name: -shares[name])
    if len(ranked) == 1:
        return None
    best, policy = ranked[0], question.policy
    worn = {} if best == BASE else _worn(ranked, shares, policy.mixture)
    confidence = sum(shares[name] for name in worn) if worn else shares[best]
    sure = confidence >= threshold
    question.note(stage, shares, "decided" if sure else f"{confidence:.2f} < {threshold:.2f}")
    if not sure:
        return None
    measured = f"{confidence:.2f}"
    if not worn:
        why = (
            f"By sense ({stage}) this is a general request, {measured}",
            f"По смыслу ({stage}) это общий вопрос, {measured}",
        )
        return Choice(stage, {}, confidence, why)
    mix = {name: share * policy.adapters[name].strength for name, share in worn.items()}
    names = ", ".join(f"'{name}' {share:.0%}" for name, share in worn.items())
    why = f"By sense ({stage}): {names}, {measured}", f"По смыслу ({stage}): {names}, {measured}"
    return Choice(stage, mix, confidence, why)


def _worn(
    ranked: Sequence[str], shares: dict[str, float], mixture: Mixture | None
) -> dict[str, float]:
    """Return the adapters that are worn, with shares that add up to 1."""
    if mixture is None:
        return {ranked[0]: 1.0}
    adapters = [name for name in ranked if name != BASE][: mixture.most]
    powers = {name: shares[name] ** (1 / mixture.temperature) for name in adapters}
    total = sum(powers.values())
    kept = {name: power for name, power in powers.items() if power >= mixture.least * total}
    return {name: power / sum(kept.values()) for name, power in kept.items()}
