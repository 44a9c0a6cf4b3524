"""The one error that a person meets: what is wrong, and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """Bad input or usage: the command line prints it as one line and ends with status 2.

    ``what`` names the thing that is wrong (the file, the row, the key); ``mend`` says what to do.
    """

    def __init__(self, what: str, mend: str | None = None) -> None:
        self.what = what
        self.mend = mend
        super().__init__(f"{what}. {mend}" if mend else what)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` is most likely a misspelling of, if there is one."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a mend for an unknown word: the nearest known one, or all of them."""
    words = sorted(known)
    close = nearest(word, words)
    if close:
        return f"Did you mean '{close}'?"
    return f"Known: {', '.join(words)}" if words else "None is known yet"
