"""Adapters that meet: how they conflict, and what they make together."""

from loratelier.compose.advice import Advice, Thresholds
from loratelier.compose.checks import CheckFailed
from loratelier.compose.conflict import Conflict, compare_adapters
from loratelier.compose.interference import Interference
from loratelier.compose.merge import merge_adapters
from loratelier.compose.plan import METHODS
from loratelier.compose.search import Search, search_merge

__all__ = [
    "METHODS",
    "Advice",
    "CheckFailed",
    "Conflict",
    "Interference",
    "Search",
    "Thresholds",
    "compare_adapters",
    "merge_adapters",
    "search_merge",
]
