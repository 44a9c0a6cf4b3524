"""What a build did, in numbers and names: the manifest of a corpus folder."""

from pydantic import BaseModel, ConfigDict

from loratelier.corpus.hygiene.note import CleaningNote
from loratelier.corpus.notes import ComparisonNote, ScoreNote, SelectionNote, SynthesisNote

KIND = "loratelier corpus"
NAMED = 200  # broken items that a file's report names one by one


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Remark(_Part):
    """Commentary in a note: where it stands and how it begins."""

    start: int
    end: int
    characters: int
    first_words: str


class Mended(_Part):
    """One kind of damage in one text.

    Scores are nats a character; ``lines`` counts the mended ones. ``role`` is empty outside
    messages.
    """

    file: str
    uid: str
    role: str
    what: str
    wrong: str
    right: str
    first_line: int
    last_line: int
    lines: int
    lost: int
    score_before: float
    score_after: float
    excerpt_before: str
    excerpt_after: str


class SameConversation(_Part):
    """Files that held one conversation; ``times``, of so many conversations."""

    kept: str
    left: list[str]
    times: int = 1


class BrokenItem(_Part):
    """One item of a file that could not be read while the rest was."""

    item: str
    reason: str


class NoteReport(_Part):
    """One source file. ``state`` is ``read``, ``no messages found``, ``empty`` or why unread.

    ``kind`` is what the file was recognised as. ``broken`` names the first :data:`NAMED` of its
    ``broken_items``; all of them stand among the dropped.
    """

    file: str
    state: str
    kind: str = ""
    encoding: str = ""
    title: str = ""
    conversation: str = ""
    conversations: int = 0
    messages: int = 0
    passages: int = 0
    in_rows: int = 0
    dropped: int = 0
    repaired: int = 0
    lossy: int = 0
    commentary: list[Remark] = []
    repairs: list[Mended] = []
    broken_items: int = 0
    broken: list[BrokenItem] = []


class Report(_Part):
    """The manifest: settings, counts, and what happened to each file.

    ``messages`` = ``messages_in_rows`` + ``dropped``; commentary, callouts inside messages and
    passages of texts are counted apart. ``repaired`` counts mended messages, ``lossy`` those among
    them that lack characters. ``tokens`` are new ones that rows use: hyperlexemes.
    """

    kind: str = KIND
    version: int = 1
    hash: str
    versions: dict[str, str]
    format: str
    learn: str
    holdout: float
    include_lossy: bool
    script: str | None
    speaker: str | None = None
    conversations: int
    messages: int
    rows: int
    train: int
    held_out: int
    messages_in_rows: int
    dropped: int
    repaired: int
    lossy: int
    commentary: int
    nested: int
    passages: int = 0
    candidates: int = 0
    broken: int = 0
    tokens: list[str] = []
    reasons: dict[str, int]
    same: list[SameConversation]
    files: list[NoteReport]
    cleaning: CleaningNote = CleaningNote()
    scores: list[ScoreNote] = []
    comparisons: list[ComparisonNote] = []
    selections: list[SelectionNote] = []
    syntheses: list[SynthesisNote] = []

    def counts(self) -> dict[str, int]:
        """Return the counts that ``corpus build --json`` prints."""
        return {
            "conversations": self.conversations,
            "messages": self.messages,
            "rows": self.rows,
            "train": self.train,
            "holdout": self.held_out,
            "messages_in_rows": self.messages_in_rows,
            "dropped": self.dropped,
            "repaired": self.repaired,
            "lossy": self.lossy,
            "commentary": self.commentary,
            "passages": self.passages,
            "candidates": self.candidates,
            "broken": self.broken,
        }

    def repair_lines(self) -> list[str]:
        """Say for each file how it was mended: what was read as what, how many texts, what lost."""
        return [line for note in self.files for line in _mended(note)]

    def silent_notes(self) -> list[NoteReport]:
        """Return the files that gave no message."""
        return [note for note in self.files if note.state != "read"]


def broken_line(item: BrokenItem, file: str) -> str:
    """Name a broken item: its file, its place there, and why."""
    where = f"{file} {item.item}".rstrip()
    return f"{where}: {item.reason}"


def _mended(note: NoteReport) -> list[str]:
    lines = []
    for what in dict.fromkeys(mended.what for mended in note.repairs):
        steps = [mended for mended in note.repairs if mended.what == what]
        messages = sum(bool(step.role) for step in steps)
        others = len(steps) - messages
        where = [count(messages, "message")] if messages else []
        where += [count(others, "text") + " beside messages"] if others else []
        lost = sum(step.lost for step in steps)
        losses = f"{count(lost, 'character')} lost" if lost else "nothing lost"
        lines.append(f"{note.file}: {what}, {' and '.join(where)}, {losses}")
    return lines


def count(number: int, noun: str) -> str:
    """Return ``1 message``, ``2 messages``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_words(text: str, limit: int = 80) -> str:
    """Return the beginning of a text on one line."""
    words = " ".join(text.split())
    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"
