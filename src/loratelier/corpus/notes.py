"""What was done to a corpus after it was built, as its manifest records."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseNote(_Note):
    """The base that scored, as it was loaded."""

    name: str
    spec: str
    fingerprint: str
    dtype: str
    quantization: str | None


class ScoreNote(_Note):
    """One column of scores in ``rows.parquet``.

    ``metric`` is the full name with its variant, ``version`` that of its formula. ``scored`` and
    ``unscored`` count rows; ``reasons`` counts why. The quartiles are over scored rows and None
    where a column holds no plain numbers.
    """

    column: str
    metric: str
    version: int
    base: BaseNote | None
    settings: dict[str, Any]
    scored: int = 0
    unscored: int = 0
    reasons: dict[str, int] = {}
    lowest: float | None = None
    quarter: float | None = None
    median: float | None = None
    three_quarters: float | None = None
    highest: float | None = None


class ComparisonNote(_Note):
    """How alike two bases rank the rows: Spearman's correlation by column, over ``rows`` rows."""

    base: BaseNote
    other: BaseNote
    rows: dict[str, int]
    spearman: dict[str, float | None]


class SynthesisNote(_Note):
    """One synthesis: from which corpus, by whom, what was asked, what it took.

    ``items`` are requests; ``failed`` of them gave nothing usable, for the ``reasons`` counted;
    ``unanswered`` of these got no answer. ``rows`` were made. Tokens are as the server reported
    them, but of ``estimated`` answers. ``price`` is None without prices.
    """

    source: str
    task: str
    version: int
    model: str
    settings: dict[str, Any]
    items: int
    rows: int
    failed: int
    unanswered: int
    reasons: dict[str, int]
    requests: int
    prompt_tokens: int
    answer_tokens: int
    estimated: int
    price: float | None


class SelectionNote(_Note):
    """One selection: from which corpus, by what, how many training rows came of it."""

    source: str
    settings: dict[str, Any]
    seed: int
    candidates: int
    selected: int
    replayed: int
    replay_source: str | None
    reasons: dict[str, int]
