"""What the base can do, and what it still can do wearing the adapter: tasks with known answers."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loratelier.check.intervals import Accuracy, Interval, bootstrap, mcnemar
from loratelier.check.looks import AFTER, BEFORE, Asked, Looks
from loratelier.check.tasks import Choice, Request, choices, requests
from loratelier.kit.progress import task
from loratelier.scope.prompt import encode_prompt

# From this upper end of the interval on, a base is not told from one that makes no mistakes.
_CEILING = 0.99
_ANSWER_TOKENS = 16
# Nobody guesses an answer that is to be written; a base that hardly ever finds it has no skill.
_WRITTEN_BY_CHANCE = 0.02

Headroom = Literal["counted", "at chance", "at ceiling"]


@dataclass(frozen=True)
class Tried:
    """One task. ``after`` and what compares the two is None where the base was screened out.

    ``chance`` is the accuracy of guessing. ``lost`` and ``won`` count paired flips, ``p`` is
    McNemar's. ``change`` is the difference of accuracy. ``margin`` is the mean change of how much
    likelier the right ending is than the best wrong one, in nats per byte; of choices only.
    """

    task: str
    chance: float
    headroom: Headroom
    before: Accuracy
    after: Accuracy | None = None
    lost: int = 0
    won: int = 0
    p: float | None = None
    change: float | None = None
    interval: Interval | None = None
    margin: float | None = None
    margin_interval: Interval | None = None


@dataclass(frozen=True)
class Ability:
    """All tasks, and the counted ones together: ``change`` is the mean over their items."""

    tried: tuple[Tried, ...]
    items: int
    before: Accuracy | None
    after: Accuracy | None
    lost: int
    won: int
    p: float | None
    change: float | None
    interval: Interval | None

    @property
    def counted(self) -> tuple[Tried, ...]:
        """The tasks for which the base had headroom."""
        return tuple(one for one in self.tried if one.headroom == "counted")


@dataclass(frozen=True)
class _Answered:
    """Whether each item was right, and by how much (of choices)."""

    right: tuple[bool, ...]
    margins: tuple[float, ...] = ()


def measure_ability(looks: Looks, languages: Iterable[str], *, items: int, seed: int) -> Ability:
    """Try every task with the base, and those with headroom with the adapter too.

    Args:
        looks: both looks.
        languages: those in which tasks are put.
        items: of each choice task; written tasks have half as many, since they take longer.
        seed: draws the items.
    """
    runs: dict[str, tuple[float, Callable[[float], _Answered]]] = {}
    for language in languages:
        for name, chosen in choices(language, items, seed).items():
            guess = sum(1 / len(item.endings) for item in chosen) / len(chosen)
            runs[name] = guess, _chooser(looks, chosen)
        if looks.base.tokenizer.chat_template:
            for name, asked in requests(language, max(1, items // 2), seed).items():
                runs[name] = _WRITTEN_BY_CHANCE, _writer(looks, asked)
    found, tried = [], []
    with task("Tasks with known answers", total=len(runs)) as bar:
        for name, (guess, run) in runs.items():
            before = run(BEFORE)
            headroom = _headroom(before.right, guess)
            if headroom != "counted":
                tried.append(Tried(name, guess, headroom, _accuracy(before.right)))
            else:
                after = run(AFTER) if looks.effect else before
                tried.append(_compare(name, guess, before, after))
                found.append((before, after))
            bar.advance()
    return _together(tried, found)


def _headroom(right: Sequence[bool], chance: float) -> Headroom:
    low, high = _accuracy(right).interval
    if low <= chance:
        return "at chance"
    return "at ceiling" if high >= _CEILING else "counted"


def _accuracy(right: Sequence[bool]) -> Accuracy:
    return Accuracy(sum(right), len(right))


def _compare(name: str, chance: float, before: _Answered, after: _Answered) -> Tried:
    pairs = list(zip(before.right, after.right, strict=True))
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    steps = [float(new) - float(old) for old, new in pairs]
    margins = [new - old for old, new in zip(before.margins, after.margins, strict=True)]
    return Tried(
        task=name,
        chance=chance,
        headroom="counted",
        before=_accuracy(before.right),
        after=_accuracy(after.right),
        lost=lost,
        won=won,
        p=mcnemar(lost, won),
        change=(won - lost) / len(pairs),
        interval=bootstrap(steps),
        margin=sum(margins) / len(margins) if margins else None,
        margin_interval=bootstrap(margins) if margins else None,
    )


def _together(tried: Sequence[Tried], found: Sequence[tuple[_Answered, _Answered]]) -> Ability:
    old = [right for before, _ in found for right in before.right]
    new = [right for _, after in found for right in after.right]
    if not old:
        return Ability(tuple(tried), 0, None, None, 0, 0, None, None, None)
    lost, won = sum(one.lost for one in tried), sum(one.won for one in tried)
    steps = [float(b) - float(a) for a, b in zip(old, new, strict=True)]
    return Ability(
        tried=tuple(tried),
        items=len(old),
        before=_accuracy(old),
        after=_accuracy(new),
        lost=lost,
        won=won,
        p=mcnemar(lost, won),
        change=(won - lost) / len(old),
        interval=bootstrap(steps),
    )


def _chooser(looks: Looks, items: Sequence[Choice]) -> Callable[[float], _Answered]:
    return lambda look: _choose(looks, items, look)


def _writer(looks: Looks, items: Sequence[Request]) -> Callable[[float], _Answered]:
    return lambda look: _write(looks, items, look)


def _choose(looks: Looks, items: Sequence[Choice], look: float) -> _Answered:
    """Take the ending whose log-likelihood per byte is highest."""
    scores = score_endings(looks, [(item.stem, item.endings) for item in items], look)
    margins = [each[0] - max(each[1:]) for each in scores]
    return _Answered(tuple(margin > 0 for margin in margins), tuple(margins))


def score_endings(
    looks: Looks, items: Sequence[tuple[str, Sequence[str]]], look: float
) -> list[list[float]]:
    """Return log p of each ending after its beginning, in nats per UTF-8 byte of the ending.

    A sequence is read once for all endings that are one token after it, which most are.
    """
    asked: dict[tuple[int, ...], set[Asked]] = {}
    plans = []
    for stem, endings in items:
        glue = "" if stem.endswith(("«", "\n")) else " "
        for ending in endings:
            ids, begin = _split(looks, stem, glue + ending)
            places = [(n - 1, ids[n]) for n in range(begin, len(ids))]
            asked.setdefault(ids[:-1], set()).update(places)
            plans.append((ids[:-1], places, len(ending.encode("utf-8"))))
    sequences = list(asked)
    found = looks.chances(sequences, [sorted(asked[each]) for each in sequences], look)
    by_sequence: Mapping[tuple[int, ...], dict[Asked, float]] = dict(
        zip(sequences, found, strict=True)
    )
    scores = iter(
        sum(by_sequence[ids][place] for place in places) / size for ids, places, size in plans
    )
    return [[next(scores) for _ in endings] for _, endings in items]


def _split(looks: Looks, stem: str, ending: str) -> tuple[tuple[int, ...], int]:
    """Return the tokens of both together, and the first one that is not the beginning's."""
    alone = looks.base.tokenizer(stem)["input_ids"]
    whole = looks.base.tokenizer(stem + ending)["input_ids"]
    same = next(
        (n for n, pair in enumerate(zip(alone, whole, strict=False)) if pair[0] != pair[1]),
        min(len(alone), len(whole) - 1),
    )
    # Nothing foretells the very first token.
    return tuple(whole), max(1, same)


def _write(looks: Looks, items: Sequence[Request], look: float) -> _Answered:
    prompts = [encode_prompt(looks.base, item.prompt).ids for item in items]
    written = looks.texts(looks.answers(prompts, _ANSWER_TOKENS, look))
    return _Answered(
        tuple(is_in(item.answer, text) for item, text in zip(items, written, strict=True))
    )


def is_in(answer: str, text: str) -> bool:
    """Whether an answer stands in a text as whole words, case and spacing aside."""
    wanted = r"\s+".join(re.escape(part) for part in answer.lower().split())
    return re.search(rf"(?<!\w){wanted}(?!\w)", text.lower()) is not None
