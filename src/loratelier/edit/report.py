"""What an edit says of itself: asked and reached, what it spread to, and what it cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loratelier.adapter import Adapter
from loratelier.edit.ground import Locality


@dataclass(frozen=True)
class Goal:
    """A string after a prompt: its probability before, as asked, and as reached.

    ``tokens`` are its tokens; the probability of several is that of the chain.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    before: float
    asked: float
    reached: float

    @property
    def miss(self) -> float:
        """How far what was reached is from what was asked."""
        return abs(self.reached - self.asked)


@dataclass(frozen=True)
class Paraphrase:
    """Another wording of the prompt: each asked string's probability there before and after.

    ``wished`` says whether the edit should hold there too; None when nobody said.
    """

    prompt: str
    wished: bool | None
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True)
class Edit:
    """A next-token distribution that was set by hand.

    Attributes:
        adapter: what was edited with the edit's ranks on top.
        alone: the edit by itself, an adapter of its own ranks.
        goals: what was asked and reached, over all prompts, measured with the adapter worn.
        locality: what moved elsewhere, on text that was not optimised on.
        paraphrases: the other wordings that were given.
        rank: how many ranks the edit takes.
        norm: its Frobenius norm as a share of the weight's that it changes.
        site: the layer that it changes.
        seconds: how long it took.
        met: whether every probability is within the tolerance and the cost within the limits.
        why: what stood in the way, empty when met.
    """

    adapter: Adapter
    alone: Adapter
    goals: tuple[Goal, ...]
    locality: Locality
    paraphrases: tuple[Paraphrase, ...]
    rank: int
    norm: float
    site: str
    seconds: float
    met: bool
    why: str

    @property
    def asked(self) -> dict[str, float]:
        """What was asked after the first prompt: string -> probability."""
        return {goal.text: goal.asked for goal in self._first}

    @property
    def reached(self) -> dict[str, float]:
        """What was reached after the first prompt: string -> probability."""
        return {goal.text: goal.reached for goal in self._first}

    @property
    def _first(self) -> list[Goal]:
        return [goal for goal in self.goals if goal.prompt == self.goals[0].prompt]

    @property
    def sentences(self) -> list[str]:
        """The report in words, the outcome first."""
        steps = ", ".join(
            f"'{goal.text}' {goal.before:.1%} → {goal.reached:.1%} (asked {goal.asked:.1%})"
            for goal in self.goals
        )
        outcome = "Reached" if self.met else f"Not met: {self.why}. The most within it"
        moved = self.locality
        return [
            f"{outcome}: {steps}.",
            f"Elsewhere, on {moved.places} places that were not optimised on: KL {moved.mean:.4f} "
            f"nats on average, {moved.max:.4f} at most; {moved.flips} first choices changed.",
            f"It takes rank {self.rank} at {self.site}, {self.norm:.1%} of the weight's norm, and "
            f"took {self.seconds:.1f} s.",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a document of plain values; the adapters stand in it by digest."""
        return {
            "adapter": {"name": self.adapter.name, "digest": self.adapter.digest},
            "edit": {"name": self.alone.name, "digest": self.alone.digest},
            "goals": [asdict(goal) | {"tokens": list(goal.tokens)} for goal in self.goals],
            "locality": asdict(self.locality),
            "paraphrases": [asdict(each) for each in self.paraphrases],
            "rank": self.rank,
            "norm": self.norm,
            "site": self.site,
            "seconds": self.seconds,
            "met": self.met,
            "why": self.why,
            "kl_direction": "KL(before || after), in nats",
        }
