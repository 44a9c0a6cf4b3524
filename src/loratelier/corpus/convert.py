"""From conversations to chat rows: which copy is kept, which turns are learned, what is dropped."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loratelier.corpus.lineage import Conversation, Dropped, Row, Turn, drop, with_split

LEARN = ("assistant", "user")
_NOTHING = frozenset({"", "[No content found]"})
_FEW = 10  # below this many conversations holding some out costs more than it tells

_SWAPPED = {"user": "assistant", "assistant": "user"}


@dataclass(frozen=True)
class Same:
    """Files that hold one conversation, and the one that is kept."""

    kept: str
    left: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """One copy of every conversation, and the messages of the others."""

    kept: tuple[Conversation, ...]
    dropped: tuple[Dropped, ...]
    same: tuple[Same, ...]


def choose(conversations: Sequence[Conversation]) -> Choice:
    """Keep one copy of conversations that share an id or a message's UID.

    The copy that lost least is kept; then the one with most messages, then the one that needed
    fewest repairs, then the first by name.
    """
    kept: list[Conversation] = []
    dropped: list[Dropped] = []
    same: list[Same] = []
    for group in _groups(conversations):
        best, *others = sorted(
            group, key=lambda one: (one.lost, -len(one.turns), one.repaired, one.file)
        )
        kept.append(best)
        for other in others:
            dropped += _copies(other, best)
        if others:
            same.append(Same(best.file, tuple(other.file for other in others)))
    return Choice(tuple(kept), tuple(dropped), tuple(same))


def _copies(other: Conversation, best: Conversation) -> Iterator[Dropped]:
    for turn in other.turns:
        loss = f"; {_loss(turn)} in this one" if turn.lost else ""
        yield drop(
            turn,
            other.id,
            "a copy of a conversation kept from another note",
            f"{best.file}{loss}",
        )


def _loss(turn: Turn) -> str:
    return f"{turn.lost} characters lost"


def _groups(conversations: Sequence[Conversation]) -> list[list[Conversation]]:
    """Put together what shares an id or a UID, directly or through a third."""
    leader = list(range(len(conversations)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[str, int] = {}
    for index, conversation in enumerate(conversations):
        uids = [f"uid {turn.origin.uid}" for turn in conversation.turns if turn.origin.uid]
        for key in (f"id {conversation.id}", *uids):
            leader[find(index)] = find(first.setdefault(key, index))
    groups: dict[int, list[Conversation]] = {}
    for index, conversation in enumerate(conversations):
        groups.setdefault(find(index), []).append(conversation)
    return list(groups.values())


def to_row(
    conversation: Conversation, learn: str, *, include_lossy: bool
) -> tuple[Row | None, list[Dropped]]:
    """Make one chat row of a conversation; None when it has no turn to learn.

    Roles alternate in the row. The note's order is by time, so of neighbours with one role the
    later is the one that the conversation went on with. With ``learn`` = ``user`` the roles change
    places; the person's opening stays, since opening is part of how one speaks, while an answer
    without its question teaches nothing and goes.
    """
    thread = _Thread(conversation, include_lossy=include_lossy)
    for turn in conversation.turns:
        thread.add(turn)
    thread.close(learn)
    if not thread.kept:
        return None, thread.dropped
    roles = (turn.role if learn == "assistant" else _SWAPPED[turn.role] for turn in thread.kept)
    row = Row(f"{conversation.id}#0", conversation.id, tuple(roles), tuple(thread.kept))
    return row, thread.dropped


class _Thread:
    """The turns of a conversation while neighbours are compared."""

    def __init__(self, conversation: Conversation, *, include_lossy: bool) -> None:
        self.kept: list[Turn] = []
        self.dropped: list[Dropped] = []
        self._id = conversation.id
        self._include_lossy = include_lossy
        self._seen: set[tuple[str, str, str]] = set()
        # The turn just left out for its own sake: its neighbour cannot stand without it.
        self._gap: Turn | None = None

    def add(self, turn: Turn) -> None:
        """Take the next turn of the note."""
        fault = self._fault(turn)
        if fault:
            self._drop(turn, *fault)
            if fault[0] != _TWICE:
                self._gap = turn
            return
        gap, self._gap = self._gap, None
        if gap and gap.role == "user" and turn.role == "assistant":
            self._drop(turn, "its question was left out")
            return
        if self.kept and self.kept[-1].role == turn.role:
            self._drop(self.kept.pop(), _superseded(turn.role, gap))
        self.kept.append(turn)

    def close(self, learn: str) -> None:
        """Drop what is left over at the ends: turns that lead to nothing that is learned."""
        while self.kept and self.kept[-1].role != learn:
            self._drop(self.kept.pop(), self._leftover(learn))
        while learn == "assistant" and self.kept and self.kept[0].role == learn:
            self._drop(self.kept.pop(0), "an answer without a question before it")

    def _leftover(self, learn: str) -> str:
        if learn == "user":
            return "nothing that the person said follows"
        return "its answer was left out" if self._gap else "unanswered"

    def _fault(self, turn: Turn) -> tuple[str, str] | None:
        if turn.text.strip() in _NOTHING:
            return "no content", ""
        if turn.lost and not self._include_lossy:
            return "lossy repair", _loss(turn)
        key = (turn.origin.uid, turn.role, turn.text)
        if turn.origin.uid and key in self._seen:
            return _TWICE, ""
        self._seen.add(key)
        return None

    def _drop(self, turn: Turn, cause: str, detail: str = "") -> None:
        self.dropped.append(drop(turn, self._id, cause, detail))


_TWICE = "the same message twice in one note"


def _superseded(role: str, gap: Turn | None) -> str:
    if gap is not None and gap.role != role:
        return "its answer was left out"
    if role == "assistant":
        return "an earlier answer to the same turn; the later one is kept"
    return "an earlier wording of the same turn; the later one is kept"


def split(rows: Sequence[Row], holdout: float) -> list[Row]:
    """Hold out a share of the conversations, the same ones whatever else is added.

    Rows are ordered by a hash of the conversation's id and the first ``round(holdout * n)`` of them
    are held out: at least one of ten or more, none of fewer.
    """
    names = sorted({row.conversation for row in rows}, key=_order)
    wanted = max(1, round(holdout * len(names))) if holdout and len(names) >= _FEW else 0
    chosen = set(names[:wanted])
    return [with_split(row, "holdout" if row.conversation in chosen else "train") for row in rows]


def _order(conversation: str) -> str:
    return hashlib.sha256(conversation.encode("utf-8")).hexdigest()


def conversation_id(given: str, turns: Sequence[Turn]) -> str:
    """Return the note's own id, or one derived from the UIDs, or from the texts without them."""
    if given:
        return given
    uids = [turn.origin.uid for turn in turns if turn.origin.uid]
    parts = uids or [f"{turn.role}\n{turn.text}" for turn in turns]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
