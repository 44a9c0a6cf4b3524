"""Which copy of a conversation is kept when several files hold it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from loratelier.corpus.convert import loss
from loratelier.corpus.lineage import Conversation, Dropped, drop


@dataclass(frozen=True)
class Same:
    """Files that hold one conversation, the one that is kept, and how often it is so."""

    kept: str
    left: tuple[str, ...]
    times: int


@dataclass(frozen=True)
class Choice:
    """For each conversation the number of the copy that is kept in its place, and its file."""

    best: tuple[int, ...]
    files: dict[int, str]
    same: tuple[Same, ...]

    @property
    def kept(self) -> int:
        """How many conversations are kept."""
        return sum(number == best for number, best in enumerate(self.best))

    def copy(self, number: int, conversation: Conversation) -> Iterator[Dropped]:
        """Yield the messages of a copy that is left out; nothing of one that is kept."""
        best = self.best[number]
        if best == number:
            return
        what = "text" if conversation.is_text else "conversation"
        for turn in conversation.messages:
            lost = f"; {loss(turn)} in this one" if turn.lost else ""
            yield drop(
                turn,
                conversation.id,
                f"a copy of a {what} kept from another note",
                f"{self.files[best]}{lost}",
            )


def choose(conversations: Iterable[Conversation]) -> Choice:
    """Keep one copy of conversations that share an id or a message's UID.

    The copy that lost least is kept; then an export before a note, which flattens branches and
    drops marks; then the one with most messages, the one that needed fewest repairs, and the first
    by name. Only what this needs is held in memory.
    """
    worth: list[tuple[int, bool, int, int, str]] = []
    leader: list[int] = []
    first: dict[tuple[str, str], int] = {}
    for number, one in enumerate(conversations):
        worth.append((one.lost, one.versions, -len(one.turns), one.repaired, one.file))
        leader.append(number)
        uids = {("uid", turn.origin.uid) for turn in one.turns if turn.origin.uid}
        for key in {("id", one.id), *uids}:
            _join(leader, number, first.setdefault(key, number))
    groups: dict[int, list[int]] = {}
    for number in range(len(leader)):
        groups.setdefault(_find(leader, number), []).append(number)
    best = list(range(len(leader)))
    files: dict[int, str] = {}
    pairs: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for group in groups.values():
        if len(group) == 1:
            continue
        kept, *others = sorted(group, key=lambda number: worth[number])
        files[kept] = worth[kept][-1]
        pairs[files[kept], tuple(worth[other][-1] for other in others)] += 1
        for other in others:
            best[other] = kept
    same = tuple(Same(kept, left, times) for (kept, left), times in pairs.items())
    return Choice(tuple(best), files, same)


def _find(leader: list[int], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index


def _join(leader: list[int], one: int, other: int) -> None:
    leader[_find(leader, one)] = _find(leader, other)
