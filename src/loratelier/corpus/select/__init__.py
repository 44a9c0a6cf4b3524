"""Selection: which rows to train on, and why the others stay out."""

from loratelier.corpus.select.run import Selected, select_rows
from loratelier.corpus.select.wish import Limit, Quota, Wish, parse_limits, parse_quotas

__all__ = [
    "Limit",
    "Quota",
    "Selected",
    "Wish",
    "parse_limits",
    "parse_quotas",
    "select_rows",
]
