"""Scores: how likely, how hard, how new a row is, measured with a base and kept with its name."""

from loratelier.corpus.score.columns import Scored, compare, score_corpus, with_comparison
from loratelier.corpus.score.metrics import METRICS, Unscored, parse_metrics
from loratelier.corpus.score.rank import spearman
from loratelier.corpus.score.run import Scores, Settings, TokenMask, score_rows

__all__ = [
    "METRICS",
    "Scored",
    "Scores",
    "Settings",
    "TokenMask",
    "Unscored",
    "compare",
    "parse_metrics",
    "score_corpus",
    "score_rows",
    "spearman",
    "with_comparison",
]
