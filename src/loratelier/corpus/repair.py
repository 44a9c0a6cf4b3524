"""Encoding repair: find what was misread as what, put it right, and say so.

Each line that looks wrong is weighed by itself: every chain of one or two misreadings is undone,
and a result must outweigh the line as it is (:mod:`~loratelier.corpus.undo`). Lines of one source
vote: a chain that mended some is likelier for the others. What no line can prove by itself, such as
a short line, a word damaged among others, or one that lost bytes, is mended where the evidence of
one reading, pooled over all lines that gain, is proof enough
(:mod:`~loratelier.corpus.search`).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loratelier.corpus import typeset
from loratelier.corpus.codecs import LOST, NAMES, Pair, reread
from loratelier.corpus.evidence import won_lines
from loratelier.corpus.language import Model, model, nats_per_character
from loratelier.corpus.odd import odd_lines
from loratelier.corpus.search import (
    GOOD,
    Found,
    is_quoted,
    read_chain,
    search,
)
from loratelier.corpus.tidy import RULES, drawn_lines
from loratelier.corpus.undo import Chain, read, undo

_ROUNDS = 8  # kinds of damage in one text, each of them up to twice over
_TIMES = 2  # how often a line is mended
_VOTERS = 24  # lines that are undone without knowing of any other
_VOTED = 4  # chains that lines agree on
_ADDRESS = re.compile(r"\S+@\S+|\w+://\S+|\S+\.\w{2,}\S*")
_ONE_LETTER = frozenset("авикосуя")
_SAMPLE = 2000  # characters on which readings are compared


@dataclass(frozen=True)
class Change:
    """One line before and after; ``line`` counts from 1."""

    line: int
    was: str
    now: str


@dataclass(frozen=True)
class Step:
    """One reading, or one kind of tidying, applied to some lines of a text.

    ``kind`` is ``re-encode``, or what was tidied; then no codec is named. ``lost`` counts
    characters that cannot be had back (each is U+FFFD in the text); ``before`` and ``after`` are
    mean log-probabilities of the changed lines, in nats a character.
    """

    kind: str
    wrong: str
    right: str
    changes: tuple[Change, ...]
    lost: int
    before: float
    after: float

    @property
    def what(self) -> str:
        """What was misread as what, or what was tidied."""
        return str(Pair(self.wrong, self.right)) if self.right else self.kind

    def __str__(self) -> str:
        if not self.right:
            number = len(self.changes)
            return f"{self.kind}: {number} {'line' if number == 1 else 'lines'}"
        losses = f"{self.lost} characters lost" if self.lost else "nothing lost"
        first, last = self.changes[0].line, self.changes[-1].line
        where = f"line {first}" if first == last else f"lines {first}-{last}"
        return (
            f"{self.kind}: {NAMES[self.right]} read as {NAMES[self.wrong]}, {where}, "
            f"{losses}, score {self.before} -> {self.after}"
        )


@dataclass(frozen=True)
class Repair:
    """A text after repair, with the steps in the order in which they were taken.

    ``unreadable`` are lines, from 1, whose letters a PDF drew without saying which they are.
    """

    text: str
    changed: bool
    lossy: bool
    steps: tuple[Step, ...]
    unreadable: tuple[int, ...] = ()

    @property
    def lost(self) -> int:
        """How many characters cannot be had back."""
        return sum(step.lost for step in self.steps)

    def original(self) -> str:
        """Take the steps back: the text as it was given."""
        lines = self.text.split("\n")
        for step in reversed(self.steps):
            for change in step.changes:
                lines[change.line - 1] = change.was
        return "\n".join(lines)


def repair_text(text: str, *, language: str | None = None) -> Repair:
    """Mend a text that was decoded with the wrong codec, once or twice over.

    A text that reads well is returned as it is. Where bytes were lost on the way, U+FFFD stands for
    each lost character: nothing is guessed.

    Args:
        text: any text; lines end with a line feed.
        language: ``ru`` or ``en`` when it is known; None expects either.

    Raises:
        InputError: a language that we have no model of.
    """
    return repair_texts([text], language=language)[0]


def repair_texts(texts: Sequence[str], *, language: str | None = None) -> list[Repair]:
    """Mend texts of one source together, so that each is evidence for the others."""
    work = _Work(texts, model(language))
    work.weigh()
    work.search()
    work.tidy()
    return work.repairs()


class _Work:
    """All lines of some texts while they are mended."""

    def __init__(self, texts: Sequence[str], language: Model) -> None:
        self._texts = [text.split("\n") for text in texts]
        self._places = [
            (text, line)
            for text, lines in enumerate(self._texts)
            for line in range(len(lines))
            if not (lines[line].isascii() or _is_little_russian(lines[line]))
        ]
        self._model = language
        self._steps: list[list[Step]] = [[] for _ in texts]
        self._times: dict[tuple[int, int], int] = {}

    def search(self) -> None:
        """Mend the best-proven damage among the lines that look wrong, while there is any."""
        for _ in range(_ROUNDS):
            places = self._suspects()
            lines = [self._texts[text][line] for text, line in places]
            found = search(self._sample(lines), self._model) if lines else None
            if found is None:
                return
            self._apply(places, found)

    def weigh(self) -> None:
        """Mend each line by the chain of misreadings that is likeliest for it.

        A chain that mended other lines is likelier: first a few lines vote, then all are mended.
        """
        suspects = set(self._suspects())
        places = [
            place
            for place, line in zip(self._places, self._lines(self._places), strict=True)
            if place in suspects or (typeset.is_odd(line) and not is_quoted(line))
        ]
        lines = self._lines(places)
        votes: Counter[Chain] = Counter()
        for line in self._sample(lines)[:_VOTERS] if len(lines) > 1 else ():
            undone = undo(line, self._model)
            votes.update(undone.chains if undone else ())
        shared = {chain for chain, count in votes.most_common(_VOTED) if count > 1}
        seen = frozenset(shared)
        mended: dict[Chain, list[tuple[int, int]]] = {}
        for place, line in zip(places, lines, strict=True):
            undone = undo(line, self._model, seen)
            if undone:
                mended.setdefault(undone.chain, []).append(place)
        for chain, group in mended.items():
            for pair in chain:
                self._read_again(group, pair, [read(line, pair) for line in self._lines(group)])
            self._times |= dict.fromkeys(group, _TIMES)
        for chain in mended:
            left = [place for place in places if place not in self._times]
            self._apply(left, Found(chain, 0.0))

    def tidy(self) -> None:
        """Apply every rule of :mod:`~loratelier.corpus.tidy` to each text."""
        for number, lines in enumerate(self._texts):
            text = "\n".join(lines)
            for rule in RULES:
                if not rule.sign.search(text):
                    continue
                made = rule.apply(lines)
                changes = [
                    Change(line, was, now)
                    for line, (was, now) in enumerate(zip(lines, made, strict=True), start=1)
                    if was != now
                ]
                if changes:
                    self._steps[number].append(_step(rule.kind, "", "", changes, self._model))
                    lines, text = made, "\n".join(made)
            self._texts[number] = lines

    def repairs(self) -> list[Repair]:
        """Return the result for each text."""
        return [
            Repair(
                text="\n".join(lines),
                changed=bool(steps),
                lossy=any(step.lost for step in steps),
                steps=tuple(steps),
                unreadable=tuple(drawn_lines(lines)),
            )
            for lines, steps in zip(self._texts, self._steps, strict=True)
        ]

    def _suspects(self) -> list[tuple[int, int]]:
        places = [place for place in self._places if self._times.get(place, 0) < _TIMES]
        lines = [self._texts[text][line] for text, line in places]
        totals, high = self._model.telling(lines)
        suspect = ((high > 0) & (totals < GOOD * high)) | odd_lines(lines)
        return [
            place
            for place, line, odd in zip(places, lines, suspect, strict=True)
            if odd and not is_quoted(line)
        ]

    def _lines(self, places: list[tuple[int, int]]) -> list[str]:
        return [self._texts[text][line] for text, line in places]

    def _sample(self, lines: list[str]) -> list[str]:
        """Return the worst lines first, up to a length that is enough to tell.

        A line that is repeated is no further evidence.
        """
        lines = list(dict.fromkeys(lines))
        totals, high = self._model.telling(lines)
        order = sorted(range(len(lines)), key=lambda n: float(totals[n]) / max(1, int(high[n])))
        chosen: list[str] = []
        room = _SAMPLE
        for index in order:
            if room <= 0:
                break
            chosen.append(lines[index])
            room -= len(lines[index])
        return chosen

    def _apply(self, places: list[tuple[int, int]], found: Found) -> None:
        """Mend the lines that gain; the steps of a chain are recorded one after the other."""
        lines = [self._texts[text][line] for text, line in places]
        readings = read_chain(lines, found.pairs)
        won = won_lines(
            lines,
            self._model.lines(lines),
            readings,
            self._model,
            found.pairs,
        )
        chosen = [places[line.index] for line in won]
        for pair in found.pairs:
            read_again = reread(self._lines(chosen), pair)
            self._read_again(chosen, pair, [again.text if again else None for again in read_again])

    def _read_again(
        self, places: list[tuple[int, int]], pair: Pair, made: Sequence[str | None]
    ) -> None:
        """Set what a reading made of some lines in their place; None leaves a line as it is."""
        changes: dict[int, list[Change]] = {}
        for (text, line), old, new in zip(places, self._lines(places), made, strict=True):
            if new is not None:
                changes.setdefault(text, []).append(Change(line + 1, old, new))
                self._texts[text][line] = new
                self._times[text, line] = self._times.get((text, line), 0) + 1
        for text, changed in changes.items():
            step = _step("re-encode", pair.wrong, pair.right, changed, self._model)
            self._steps[text].append(step)


def _is_little_russian(line: str) -> bool:
    """Say whether a line is Russian words of one letter beside an address, and nothing else.

    So little says nothing against it: "А я otto@example.org" could as well be two marks misread.
    """
    words = _ADDRESS.sub(" ", line).split()
    return all(word.strip(",.!?:;").lower() in _ONE_LETTER for word in words)


def _step(kind: str, wrong: str, right: str, changes: list[Change], language: Model) -> Step:
    was = [change.was for change in changes]
    now = [change.now for change in changes]
    return Step(
        kind=kind,
        wrong=wrong,
        right=right,
        changes=tuple(changes),
        lost=sum(change.now.count(LOST) - change.was.count(LOST) for change in changes),
        before=nats_per_character(float(language.lines(was).sum()), sum(map(len, was))),
        after=nats_per_character(float(language.lines(now).sum()), sum(map(len, now))),
    )
