"""From tokens to text while an answer is being written: nothing is said that is taken back."""

from loratelier.base import Base
from loratelier.scope.prompt import words

# What a decoder shows for a character whose bytes are not all there yet.
_HALF = "\ufffd"


class Writing:
    """The text of one answer.

    Half a character waits for its other half, and what may be the beginning of a stop string waits
    until it is known whether it is one. A stop string itself is never said.
    """

    def __init__(self, base: Base, stop: tuple[str, ...]) -> None:
        self._base = base
        self._stop = stop
        self._ids: list[int] = []
        self._said = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """Add a token and return the text that became certain."""
        self._ids.append(token)
        text = words(self._base, self._ids)
        found = [at for at in (text.find(each) for each in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._say(text[: min(found)])
        return self._say(text[: self._certain(text)])

    def end(self) -> str:
        """Return what was still waiting."""
        return "" if self.stopped else self._say(words(self._base, self._ids))

    def _certain(self, text: str) -> int:
        sure = len(text.rstrip(_HALF))
        for each in self._stop:
            for size in range(min(len(each) - 1, len(text)), 0, -1):
                if text.endswith(each[:size]):
                    sure = min(sure, len(text) - size)
                    break
        return sure

    def _say(self, text: str) -> str:
        new = text[self._said :]
        self._said = max(self._said, len(text))
        return new
