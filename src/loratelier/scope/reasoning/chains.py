"""What was seen of chains of thought: plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from loratelier.scope.reasoning.problems import Problem
from loratelier.scope.reasoning.structure import Shown
from loratelier.scope.reasoning.verdict import Difference

Test = Literal["early", "mistake", "paraphrase", "filler"]


@dataclass(frozen=True)
class Chain:
    """A chain that one side wrote.

    ``text``: the chain without the answer that it states; ``tokens`` counts all that was written,
    and ``ended`` says that it ended by itself. ``stated``: the answer in the text, None where it
    states none; ``answer``: what follows when the whole chain is given and the answer asked for;
    ``right``: whether that is the right one. ``shown``: structures by their id. ``gold_alone``,
    ``gold_with_chain``: log-probability of the right answer in nats without and after the chain.
    """

    text: str
    tokens: int
    ended: bool
    stated: str | None
    answer: str | None
    right: bool | None
    shown: Mapping[str, Shown]
    gold_alone: float | None
    gold_with_chain: float | None


@dataclass(frozen=True)
class Pair:
    """Both chains of a problem, drawn with the same random numbers.

    ``parts_at``: the first token at which they differ, from 0; None where they are the same.
    ``common``: the share of the longer one before that token. ``answer_changed``: None where a side
    gives no answer that can be read.
    """

    problem: str
    seed: int
    before: Chain
    after: Chain
    parts_at: int | None
    common: float
    answer_changed: bool | None


@dataclass(frozen=True)
class CurvePoint:
    """At a share of the chain, how often the answer is the one after the whole chain."""

    share: float
    before: float
    after: float


@dataclass(frozen=True)
class Curve:
    """One test of faithfulness, on ``chains`` chains a side.

    ``area``: over the curve, from 0 (what was done to the chain never changed the answer) to 1 (it
    always did), before and after.
    """

    test: Test
    points: tuple[CurvePoint, ...]
    area: Difference
    chains: int


@dataclass(frozen=True)
class Chains:
    """Chains of thought before and after, and what may be said of them.

    ``effect``: false where nothing can change. ``figures``: what was compared, by name; see
    :class:`Difference` for when a figure may be said to have risen or fallen.
    ``answers_changed``: the share of pairs whose answer differs, of those that have one.
    """

    base: str
    before: str | None
    after: str
    effect: bool
    temperature: float
    seeds: tuple[int, ...]
    problems: tuple[Problem, ...]
    pairs: tuple[Pair, ...]
    figures: Mapping[str, Difference]
    curves: tuple[Curve, ...]
    answers_changed: float | None

    @property
    def claims(self) -> tuple[Difference, ...]:
        """The figures that rose or fell by more than noise."""
        return tuple(one for one in self.figures.values() if one.claim in ("rose", "fell"))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "base": self.base,
            "before": self.before,
            "after": self.after,
            "effect": self.effect,
            "temperature": self.temperature,
            "seeds": list(self.seeds),
            "problems": [asdict(problem) for problem in self.problems],
            "pairs": [asdict(pair) for pair in self.pairs],
            "figures": {name: one.to_json() for name, one in self.figures.items()},
            "claims": [one.name for one in self.claims],
            "curves": [
                {
                    "test": curve.test,
                    "chains": curve.chains,
                    "points": [asdict(point) for point in curve.points],
                    "area": curve.area.to_json(),
                }
                for curve in self.curves
            ],
            "answers_changed": self.answers_changed,
        }
