"""Words as a person means them: 'поэту' and 'поэтом' are the poet, 'runs' is running.

Russian words are looked up in the dictionary of forms that the corpus uses anyway, which also knows
vowels that come and go ('тренировок'); English ones go through Snowball's English stemmer.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import snowballstemmer

from loratelier.corpus.words import lemmas

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_RUSSIAN = re.compile(r"[\u0400-\u04ff-]+")
_ENGLISH = snowballstemmer.stemmer("english")

# The keys of one word: it is the same word as another if they share one.
Keys = frozenset[str]
# A word or several in a row.
Phrase = tuple[Keys, ...]


@lru_cache(maxsize=50_000)
def keys_of(word: str) -> Keys:
    """Return what a word may be a form of: stems or dictionary forms."""
    folded = word.casefold().replace("ё", "е").replace("’", "'")
    if _RUSSIAN.fullmatch(folded):
        # The dictionary writes ё where it belongs, people do not.
        return frozenset(each.replace("ё", "е") for each in lemmas(folded)) | {folded}
    return frozenset({_ENGLISH.stemWord(folded)})


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are written."""
    return _WORD.findall(text)


def phrase(text: str) -> Phrase:
    """Return the words of a text by what they are forms of."""
    return tuple(keys_of(word) for word in words_of(text))


def terms(text: str) -> list[str]:
    """Return one term a word, for counting: of several readings the first in the alphabet."""
    return [min(keys) for keys in phrase(text)]


def starts_with(text: Sequence[Keys], wanted: Sequence[Keys]) -> bool:
    """Whether a text begins with words that are forms of the wanted ones."""
    return len(text) >= len(wanted) > 0 and all(
        not said.isdisjoint(meant) for said, meant in zip(text, wanted, strict=False)
    )


def occurs(text: Sequence[Keys], wanted: Sequence[Keys]) -> bool:
    """Whether words occur in a text in a row, in any form."""
    size = len(wanted)
    return any(starts_with(text[place : place + size], wanted) for place in range(len(text)))


def hits(text: Sequence[Keys], keywords: Iterable[str]) -> list[str]:
    """Return the keywords that occur in a text."""
    return [keyword for keyword in keywords if occurs(text, phrase(keyword))]
