"""The right adapter at the right moment: signals, plain words, keywords, sense, and the reason."""

from loratelier.route.decision import Considered, Decision
from loratelier.route.policy import Policy
from loratelier.route.router import Router

__all__ = ["Considered", "Decision", "Policy", "Router"]
