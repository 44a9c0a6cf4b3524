"""What a merge is asked to do: the methods, their options, and which option belongs to which."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loratelier.kit.errors import InputError, did_you_mean

SIGN_BEFORE, SIGN_AFTER = "sign-before-weights", "sign-after-weights"
INVARIANT = "invariant: the method needs no basis"
CORE = "core: singular directions of the adapters' updates side by side and above each other"
KNOTS = "knots: singular directions of the updates side by side; the model's own inputs"

# Method -> the basis that its result belongs to.
METHODS = {
    "linear": INVARIANT,
    "nlerp": INVARIANT,
    "slerp": INVARIANT,
    "ties": CORE,
    "dare": CORE,
    "della": CORE,
    "knots": KNOTS,
    "iso": INVARIANT,
    "cat": INVARIANT,
}
_TRIMS = {"density": 0.5, "variant": SIGN_AFTER}
# What a method can be told, and what it does untold.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ties": _TRIMS,
    "dare": {"density": 0.5},
    "della": {**_TRIMS, "epsilon": 0.1},
    "knots": {**_TRIMS, "combine": "ties"},
}
_CHOICES = {"variant": (SIGN_AFTER, SIGN_BEFORE), "combine": ("ties", "linear")}


@dataclass(frozen=True)
class Plan:
    """A method and how it is carried out.

    Attributes:
        method: a name of :data:`METHODS`.
        rank: of the result; None keeps the exact rank.
        density: share of a part's entries that stays (TIES, DARE, DELLA).
        epsilon: half the width of DELLA's range of keep probabilities.
        variant: whether TIES' signs are elected before the weights (as PEFT reads it) or after.
        combine: what KnOTS does to the aligned parts, ``"ties"`` or ``"linear"``.
        seed: of what is dropped by chance, and of the checks.
    """

    method: str
    rank: int | None = None
    density: float = 1.0
    epsilon: float = 0.0
    variant: str = SIGN_AFTER
    combine: str = "linear"
    seed: int = 0

    @property
    def basis(self) -> str:
        """The basis that the result belongs to, in words."""
        if self.method == "knots" and self.combine == "linear":
            return INVARIANT
        return METHODS[self.method]

    @property
    def elects(self) -> bool:
        """Whether signs are elected."""
        return self.method in ("ties", "della") or (
            self.method == "knots" and self.combine == "ties"
        )

    @property
    def chances(self) -> bool:
        """Whether entries are dropped by chance."""
        return self.method in ("dare", "della")

    @property
    def options(self) -> dict[str, Any]:
        """The options that this method has, for the card."""
        return {key: value for key, value in asdict(self).items() if key in _known(self)}


def _known(plan: "Plan") -> tuple[str, ...]:
    if plan.method == "knots" and plan.combine == "linear":
        return ("combine",)
    return tuple(_OPTIONS.get(plan.method, {}))


def plan_of(method: str, rank: int | None, seed: int, given: Mapping[str, Any]) -> Plan:
    """Check what was asked for; ``given`` are the options by name, None where none was said.

    Raises:
        InputError: an unknown method, an option that the method does not have, or a value that
            makes no sense.
    """
    if method not in METHODS:
        mend = "That is linear with a rank" if method == "svd" else did_you_mean(method, METHODS)
        raise InputError(f"There is no merge method '{method}'", mend)
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise InputError(f"The rank is {rank!r}", "It is a whole number from 1")
    if rank is not None and method == "cat":
        raise InputError("cat keeps every rank as it is", "Take linear with a rank")
    known = _OPTIONS.get(method, {})
    said = {key: value for key, value in given.items() if value is not None}
    for key, value in said.items():
        if key not in known:
            raise InputError(f"{method} has no {key}", _has(method, known))
        if key in _CHOICES and value not in _CHOICES[key]:
            raise InputError(f"{key} is {value!r}", f"It is one of {', '.join(_CHOICES[key])}")
    if said.get("combine") == "linear" and (odd := sorted(said.keys() - {"combine"})):
        raise InputError(f"knots with combine='linear' has no {odd[0]}", "Leave it out")
    plan = Plan(method, rank, seed=seed, **{**known, **said})
    _require_shares(plan, known)
    return plan


def _has(method: str, known: Mapping[str, Any]) -> str:
    return f"It has {', '.join(known)}" if known else f"{method} has no options"


def _require_shares(plan: Plan, known: Mapping[str, Any]) -> None:
    if "density" in known and not 0 < plan.density <= 1:
        raise InputError(f"The density is {plan.density!r}", "It is above 0 and at most 1")
    if "epsilon" in known and not (
        0 <= plan.epsilon < plan.density and plan.density + plan.epsilon <= 1
    ):
        raise InputError(
            f"density {plan.density:g} and epsilon {plan.epsilon:g} are no probabilities",
            "density - epsilon is above 0, density + epsilon at most 1",
        )
