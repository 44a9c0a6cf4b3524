"""The cleaning stage: every row looked at once, changed or left out as the build was asked."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from loratelier.corpus.engine import Engine
from loratelier.corpus.hygiene.boiler import Boilerplate, without
from loratelier.corpus.hygiene.found import Finding, Masker
from loratelier.corpus.hygiene.look import Seen, looking, text_of
from loratelier.corpus.hygiene.near import NearDuplicates
from loratelier.corpus.hygiene.note import NAMED, BoilerplateNote, CleaningNote, FoundNote
from loratelier.corpus.hygiene.overlap import Evaluations
from loratelier.corpus.hygiene.private import find_private
from loratelier.corpus.hygiene.quarantine import REASON
from loratelier.corpus.hygiene.wish import Hygiene
from loratelier.corpus.lineage import MESSAGE, PASSAGE, Candidate, Dropped, Origin, Row, Turn
from loratelier.corpus.spool import Spool

NEAR = "nearly the same as another row"
EVALUATION = "stands in an evaluation set"


@dataclass(frozen=True)
class Washed:
    """Rows and what is in none, after cleaning, and what was found.

    ``masker`` puts the same placeholders into other texts about the same sources.
    """

    rows: Spool[Row]
    dropped: Spool[Dropped]
    note: CleaningNote
    masker: Masker

    def hide(self, text: str) -> str:
        """Return a text with what is masked in the rows masked too."""
        return self.masker.mask(text, find_private(text))[0] if self.masker.masks else text


def washed(rows: Spool[Row], dropped: Spool[Dropped], wish: Hygiene, engine: Engine) -> Washed:
    """Clean the rows of a build.

    Rows that are left out are among the dropped, message by message, with the reason. Masking
    covers what is dropped too: it travels in the same folder.

    Raises:
        InputError: an evaluation file that cannot be read.
    """
    work = _Work(wish, rows)
    kept: Spool[Row] = Spool()
    left: Spool[Dropped] = Spool(work.masked(each) for each in dropped)
    for seen in engine.map(partial(looking, wish.near_duplicates is not None), rows):
        fault = work.fault(seen)
        if fault:
            left.extend(map(work.masked, _dropped(seen.row, *fault)))
        else:
            kept.append(work.clean(seen))
    return Washed(kept, left, work.note(dropped), work.masker)


def _dropped(row: Row, cause: str, detail: str) -> Iterator[Dropped]:
    for turn in row.turns:
        for number, origin in enumerate(turn.origins):
            yield Dropped(
                PASSAGE if origin.role == "text" else MESSAGE,
                cause,
                f"{cause}: {detail}",
                # The messages that a turn was joined of stand in the first.
                "" if number else turn.text,
                origin,
                row.conversation,
                lossy=bool(turn.lost),
            )


class _Work:
    """What is remembered from row to row."""

    def __init__(self, wish: Hygiene, rows: Iterable[Row]) -> None:
        self.masker = Masker(wish.mask)
        self._evaluations = Evaluations(wish.decontaminate) if wish.decontaminate else None
        near = wish.near_duplicates
        self._near = NearDuplicates(near) if near is not None else None
        self._counted = Boilerplate()
        for row in rows:
            self._counted.count(turn.text for turn in row.turns if turn.role != "user")
        self._boilerplate = self._counted.lines()
        self._strip = wish.strip_boilerplate
        self._stripped = 0
        self._languages: Counter[str] = Counter()
        self._private: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._found: list[FoundNote] = []

    def fault(self, seen: Seen) -> tuple[str, str] | None:
        """Return why a row is left out, if it is."""
        row = seen.row
        meets = self._evaluations.find(text_of(row)) if self._evaluations else None
        if meets:
            self._left_out[EVALUATION] += 1
            return EVALUATION, f"{meets.file}, item {meets.item}, “{meets.words}”"
        alike = None
        if self._near and seen.signature is not None:
            alike = self._near.of(row.id, seen.signature)
        if alike:
            self._left_out[NEAR] += 1
            return NEAR, f"{alike[0]}, similarity {alike[1]:.2f}"
        return None

    def clean(self, seen: Seen) -> Row:
        """Return a row with its language, and changed as the build was asked."""
        row, language = seen.row, seen.language
        self._languages[language] += 1
        turns = tuple(self._turn(seen, turn) for turn in row.turns)
        text = row.text
        if text is not None:
            bare = self._bare(text)[0]
            found = seen.private[text] if bare == text else find_private(bare)
            text = self.masker.mask(bare, found)[0]
        candidates = tuple(self._candidate(each) for each in row.candidates)
        return replace(row, turns=turns, text=text, candidates=candidates, language=language)

    def masked(self, each: Dropped) -> Dropped:
        """Return something dropped as it may be shown."""
        if not self.masker.masks:
            return each
        text, made = self.masker.mask(each.text, find_private(each.text))
        reason = self.masker.mask(each.reason, find_private(each.reason))[0]
        return replace(each, text=text, reason=reason, origin=_noted(each.origin, made, 0))

    def note(self, dropped: Iterable[Dropped]) -> CleaningNote:
        """Return what was found and done."""
        return CleaningNote(
            languages=dict(self._languages.most_common()),
            private=dict(self._private.most_common()),
            masked=dict(self.masker.masked.most_common()),
            found=self._found,
            boilerplate=[
                BoilerplateNote(line=line, conversations=number)
                for line, number in list(self._boilerplate.items())[:NAMED]
            ],
            stripped=self._stripped,
            left_out=dict(self._left_out),
            quarantined=sum(each.cause == REASON for each in dropped),
        )

    def _turn(self, seen: Seen, turn: Turn) -> Turn:
        findings = seen.private[turn.text]
        self._report(seen.row, turn, findings)
        return self._changed(turn, findings)

    def _changed(self, turn: Turn, findings: list[Finding] | None = None) -> Turn:
        text, taken = self._bare(turn.text) if turn.role != "user" else (turn.text, 0)
        self._stripped += taken
        if taken or findings is None:
            findings = find_private(text)
        text, made = self.masker.mask(text, findings)
        return replace(turn, text=text, origin=_noted(turn.origin, made, taken))

    def _candidate(self, each: Candidate) -> Candidate:
        return replace(
            each,
            prompt=tuple(map(self._changed, each.prompt)),
            kept=self._changed(each.kept),
            others=tuple(map(self._changed, each.others)),
        )

    def _bare(self, text: str) -> tuple[str, int]:
        return without(text, self._boilerplate) if self._strip else (text, 0)

    def _report(self, row: Row, turn: Turn, findings: list[Finding]) -> None:
        self._private.update(each.kind for each in findings)
        for each in findings[: NAMED - len(self._found)]:
            self._found.append(
                FoundNote(
                    row=row.id,
                    file=turn.origin.file,
                    uid=turn.origin.uid,
                    kind=each.kind,
                    hint=each.hint,
                )
            )


def _noted(origin: Origin, made: Counter[str], taken: int) -> Origin:
    steps = [f"masked {kind}: {number}" for kind, number in sorted(made.items())]
    steps += [f"boilerplate lines removed: {taken}"] if taken else []
    return replace(origin, steps=(*origin.steps, *steps)) if steps else origin
