"""A next-token distribution set by hand, as ranks of an adapter that come off again."""

from loratelier.edit.edit import set_distribution
from loratelier.edit.ground import Locality
from loratelier.edit.report import Edit, Goal, Paraphrase
from loratelier.edit.sites import drop_directions, drop_intruders, scale_sites
from loratelier.edit.stack import edits_of, stack, unstack

__all__ = [
    "Edit",
    "Goal",
    "Locality",
    "Paraphrase",
    "drop_directions",
    "drop_intruders",
    "edits_of",
    "scale_sites",
    "set_distribution",
    "stack",
    "unstack",
]
