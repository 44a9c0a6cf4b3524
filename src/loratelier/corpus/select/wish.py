"""What a person asks of a selection."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loratelier.corpus.lineage import SCRIPTS
from loratelier.corpus.records import row_text
from loratelier.kit.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Limit:
    """Rows whose score lies outside [low, high] are left out."""

    column: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Quota:
    """At least ``amount`` of the chosen rows have ``value`` under ``key``.

    ``amount`` below 1 is a share of the chosen rows, else a number of rows.
    """

    key: str
    value: str
    amount: float

    def rows(self, count: int) -> int:
        """How many rows this is out of ``count``."""
        return round(self.amount * count) if self.amount < 1 else round(self.amount)


@dataclass(frozen=True)
class Wish:
    """A selection.

    Attributes:
        top: how many training rows: up to 1 a share of the corpus' training rows, above 1 a number.
            None keeps all that nothing else leaves out.
        by: the score that ranks them, highest first.
        lowest: the lowest first.
        limits: bounds on scores.
        diverse: choose rows that together are near to all rows (facility location).
        pool: with ``by`` and ``diverse``, the best ``pool`` times as many rows by score are the
            candidates among which diversity chooses.
        cap_source: at most so many rows from one file.
        quotas: rows that must be among the chosen, by file, script or a column of text.
        replay_share: the share of the training rows that come from a second corpus.
        seed: of everything that is drawn.
    """

    top: float | None = None
    by: str | None = None
    lowest: bool = False
    limits: tuple[Limit, ...] = ()
    diverse: bool = False
    pool: float = 3.0
    cap_source: int | None = None
    quotas: tuple[Quota, ...] = ()
    replay_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for wrong, what, mend in (
            (self.top is not None and not self.top > 0, f"top = {self.top}", "Give more than 0"),
            (
                self.top is not None and self.top > 1 and self.top != round(self.top),
                f"top = {self.top} is neither a share nor a number of rows",
                "Give 0.1 for a tenth, or a whole number",
            ),
            (
                self.by is not None and self.top is None,
                "Ranking by a score needs to know how many rows",
                "Add --top 0.1",
            ),
            (
                self.diverse and self.top is None,
                "Diversity needs to know how many rows",
                "Add --top 0.1",
            ),
            (
                self.top is not None and self.by is None and not self.diverse,
                "The top rows by which score",
                "Add --by ifd, or --diverse",
            ),
            (not self.pool >= 1, f"pool = {self.pool}", "Give 1 or more"),
            (
                self.cap_source is not None and self.cap_source < 1,
                f"cap_source = {self.cap_source}",
                "Give 1 or more",
            ),
            (
                not 0 <= self.replay_share < 1,
                f"replay_share = {self.replay_share} is no share",
                "Give a number from 0 to below 1",
            ),
        ):
            if wrong:
                raise InputError(what, mend)

    def count(self, rows: int) -> int:
        """How many of ``rows`` training rows are wanted at most."""
        if self.top is None:
            return rows
        return min(rows, max(1, round(self.top * rows)) if self.top <= 1 else round(self.top))


def parse_limits(low: Sequence[str], high: Sequence[str]) -> tuple[Limit, ...]:
    """Read ``ppl=100`` pairs as lower and upper bounds.

    Raises:
        InputError: no ``=``, or no number after it.
    """
    return (
        *(Limit(column, low=value) for column, value in map(_pair, low)),
        *(Limit(column, high=value) for column, value in map(_pair, high)),
    )


def parse_quotas(words: Sequence[str]) -> tuple[Quota, ...]:
    """Read ``script:Cyrl=0.5`` or ``file:diary.md=10``.

    Raises:
        InputError: another form, or no positive number.
    """
    quotas = []
    for word in words:
        name, amount = _pair(word)
        key, colon, value = name.partition(":")
        if not colon or not amount > 0 or not math.isfinite(amount):
            raise InputError(f"The quota '{word}' is not understood", "Write script:Cyrl=0.5")
        quotas.append(Quota(key, value, amount))
    return tuple(quotas)


def _pair(word: str) -> tuple[str, float]:
    name, _, value = word.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or math.isnan(number):
        raise InputError(f"'{word}' is no score with a number", "Write ppl=100")
    return name, number


def group_of(row: Mapping[str, Any], key: str) -> str:
    """Return what a row has under a quota's key: its file, its script, or a column of text.

    Raises:
        InputError: the rows have no such key.
    """
    if key == "file":
        return source_of(row)
    if key == "script":
        text = row_text(row)
        return max(SCRIPTS, key=lambda code: len(SCRIPTS[code].findall(text)))
    if not isinstance(row.get(key), str):
        texts = [name for name, value in row.items() if isinstance(value, str)]
        raise InputError(
            f"A row has no '{key}' to make a quota of",
            did_you_mean(key, ["file", "script", *texts]),
        )
    return str(row[key])


def source_of(row: Mapping[str, Any]) -> str:
    """Return the file of a row's first message."""
    return str(row["lineage"][0]["file"]) if row["lineage"] else ""
