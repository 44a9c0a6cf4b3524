"""Which training rows pushed a move that a person points at."""

from loratelier.scope.influence.behind import rows_behind
from loratelier.scope.influence.figures import Influence, RowPush, Source

__all__ = ["Influence", "RowPush", "Source", "rows_behind"]
