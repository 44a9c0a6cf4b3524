"""The stages that need no model: an explicit name, signals, roles in plain words, keywords, kind.

A stage looks at a question and returns its choice, or None and leaves it to the next; what it found
is recorded either way.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from loratelier.kit.errors import InputError, did_you_mean
from loratelier.route.decision import Choice, Considered
from loratelier.route.messages import Message
from loratelier.route.policy import AdapterRule, Kinds, Policy, Role
from loratelier.route.roles import Kind, asked_role, kind_of
from loratelier.route.signals import Signals
from loratelier.route.words import hits, phrase
from loratelier.scope.strength import check_strength

# Characters of a turn that words are sought in: the beginning says what is wanted.
READ = 20_000

Name = str | Mapping[str, float]


@dataclass
class Question:
    """One turn on its way through the stages.

    ``policy`` holds only what the caller may use: nothing else can be chosen by any stage.
    """

    policy: Policy
    said: str
    signals: Signals
    text: list[Message]
    name: Name | None
    considered: list[Considered] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    kind: Kind | None = None

    def note(self, stage: str, scores: Mapping[str, float], note: str) -> None:
        """Record what a stage found."""
        self.considered.append(Considered(stage, dict(scores), note))


def permitted(policy: Policy, allowed: frozenset[str] | None) -> Policy:
    """Return the policy as if it held nothing but what a caller may use.

    A role that wears an adapter that is not allowed is not there either.
    """
    if allowed is None:
        return policy
    adapters = {name: rule for name, rule in policy.adapters.items() if name in allowed}
    roles = {n: role for n, role in policy.roles.items() if role.mix.keys() <= adapters.keys()}
    kinds = Kinds(**{k: r for k, r in policy.kinds.model_dump().items() if r in roles})
    return policy.model_copy(update={"adapters": adapters, "roles": roles, "kinds": kinds})


def by_name(question: Question) -> Choice | None:
    """The caller named an adapter, a role or a mix.

    Raises:
        InputError: the name is not there or is not this caller's, or a strength is out of range.
    """
    named, policy = question.name, question.policy
    if named is None:
        return None
    if isinstance(named, str):
        if named in policy.roles and named not in policy.adapters:
            why = f"The role '{named}' was named", f"Названа роль «{named}»"
            return Choice("name", _worn(policy.roles[named]), 1.0, why, named, asked=True)
        if named not in policy.adapters:
            raise _unknown(named, policy)
        named = {named: policy.adapters[named].strength}
    for each, strength in named.items():
        if each not in policy.adapters:
            raise _unknown(each, policy)
        check_strength(strength)
    names = _listed(named)
    return Choice("name", dict(named), 1.0, (f"Named: {names}", f"Названо: {names}"), asked=True)


def _unknown(name: str, policy: Policy) -> InputError:
    return InputError(f"There is no adapter '{name}'", did_you_mean(name, policy.adapters))


def by_signals(question: Question) -> Choice | None:
    """The person gave signals in this very turn."""
    found, policy = question.signals, question.policy
    given = {name: 1.0 if strength is None else strength for name, strength in found.mix.items()}
    question.note("signals", given, "in the latest user turn" if found.any else "none")
    if not found.any:
        return None
    if found.none:
        why = "A signal takes everything off", "Сигнал снимает всё"
        return Choice("signals", {}, 1.0, why, asked=True)
    mix: dict[str, float] = {}
    role: str | None = None
    meanings = policy.signals
    for signal, strength in found.mix.items():
        name = meanings[signal]
        if name in policy.adapters and signal in (name, *policy.adapters[name].signals):
            mix[name] = policy.adapters[name].strength if strength is None else strength
        else:
            # A later role takes the words and the sampling of an earlier one, adapters add up.
            role = name
            mix |= {n: given[signal] * gate for n, gate in policy.roles[name].mix.items()}
    names = _listed(given)
    why = f"Signals of this turn: {names}", f"Сигналы этой реплики: {names}"
    return Choice("signals", mix, 1.0, why, role, asked=True)


def by_words(question: Question) -> Choice | None:
    """The person asked for a role in plain words, or to take it off."""
    policy = question.policy
    role = asked_role(question.said[:READ], policy.roles) if policy.roles else None
    question.note("roles", {role: 1.0} if role else {}, "not asked" if role is None else "asked")
    if role is None:
        return None
    if not role:
        why = "Asked to take the role off", "Просят снять роль"
        return Choice("roles", {}, 1.0, why, asked=True)
    why = f"Asked in plain words for the role '{role}'", f"Словами попросили роль «{role}»"
    return Choice("roles", _worn(policy.roles[role]), 1.0, why, role, asked=True)


def by_keywords(question: Question) -> Choice | None:
    """One adapter has more keywords and patterns in the turn than any other."""
    text, policy = question.said[:READ], question.policy
    said = phrase(text)
    found = {name: _hits(said, text, rule) for name, rule in policy.adapters.items()}
    counts = {name: float(len(each)) for name, each in found.items() if each}
    ranked = sorted(counts, key=lambda name: -counts[name])
    words = "; ".join(f"{name}: {', '.join(found[name])}" for name in ranked)
    question.note("keywords", counts, words or "no word of any adapter")
    if not ranked:
        return None
    ahead = counts[ranked[0]] - (counts[ranked[1]] if len(ranked) > 1 else 0.0)
    confidence = 1 - 0.5**ahead
    if not ahead or confidence < policy.keywords.threshold:
        return None
    best, hit = ranked[0], ", ".join(f"«{word}»" for word in found[ranked[0]])
    why = f"Words of '{best}': {hit}", f"Слова адаптера «{best}»: {hit}"
    return Choice("keywords", {best: policy.adapters[best].strength}, confidence, why)


def _hits(said: tuple[frozenset[str], ...], text: str, rule: AdapterRule) -> list[str]:
    matched = [each for each in rule.patterns if re.search(each, text, re.IGNORECASE)]
    return hits(said, rule.keywords) + matched


def by_kind(question: Question) -> Choice | None:
    """No other stage decided, and the kind of the question has a role."""
    kinds = question.policy.kinds
    if kinds.field is None and kinds.linear is None:
        return None
    kind = kind_of(question.said[:READ])
    question.kind = kind
    role = None if kind is None else {"field": kinds.field, "linear": kinds.linear}[kind]
    question.note("kind", {}, kind or "neither open nor linear")
    if role is None:
        return None
    said, said_ru = {"field": ("An open", "Полевой"), "linear": ("A linear", "Линейный")}[str(kind)]
    why = f"{said} question: role '{role}'", f"{said_ru} вопрос: роль «{role}»"
    return Choice("kind", _worn(question.policy.roles[role]), 0.5, why, role)


def _worn(role: Role) -> dict[str, float]:
    return dict(role.mix)


def _listed(mix: Mapping[str, float]) -> str:
    return ", ".join(name if gate == 1 else f"{name} ×{gate:g}" for name, gate in mix.items())
