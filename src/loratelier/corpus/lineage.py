"""What every row and every dropped text can say about where it came from."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from loratelier.kit.errors import InputError

# Letters of a script, by their ISO 15924 code.
SCRIPTS = {"Latn": re.compile(r"[A-Za-z\u00c0-\u024f]"), "Cyrl": re.compile(r"[\u0400-\u052f]")}

MESSAGE = "message"
PASSAGE = "passage"  # a piece of a text that is no dialogue
COUNTED = frozenset({MESSAGE, PASSAGE})  # what must be in a row or dropped


@dataclass(frozen=True)
class Origin:
    """A place in a source file and what was done to the text from there.

    ``start`` and ``end`` count characters of the decoded file, None where the file is structured;
    ``item`` is the place there, as a JSON pointer, a page or a chapter. ``role`` is the one in the
    source.
    """

    file: str
    uid: str
    start: int | None
    end: int | None
    role: str
    steps: tuple[str, ...] = ()
    item: str = ""

    @property
    def place(self) -> tuple[str, str, int | None, int | None]:
        """What no two messages share."""
        return self.file, self.item, self.start, self.end


@dataclass(frozen=True)
class Turn:
    """One message, mended and cleaned. ``lost`` counts characters that repair could not save.

    ``joined``: the messages that were put after the first to make one turn of them. ``fault`` says
    why it cannot be learned although it stands in the dialogue.
    """

    origin: Origin
    text: str
    lost: int = 0
    repaired: bool = False
    joined: tuple[Origin, ...] = ()
    fault: str = ""

    @property
    def role(self) -> str:
        """``user``, ``assistant``, ``system`` or ``text``, as in the source."""
        return self.origin.role

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Every message that the turn is made of, in order."""
        return (self.origin, *self.joined)


@dataclass(frozen=True)
class Alternative:
    """Other words in the place of turn number ``of`` and what belongs to it; see ``Other``."""

    of: int
    turns: tuple[Turn, ...]
    how: str


@dataclass(frozen=True)
class Conversation:
    """The messages of one conversation in their order, or the passages of one text.

    ``versions``: neighbours of one role are versions of one turn, not parts of it to be put
    together with ``joint``. ``learn`` is the role to learn where the source decides it, ``refused``
    why none of it can be. ``kind`` is the kind of the source, ``provider`` whose chat it was
    where a note says so.
    """

    id: str
    file: str
    turns: tuple[Turn, ...]
    alternatives: tuple[Alternative, ...] = ()
    versions: bool = True
    joint: str = "\n\n"
    learn: str = ""
    refused: str = ""
    kind: str = ""
    provider: str = ""
    is_text: bool = False

    @property
    def beside(self) -> tuple[Turn, ...]:
        """The messages of its alternatives that are not of the main line, each once."""
        main = {turn.origin.place for turn in self.turns}
        others = {
            turn.origin.place: turn
            for other in self.alternatives
            for turn in other.turns
            if turn.origin.place not in main
        }
        return tuple(others.values())

    @property
    def messages(self) -> tuple[Turn, ...]:
        """Every message, those of alternatives last."""
        return (*self.turns, *self.beside) if self.alternatives else self.turns

    @property
    def lost(self) -> int:
        """Characters lost in the messages of its main line."""
        return sum(turn.lost for turn in self.turns)

    @property
    def repaired(self) -> int:
        """How many messages were mended."""
        return sum(turn.repaired for turn in self.messages)

    def script(self) -> str:
        """Return the script of most of its letters; empty when it has none."""
        letters = {
            code: sum(len(pattern.findall(turn.text)) for turn in self.turns)
            for code, pattern in SCRIPTS.items()
        }
        best = max(letters, key=lambda code: letters[code])
        return best if letters[best] else ""


@dataclass(frozen=True)
class Dropped:
    """What stands in no row: a message, or something between and inside messages.

    ``cause`` is the reason without names and numbers, for counting.
    """

    kind: str
    cause: str
    reason: str
    text: str
    origin: Origin
    conversation: str = ""
    lossy: bool = False


@dataclass(frozen=True)
class Candidate:
    """A turn that is in a row, and other words that once stood in its place.

    A candidate for a preference and none yet: that the person went on with one does not say that it
    is better. ``roles`` and ``prompt`` are the turns before it.
    """

    id: str
    how: str
    roles: tuple[str, ...]
    prompt: tuple[Turn, ...]
    kept: Turn
    others: tuple[Turn, ...]


@dataclass(frozen=True)
class Row:
    """One training row. ``roles`` are those to train with; ``turns`` keep those of the source.

    ``text`` is set where the source wrote the row as a text itself: a passage of a book, a scene in
    its notation. ``language`` is an ISO 639-1 code or ``unknown``.
    """

    id: str
    conversation: str
    roles: tuple[str, ...]
    turns: tuple[Turn, ...]
    split: str = "train"
    text: str | None = None
    candidates: tuple[Candidate, ...] = ()
    language: str = "unknown"

    @property
    def lossy(self) -> bool:
        """Whether a message of the row lacks characters."""
        return any(turn.lost for turn in self.turns)


def drop(turn: Turn, conversation: str, cause: str, detail: str = "") -> Dropped:
    """Set a message aside with its reason."""
    reason = f"{cause}: {detail}" if detail else cause
    kind = PASSAGE if turn.role == "text" else MESSAGE
    return Dropped(kind, cause, reason, turn.text, turn.origin, conversation, lossy=bool(turn.lost))


def check_conserved(
    messages: Iterable[Origin], rows: Iterable[Row], dropped: Iterable[Dropped]
) -> None:
    """Hold that every message went in is in a row or dropped, exactly once.

    Raises:
        RuntimeError: a message vanished or doubled: a fault of ours, never of the input.
    """
    # A million places are a few hundred megabytes; the sum of their hashes is one number, equal
    # for equal multisets and for others once in 2**64.
    given = _sum(origin.place for origin in messages)
    kept = _sum(origin.place for row in rows for turn in row.turns for origin in turn.origins)
    left = _sum(each.origin.place for each in dropped if each.kind in COUNTED)
    if given != tuple((one + other) % _WIDE for one, other in zip(kept, left, strict=True)):
        raise RuntimeError(f"Messages were lost or doubled on the way: {given}, {kept}, {left}")


_WIDE = 2**64


def _sum(places: Iterable[tuple[object, ...]]) -> tuple[int, int]:
    """Return how many places there are, and the sum of their hashes."""
    count = total = 0
    for place in places:
        count += 1
        total += hash(place)
    return count, total % _WIDE


def check_script(script: str | None) -> None:
    """Refuse a script that we cannot tell.

    Raises:
        InputError: anything but one of :data:`SCRIPTS` or None.
    """
    if script is not None and script not in SCRIPTS:
        raise InputError(f"Script '{script}' is unknown", f"Known: {', '.join(SCRIPTS)}")


def with_split(row: Row, split: str) -> Row:
    """Return the row on one side of the split."""
    return replace(row, split=split)


@dataclass(frozen=True)
class Changed:
    """One line of a text as one step of its repair changed it.

    ``start`` is where the text begins in the file; ``step`` counts the text's steps from 0 and
    ``line`` its lines from 1. Taken in the order of lines and back from the last step, ``was``
    restores what was read.
    """

    file: str
    uid: str
    item: str
    start: int | None
    role: str
    step: int
    what: str
    line: int
    was: str
    now: str
