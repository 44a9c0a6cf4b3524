"""The router: which adapters are worn for the next turn, and why."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from loratelier.base import Base
from loratelier.corpus.score.likeness import Vectors
from loratelier.kit.errors import InputError
from loratelier.route import stages
from loratelier.route.by_sense import Sensed, Senses, by_embedding, by_learned
from loratelier.route.conflicts import apart, disagreeing
from loratelier.route.decision import Choice, Decision
from loratelier.route.learned import LowRank
from loratelier.route.messages import (
    Message,
    Messages,
    as_messages,
    latest_user_turn,
    text_of,
    with_text,
)
from loratelier.route.policy import AdapterRule, Policy
from loratelier.route.signals import NONE, read_signals, strip_signals
from loratelier.route.stages import Name, Question, permitted
from loratelier.route.sticky import is_same, settle
from loratelier.route.watch import Watched

_NOBODY = Choice(
    "base",
    {},
    1.0,
    ("No stage speaks for an adapter, so the base answers", "Ни одна ступень не за адаптер: база"),
)


class Router:
    """Decides what is worn, by a policy.

    A router keeps nothing of a conversation: what was decided for the turn before is handed back in
    as ``previous``, so that one router serves many conversations at once.

    Args:
        policy: the policy; :meth:`load` watches a file, :meth:`auto` needs none.
        base: reads requests for the stages by hidden states; without it the policy's is loaded
            once such a stage is reached.
    """

    def __init__(self, policy: Policy | Watched, *, base: Base | None = None) -> None:
        self._source = policy
        self.senses = Senses(base)

    @classmethod
    def load(cls, path: str | Path, *, base: Base | None = None) -> "Router":
        """Make a router of a policy file, which is read again whenever it changes.

        Raises:
            InputError: the file is missing or is no policy; one line that names the key.
        """
        return cls(Watched(Path(path).expanduser(), _check), base=base)

    @classmethod
    def auto(cls, names: Iterable[str]) -> "Router":
        """Make a router without a policy: it knows the signals ``<|use_lora_NAME|>`` alone.

        Names that no policy could hold (lookalikes, ``none``) have no signal.
        """
        adapters = {name: AdapterRule() for name in names if _may_be_named(name)}
        return cls(Policy(adapters=adapters, stages=("name", "signals")))

    @property
    def policy(self) -> Policy:
        """The policy as it is in force now."""
        return self._source if isinstance(self._source, Policy) else self._source.policy()

    def route(
        self,
        messages: Messages,
        *,
        name: Name | None = None,
        allowed: Collection[str] | None = None,
        previous: Decision | None = None,
        state: Vectors | None = None,
    ) -> Decision:
        """Decide what is worn for the answer to a conversation.

        Args:
            messages: the conversation as the caller sent it, before documents are put into it, or
                one turn as a text. Only the latest turn of the user is listened to.
            name: an adapter, a role, or ``{adapter: strength}`` that the caller named.
            allowed: the adapters that this caller may use; None for all. What is not allowed is
                treated as if it were not there.
            previous: the decision of the turn before.
            state: the mean last hidden state of the latest user turn, [hidden], from whoever has
                read it already; without it the base reads the turn once more where a stage needs
                it.

        Raises:
            InputError: ``name`` is not there, or the messages are none.
        """
        given = as_messages(messages)
        whole = self.policy
        policy = permitted(whole, None if allowed is None else frozenset(allowed))
        question = _question(given, policy, name)
        choice = _choose(question, Sensed(self.senses, whole, state))
        choice = settle(choice, previous, question) or _NOBODY
        return _decision(choice, previous, question)


_BY_WORDS: dict[str, Callable[[Question], Choice | None]] = {
    "name": stages.by_name,
    "signals": stages.by_signals,
    "roles": stages.by_words,
    "keywords": stages.by_keywords,
    "kind": stages.by_kind,
}
_BY_SENSE: dict[str, Callable[[Question, Sensed], Choice | None]] = {
    "embedding": by_embedding,
    "learned": by_learned,
}


def _choose(question: Question, sensed: Sensed) -> Choice | None:
    for stage in question.policy.stages:
        if stage in _BY_SENSE:
            choice = _BY_SENSE[stage](question, sensed)
        else:
            choice = _BY_WORDS[stage](question)
        if choice is not None:
            return choice
    return None


def _question(given: list[Message], policy: Policy, name: Name | None) -> Question:
    known = policy.signals if "signals" in policy.stages else {}
    place = latest_user_turn(given)
    said = "" if place is None else text_of(given[place])
    found = read_signals(said, known)
    # Earlier turns of the user are cleaned too: their signals were followed when they were said.
    text = [
        with_text(message, lambda words: strip_signals(words, known))
        if message["role"] == "user"
        else message
        for message in given
    ]
    question = Question(policy, found.text, found, text, name)
    question.warnings.extend(found.warnings)
    return question


def _decision(choice: Choice, previous: Decision | None, question: Question) -> Decision:
    policy = question.policy
    mix = {name: gate for name, gate in choice.mix.items() if gate}
    if policy.conflicts is not None:
        mix, notes = apart(mix, disagreeing(policy.conflicts), policy.conflicts.below)
        question.warnings.extend(notes)
    role = policy.roles[choice.role] if choice.role is not None else None
    goes_on = previous is not None and (choice.stage == "sticky" or is_same(choice, previous))
    return Decision(
        mix=mix or None,
        reason=f"{choice.why[0]}.",
        reason_ru=f"{choice.why[1]}.",
        confidence=choice.confidence,
        stage=choice.stage,
        text=question.text,
        role=choice.role,
        system=role.system if role else None,
        sampling=role.sampling.model_dump(exclude_none=True) if role else {},
        considered=tuple(question.considered),
        warnings=tuple(question.warnings),
        turns=previous.turns + 1 if previous is not None and goes_on else 1,
        asked=choice.asked,
        kind=question.kind,
    )


def _may_be_named(name: str) -> bool:
    try:
        Policy(adapters={name: AdapterRule()})
    except InputError:
        return False
    return name != NONE


def _check(policy: Policy) -> None:
    """Refuse a policy whose files are not there.

    Raises:
        InputError: a report, a corpus or a trained router is missing or damaged.
    """
    if policy.learned is not None:
        LowRank.load(policy.learned.folder)
    if policy.conflicts is not None:
        disagreeing(policy.conflicts)
    for name, rule in policy.adapters.items():
        if rule.corpus is not None and not rule.corpus.is_dir():
            raise InputError(f"'{name}': there is no corpus {rule.corpus}")
