"""Adapters that meet: how they conflict, and what they make together."""

from loratelier.compose.checks import CheckFailed
from loratelier.compose.merge import merge_adapters
from loratelier.compose.plan import METHODS

__all__ = ["METHODS", "CheckFailed", "merge_adapters"]
