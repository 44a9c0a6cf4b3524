"""``select_rows``: from a corpus to a smaller one, every row that is left out with its reason."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loratelier.base import Base
from loratelier.corpus.folder import Corpus
from loratelier.corpus.records import row_text
from loratelier.corpus.report import count
from loratelier.corpus.score.likeness import gram_vectors, hidden_vectors
from loratelier.corpus.score.metrics import ALIASES, METRICS
from loratelier.corpus.select.pick import FacilityLocation, Picker, Ranked
from loratelier.corpus.select.rebuild import rebuild, replayed
from loratelier.corpus.select.wish import Limit, Wish, group_of, source_of
from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import remark, task

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Selected:
    """The chosen rows as a corpus, and as many drawn at random where that was asked for.

    ``likeness`` says what diversity was measured with; empty without it.
    """

    corpus: Corpus
    control: Corpus | None
    likeness: str


@dataclass
class _State:
    """Which rows are taken and why the others are not: ``(cause, reason)`` by row number."""

    rows: Sequence[Record]
    chosen: list[int] = field(default_factory=list)
    left: dict[int, tuple[str, str]] = field(default_factory=dict)
    by_source: dict[str, int] = field(default_factory=dict)

    def take(self, row: int) -> None:
        self.chosen.append(row)
        source = source_of(self.rows[row])
        self.by_source[source] = self.by_source.get(source, 0) + 1


def select_rows(
    corpus: Corpus,
    wish: Wish,
    *,
    base: Base | None = None,
    replay: Corpus | None = None,
    control: bool = False,
) -> Selected:
    """Choose training rows; those held out stay as they are, so that what is measured stays.

    The same corpus, wish and base give the same rows. Every message of a row that is left out goes
    to ``dropped`` with its lineage and the reason.

    Args:
        corpus: with the score columns that the wish names.
        wish: what to choose.
        base: for diversity, likeness is that of its hidden states; without it that of wording.
        replay: where general rows are drawn from.
        control: draw as many training rows at random from the same corpus, to compare with.

    Raises:
        InputError: a score that the corpus lacks, quotas that do not fit, nothing left.
    """
    if bool(wish.replay_share) != (replay is not None):
        raise InputError(
            "Replay needs both a corpus and a share", "Add --replay DIR --replay-share 0.2"
        )
    rows: list[Record] = corpus.rows.to_pylist()
    training = [number for number, row in enumerate(rows) if row["split"] == "train"]
    state = _State(rows)
    eligible = _within(rows, training, wish, state)
    wanted = min(wish.count(len(training)), len(eligible))
    order = _order(rows, eligible, wish)
    picker, likeness = _picker(rows, order, wish, base)
    pool = round(wish.pool * wanted) if wish.diverse and wish.by else len(order)
    _choose(picker, order, order[:pool], wanted, wish, state)
    if not state.chosen:
        raise InputError(_nothing(state), "Widen the limits")
    _explain(picker, eligible, wish, state)
    extra = replayed(corpus, replay, len(state.chosen), wish) if replay else []
    settings = _settings(wish, likeness)
    smaller = rebuild(corpus, state.chosen, state.left, extra, settings, wish.seed, replay)
    drawn = _control(corpus, training, state, extra, smaller, wish, replay) if control else None
    return Selected(smaller, drawn, likeness)


def column_of(rows: Record, name: str) -> str:
    """Return the column that holds a score, whether it is asked for by its alias or in full.

    Raises:
        InputError: the corpus lacks it.
    """
    full = ALIASES.get(name, name)
    for column in (name, full, *(alias for alias, of in ALIASES.items() if of == full)):
        if column in rows:
            return column
    if full not in METRICS:
        raise InputError(f"There is no score '{name}'", did_you_mean(name, [*METRICS, *ALIASES]))
    raise InputError(
        f"The corpus has no score '{name}'",
        f"Run: loratelier corpus score DIR --base BASE --metrics {name}",
    )


def _within(
    rows: Sequence[Record], training: Sequence[int], wish: Wish, state: _State
) -> list[int]:
    """Return the training rows that no limit leaves out, and write down why of the others."""
    limits = list(wish.limits)
    if wish.by:
        limits.append(_limit_of_rank(wish))
    columns = [column_of(rows[0], limit.column) for limit in limits]
    within = []
    for number in training:
        faults = (
            _fault(rows[number], column, limit)
            for column, limit in zip(columns, limits, strict=True)
        )
        fault = next((fault for fault in faults if fault), None)
        if fault:
            state.left[number] = fault
        else:
            within.append(number)
    return within


def _limit_of_rank(wish: Wish) -> Limit:
    """Return the bound that ranking brings: an IFD of 1 or more says that the prompt did not help.

    Both papers leave such rows out (arXiv 2308.12032, 2402.00530). A bound that the person gave
    for that score takes its place.
    """
    assert wish.by is not None
    full = ALIASES.get(wish.by, wish.by)
    given = any(ALIASES.get(limit.column, limit.column) == full for limit in wish.limits)
    helped = full.startswith("ifd") and not given
    return Limit(wish.by, high=_BELOW_ONE) if helped else Limit(wish.by)


_BELOW_ONE = 1 - 2**-53


def _fault(row: Record, column: str, limit: Limit) -> tuple[str, str] | None:
    value = row[column]
    if isinstance(value, list):
        raise InputError(f"'{column}' is no number to select by")
    if value is None:
        why = next((e["reason"] for e in row["unscored"] if e["column"] == column), "no score")
        return f"{column} not scored", f"{column} not scored: {why}"
    if value > limit.high and limit.high == _BELOW_ONE:
        cause = f"{column} is not below 1: the prompt makes the answer no likelier"
        return cause, f"{cause} ({value:.4g})"
    if value < limit.low:
        return f"{column} too low", f"{column} {value:.4g} is below {limit.low:g}"
    if value > limit.high:
        return f"{column} too high", f"{column} {value:.4g} is above {limit.high:g}"
    return None


def _picker(
    rows: Sequence[Record], order: Sequence[int], wish: Wish, base: Base | None
) -> tuple[Picker, str]:
    """Return how rows are picked, and what their likeness is made of."""
    if not wish.diverse:
        return Ranked(order), ""
    texts = [row_text(rows[number]) for number in order]
    if base is None:
        return FacilityLocation(gram_vectors(texts), order), "TF-IDF of hashed character n-grams"
    return FacilityLocation(hidden_vectors(base, texts), order), f"hidden states of {base.name}"


def _order(rows: Sequence[Record], eligible: Sequence[int], wish: Wish) -> list[int]:
    """Rank by score, equals by id; without a score in an order drawn from the seed."""
    if not wish.by:
        drawn = sorted(eligible, key=lambda number: str(rows[number]["id"]))
        random.Random(f"{wish.seed}/order").shuffle(drawn)
        return drawn
    column, sign = column_of(rows[0], wish.by), 1 if wish.lowest else -1
    return sorted(eligible, key=lambda number: (sign * rows[number][column], rows[number]["id"]))


def _choose(
    picker: Picker,
    everyone: Sequence[int],
    pool: Sequence[int],
    wanted: int,
    wish: Wish,
    state: _State,
) -> None:
    """Fill the quotas in their order from all rows, then the rest from the pool."""
    needs = [quota.rows(wanted) for quota in wish.quotas]
    if sum(needs) > wanted:
        raise InputError(
            f"The quotas ask for {sum(needs)} rows, and {wanted} are to be chosen",
            "Lower them, or raise --top",
        )
    taken: set[int] = set()
    with task("Choosing rows", total=wanted) as bar:

        def take(among: Sequence[int], upto: int) -> int:
            before = len(taken)
            if upto:
                for number in picker.picks(among, lambda row: _allowed(row, taken, wish, state)):
                    taken.add(number)
                    state.take(number)
                    bar.advance()
                    if len(taken) - before == upto:
                        break
            return len(taken) - before

        for quota, need in zip(wish.quotas, needs, strict=True):
            group = [n for n in everyone if group_of(state.rows[n], quota.key) == quota.value]
            got = take(group, need)
            if got < need:
                remark(
                    f"The quota {quota.key}:{quota.value} asks for {count(need, 'row')}; "
                    f"there are {got}"
                )
        take(pool, wanted - len(taken))


def _allowed(row: int, taken: set[int], wish: Wish, state: _State) -> bool:
    if row in taken:
        return False
    source = source_of(state.rows[row])
    if wish.cap_source is not None and state.by_source.get(source, 0) >= wish.cap_source:
        state.left[row] = _CAPPED, f"{_CAPPED}: {source} gave {count(wish.cap_source, 'row')}"
        return False
    return True


_CAPPED = "its file has given as many rows as one may"


def _explain(picker: Picker, eligible: Sequence[int], wish: Wish, state: _State) -> None:
    """Give every eligible row that was not taken its reason."""
    chosen = set(state.chosen)
    for number in eligible:
        if number not in chosen and number not in state.left:
            state.left[number] = _passed_over(picker, number, wish, state)


def _passed_over(picker: Picker, number: int, wish: Wish, state: _State) -> tuple[str, str]:
    row = state.rows[number]
    if isinstance(picker, FacilityLocation):
        near, likeness = picker.nearest(number)
        cause = "other chosen rows stand for it"
        return cause, f"{cause}: {likeness:.2f} like row {state.rows[near]['id']}"
    if wish.by:
        column = column_of(row, wish.by)
        ends = min if not wish.lowest else max
        cut = ends(state.rows[each][column] for each in state.chosen)
        which = "lowest" if wish.lowest else "highest"
        cause = f"not among the {which} by {column}"
        return cause, f"{cause}: {row[column]:.4g}, the last chosen has {cut:.4g}"
    return "not drawn", "not drawn"


def _nothing(state: _State) -> str:
    causes: dict[str, int] = {}
    for cause, _ in state.left.values():
        causes[cause] = causes.get(cause, 0) + 1
    counted = ", ".join(f"{cause} ({number})" for cause, number in causes.items())
    return f"No row is left: {counted or 'the corpus has no training rows'}"


def _control(
    corpus: Corpus,
    training: Sequence[int],
    state: _State,
    extra: Sequence[dict[str, Any]],
    smaller: Corpus,
    wish: Wish,
    replay: Corpus | None,
) -> Corpus:
    """Draw as many training rows from the whole corpus; the replayed and held-out ones stay."""
    among = sorted(training, key=lambda number: str(state.rows[number]["id"]))
    drawn = random.Random(f"{wish.seed}/control").sample(among, len(state.chosen))
    cause = "not drawn for the random control"
    left = {number: (cause, cause) for number in training if number not in set(drawn)}
    settings = {"random_control_of": smaller.hash}
    return rebuild(corpus, drawn, left, extra, settings, wish.seed, replay)


def _settings(wish: Wish, likeness: str) -> dict[str, Any]:
    """Return what was asked for, without what was not."""
    asked: dict[str, Any] = {
        "top": wish.top,
        "by": wish.by,
        "lowest": wish.lowest or None,
        "limits": [
            {"column": one.column, **_finite("low", one.low), **_finite("high", one.high)}
            for one in wish.limits
        ],
        "diverse": likeness,
        "pool": wish.pool if wish.diverse and wish.by else None,
        "cap_source": wish.cap_source,
        "quotas": [vars(quota) for quota in wish.quotas],
        "replay_share": wish.replay_share or None,
    }
    return {name: value for name, value in asked.items() if value not in (None, "", [])}


def _finite(name: str, bound: float) -> dict[str, float]:
    return {name: bound} if abs(bound) != float("inf") else {}
