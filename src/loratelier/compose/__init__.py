"""Adapters that meet: how they conflict, and what they make together."""

from loratelier.compose.advice import Advice, Thresholds
from loratelier.compose.checks import CheckFailed
from loratelier.compose.conflict import Conflict, compare_adapters
from loratelier.compose.interference import Interference
from loratelier.compose.merge import merge_adapters
from loratelier.compose.plan import METHODS
from loratelier.compose.search import Search, search_merge
from loratelier.compose.unload import Unloaded, merge_and_unload

__all__ = [
    "METHODS",
    "Advice",
    "CheckFailed",
    "Conflict",
    "Interference",
    "Search",
    "Thresholds",
    "Unloaded",
    "compare_adapters",
    "merge_adapters",
    "merge_and_unload",
    "search_merge",
]
