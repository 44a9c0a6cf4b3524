"""Stickiness: when what was worn in the turn before stays on."""

from loratelier.route.decision import Choice, Decision
from loratelier.route.stages import Question

# Stages whose scores are probabilities, so that two sets can be held against each other.
_COMPARABLE = frozenset({"embedding", "learned"})


def settle(choice: Choice | None, previous: Decision | None, question: Question) -> Choice | None:
    """Return the choice of this turn, or what was worn before if that is to stay.

    What the person asks for in this turn always goes through, and what the caller named for one
    request is that request's alone.
    """
    if previous is None or previous.stage == "name" or (choice is not None and choice.asked):
        return choice
    if not _worn(previous) and not previous.asked:
        return choice
    if not _at_hand(previous, question):
        return choice
    sticky = question.policy.sticky
    if previous.asked and sticky.hold:
        return _kept(previous, "it was asked for", "об этом просили")
    if choice is None:
        return _kept(previous, "nothing speaks for another set", "ничто не говорит за другой набор")
    if is_same(choice, previous):
        return choice
    if previous.turns < sticky.turns:
        worn = f"{previous.turns} of {sticky.turns} turns"
        return _kept(previous, f"worn for {worn}", f"реплик: {previous.turns} из {sticky.turns}")
    ahead = choice.confidence - _evidence(choice, previous, question)
    if ahead < sticky.margin:
        figures = f"{ahead:.2f} < {sticky.margin:.2f}"
        return _kept(
            previous,
            f"another set is too little ahead, {figures}",
            f"перевес другого набора мал, {figures}",
        )
    return choice


def is_same(choice: Choice, previous: Decision) -> bool:
    """Whether a choice is the set that was worn before, whatever its strengths."""
    return choice.role == previous.role and choice.mix.keys() == (previous.mix or {}).keys()


def _worn(previous: Decision) -> bool:
    return previous.mix is not None or previous.role is not None


def _at_hand(previous: Decision, question: Question) -> bool:
    """Whether the caller may still use it, and the policy still has it."""
    policy = question.policy
    role_is_there = previous.role is None or previous.role in policy.roles
    return role_is_there and (previous.mix or {}).keys() <= policy.adapters.keys()


def _evidence(choice: Choice, previous: Decision, question: Question) -> float:
    """Return how sure the stage that chose is of what was worn before."""
    if choice.stage not in _COMPARABLE or not previous.mix:
        return 0.0
    found = [each for each in question.considered if each.stage == choice.stage]
    return max((each.scores.get(name, 0.0) for each in found for name in previous.mix), default=0.0)


def _kept(previous: Decision, why: str, why_ru: str) -> Choice:
    what = previous.role or ", ".join(previous.mix or ()) or "the base"
    what_ru = previous.role or ", ".join(previous.mix or ()) or "база"
    said = f"'{what}' stays on: {why}", f"«{what_ru}» остаётся: {why_ru}"
    return Choice(
        "sticky", dict(previous.mix or {}), previous.confidence, said, previous.role, previous.asked
    )
