"""What every row and every dropped text can say about where it came from."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from loratelier.kit.errors import InputError

# Letters of a script, by their ISO 15924 code.
SCRIPTS = {"Latn": re.compile(r"[A-Za-z\u00c0-\u024f]"), "Cyrl": re.compile(r"[\u0400-\u052f]")}

MESSAGE = "message"


@dataclass(frozen=True)
class Origin:
    """A place in a source file and what was done to the text from there.

    ``start`` and ``end`` count characters of the decoded file; ``role`` is the one in the note.
    """

    file: str
    uid: str
    start: int
    end: int
    role: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message, mended and cleaned. ``lost`` counts characters that repair could not save."""

    origin: Origin
    text: str
    lost: int = 0
    repaired: bool = False

    @property
    def role(self) -> str:
        """``user`` or ``assistant``, as in the note."""
        return self.origin.role


@dataclass(frozen=True)
class Conversation:
    """The messages of one note in their order there."""

    id: str
    file: str
    turns: tuple[Turn, ...]

    @property
    def lost(self) -> int:
        """Characters lost in all its messages."""
        return sum(turn.lost for turn in self.turns)

    @property
    def repaired(self) -> int:
        """How many messages were mended."""
        return sum(turn.repaired for turn in self.turns)

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
class Row:
    """One training row. ``roles`` are those to train with; ``turns`` keep those of the note.

    ``text`` is set where the source wrote the row in its format itself (a scene in its notation).
    """

    id: str
    conversation: str
    roles: tuple[str, ...]
    turns: tuple[Turn, ...]
    split: str = "train"
    text: str | None = None

    @property
    def lossy(self) -> bool:
        """Whether a message of the row lacks characters."""
        return any(turn.lost for turn in self.turns)


def drop(turn: Turn, conversation: str, cause: str, detail: str = "") -> Dropped:
    """Set a message aside with its reason."""
    reason = f"{cause}: {detail}" if detail else cause
    return Dropped(
        MESSAGE, cause, reason, turn.text, turn.origin, conversation, lossy=bool(turn.lost)
    )


def check_conserved(
    messages: Iterable[Origin], rows: Iterable[Row], dropped: Iterable[Dropped]
) -> None:
    """Hold that every message went in is in a row or dropped, exactly once.

    Raises:
        RuntimeError: a message vanished or doubled: a fault of ours, never of the input.
    """
    given = Counter(_place(origin) for origin in messages)
    kept = Counter(_place(turn.origin) for row in rows for turn in row.turns)
    left = Counter(_place(each.origin) for each in dropped if each.kind == MESSAGE)
    if given != kept + left:
        wrong = (given - kept - left) + (kept + left - given)
        raise RuntimeError(f"Messages were lost or doubled on the way: {sorted(wrong)[:3]}")


def _place(origin: Origin) -> tuple[str, int, int]:
    return origin.file, origin.start, origin.end


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
