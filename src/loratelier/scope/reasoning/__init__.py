"""Chains of thought before and after: their form, where they part, whether answers rest on them."""

from loratelier.scope.reasoning.chains import Chain, Chains, Curve, CurvePoint, Pair
from loratelier.scope.reasoning.look import look_at_chains
from loratelier.scope.reasoning.problems import Problem, problems, prompts
from loratelier.scope.reasoning.verdict import Difference

__all__ = [
    "Chain",
    "Chains",
    "Curve",
    "CurvePoint",
    "Difference",
    "Pair",
    "Problem",
    "look_at_chains",
    "problems",
    "prompts",
]
