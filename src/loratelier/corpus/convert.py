"""From conversations to chat rows: which turns are learned, what is dropped and why."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from loratelier.corpus.importers.parts import LABELLED, REGENERATED, REWORDED
from loratelier.corpus.lineage import (
    Alternative,
    Candidate,
    Conversation,
    Dropped,
    Row,
    Turn,
    drop,
    with_split,
)

LEARN = ("assistant", "user")
_NOTHING = frozenset({"", "[No content found]"})
_FEW = 10  # below this many conversations holding some out costs more than it tells

_SWAPPED = {"user": "assistant", "assistant": "user"}

_INSTEAD = {
    REGENERATED: "another answer to the same turn; the one gone on with is kept",
    REWORDED: "another wording of the same turn; the one gone on with is kept",
    LABELLED: "labelled as the worse answer",
}


def to_row(
    conversation: Conversation, learn: str, *, include_lossy: bool
) -> tuple[Row | None, list[Dropped]]:
    """Make one chat row of a conversation; None when it has no turn to learn.

    Roles alternate in the row. A note's order is by time, so of neighbours with one role the later
    is the one that the conversation went on with; elsewhere neighbours are parts of one turn. With
    ``learn`` = ``user`` the roles change places; the person's opening stays, since opening is part
    of how one speaks, while an answer without its question teaches nothing and goes. Other words
    for a turn that is learned become candidates of the row.
    """
    thread = _Thread(conversation, conversation.learn or learn, include_lossy=include_lossy)
    if conversation.refused:
        return None, [
            drop(each, conversation.id, conversation.refused) for each in conversation.messages
        ]
    for turn in conversation.turns:
        thread.add(turn)
    return thread.row(), thread.dropped


def to_text_rows(
    conversation: Conversation, *, include_lossy: bool
) -> tuple[list[Row], list[Dropped]]:
    """Make a row of each passage of a text."""
    rows: list[Row] = []
    dropped: list[Dropped] = []
    for number, turn in enumerate(conversation.turns):
        if turn.lost and not include_lossy:
            dropped.append(drop(turn, conversation.id, "lossy repair", loss(turn)))
        elif not turn.text.strip():
            dropped.append(drop(turn, conversation.id, "no content"))
        else:
            name = f"{conversation.id}#{number}"
            rows.append(Row(name, conversation.id, (turn.role,), (turn,), text=turn.text))
    return rows, dropped


def loss(turn: Turn) -> str:
    """Say how much of a turn is lost."""
    return f"{turn.lost} characters lost"


class _Thread:
    """The turns of a conversation while neighbours are compared.

    ``_kept`` holds a list a turn: the messages that it is put together from.
    """

    def __init__(self, conversation: Conversation, learn: str, *, include_lossy: bool) -> None:
        self.dropped: list[Dropped] = []
        self._conversation = conversation
        self._learn = learn
        self._include_lossy = include_lossy
        self._system: Turn | None = None
        self._kept: list[list[Turn]] = []
        self._earlier: dict[int, list[Turn]] = {}  # by place in _kept, its earlier versions
        self._seen: set[tuple[str, str, str]] = set()
        # The turn just left out for its own sake: its neighbour cannot stand without it.
        self._gap: Turn | None = None

    def add(self, turn: Turn) -> None:
        """Take the next message of the source."""
        fault = self._fault(turn)
        if fault:
            self._drop(turn, *fault)
            if fault[0] != _TWICE and turn.role != "system":
                self._gap = turn
        elif turn.role == "system":
            self._head(turn)
        elif self._gap and self._gap.role == "user" and turn.role == "assistant":
            self._drop(turn, "its question was left out")
        else:
            self._follow(turn)
            self._gap = None

    def row(self) -> Row | None:
        """Close the conversation and make its row."""
        self._close()
        for turn in self._conversation.beside:
            self._drop(turn, _INSTEAD[self._how(turn)])
        if not self._kept:
            if self._system:
                self._drop(self._system, "nothing to learn follows")
            return None
        turns = [self._together(group) for group in self._kept]
        turns = [self._system, *turns] if self._system else turns
        roles = tuple(
            turn.role if self._learn == "assistant" else _SWAPPED[turn.role] for turn in turns
        )
        name = self._conversation.id
        return Row(
            f"{name}#0", name, roles, tuple(turns), candidates=self._candidates(roles, turns)
        )

    def _head(self, turn: Turn) -> None:
        """Keep what opens a dialogue for the assistant; it is no voice of the person's."""
        if self._kept or self._system:
            self._drop(turn, "a system message inside the dialogue")
        elif self._learn == "user":
            self._drop(turn, "a system message; the person's voice is learned")
        else:
            self._system = turn

    def _follow(self, turn: Turn) -> None:
        last = self._kept[-1] if self._kept else []
        if not last or last[0].role != turn.role:
            self._kept.append([turn])
        elif self._gap is not None and self._gap.role != turn.role:
            self._replace("its answer was left out", [])
            self._follow(turn)
        elif self._conversation.versions:
            self._replace(_SUPERSEDED[turn.role], self._earlier.get(len(self._kept) - 1, []))
            self._earlier.setdefault(len(self._kept), []).extend(last)
            self._kept.append([turn])
        elif any(part.text == turn.text for part in last):
            self._drop(turn, "the same words twice in one turn")
        else:
            last.append(turn)

    def _replace(self, cause: str, versions: list[Turn]) -> None:
        """Take the last turn out, and forget its versions but these."""
        for part in self._kept.pop():
            self._drop(part, cause)
        self._earlier[len(self._kept)] = versions

    def _close(self) -> None:
        """Drop what is left over at the ends: turns that lead to nothing that is learned."""
        while self._kept and self._kept[-1][0].role != self._learn:
            self._replace(self._leftover(), [])
        while self._learn == "assistant" and self._kept and self._kept[0][0].role == self._learn:
            for part in self._kept.pop(0):
                self._drop(part, "an answer without a question before it")
            self._earlier = {place - 1: turns for place, turns in self._earlier.items() if place}

    def _leftover(self) -> str:
        if self._learn == "user":
            return "nothing that the person said follows"
        return "its answer was left out" if self._gap else "unanswered"

    def _candidates(self, roles: tuple[str, ...], turns: list[Turn]) -> tuple[Candidate, ...]:
        """Return the turns that are learned and have other versions."""
        before = len(turns) - len(self._kept)
        found: list[Candidate] = []
        for place, group in enumerate(self._kept):
            if group[0].role != self._learn:
                continue
            at = place + before
            others = [(self._how_earlier(), each) for each in self._earlier.get(place, [])]
            others += [
                (other.how, self._together(list(other.turns))) for other in self._instead(group)
            ]
            for how in dict.fromkeys(how for how, _ in others):
                same = tuple(each for kind, each in others if kind == how)
                name = f"{self._conversation.id}#0/{at}/{how}"
                found.append(Candidate(name, how, roles[:at], tuple(turns[:at]), turns[at], same))
        return tuple(found)

    def _instead(self, group: list[Turn]) -> list[Alternative]:
        """Return the alternatives to a turn that are whole."""
        places = {part.origin.place for part in group}
        return [
            other
            for other in self._conversation.alternatives
            if self._conversation.turns[other.of].origin.place in places
            and not any(self._is_faulty(turn) for turn in other.turns)
        ]

    def _how(self, turn: Turn) -> str:
        """Return what an alternative's message is to the turn that was kept."""
        return next(
            other.how
            for other in self._conversation.alternatives
            if any(one.origin.place == turn.origin.place for one in other.turns)
        )

    def _how_earlier(self) -> str:
        return REGENERATED if self._learn == "assistant" else REWORDED

    def _together(self, group: list[Turn]) -> Turn:
        """Make one turn of its messages."""
        if len(group) == 1:
            return group[0]
        return Turn(
            group[0].origin,
            self._conversation.joint.join(part.text for part in group),
            sum(part.lost for part in group),
            any(part.repaired for part in group),
            tuple(part.origin for part in group[1:]),
        )

    def _fault(self, turn: Turn) -> tuple[str, str] | None:
        if turn.fault:
            return turn.fault, ""
        if turn.text.strip() in _NOTHING:
            return "no content", ""
        if turn.lost and not self._include_lossy:
            return "lossy repair", loss(turn)
        key = (turn.origin.uid, turn.role, turn.text)
        if turn.origin.uid and key in self._seen:
            return _TWICE, ""
        self._seen.add(key)
        return None

    def _is_faulty(self, turn: Turn) -> bool:
        lossy = bool(turn.lost) and not self._include_lossy
        return bool(turn.fault) or turn.text.strip() in _NOTHING or lossy

    def _drop(self, turn: Turn, cause: str, detail: str = "") -> None:
        self.dropped.append(drop(turn, self._conversation.id, cause, detail))


_TWICE = "the same message twice in one note"

_SUPERSEDED = {
    "assistant": "an earlier answer to the same turn; the later one is kept",
    "user": "an earlier wording of the same turn; the later one is kept",
}


def split(rows: Iterable[Row], holdout: float) -> Iterator[Row]:
    """Hold out a share of the conversations, the same ones whatever else is added.

    ``rows`` is walked twice.

    Rows are ordered by a hash of the conversation's id and the first ``round(holdout * n)`` of them
    are held out: at least one of ten or more, none of fewer.
    """
    names = sorted({row.conversation for row in rows}, key=_order)
    wanted = max(1, round(holdout * len(names))) if holdout and len(names) >= _FEW else 0
    chosen = set(names[:wanted])
    for row in rows:
        yield with_split(row, "holdout" if row.conversation in chosen else "train")


def _order(conversation: str) -> str:
    return hashlib.sha256(conversation.encode("utf-8")).hexdigest()


def conversation_id(given: str, turns: Sequence[Turn]) -> str:
    """Return the note's own id, or one derived from the UIDs, or from the texts without them."""
    if given:
        return given
    uids = [turn.origin.uid for turn in turns if turn.origin.uid]
    parts = uids or [f"{turn.role}\n{turn.text}" for turn in turns]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
