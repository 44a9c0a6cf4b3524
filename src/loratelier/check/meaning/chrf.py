"""chrF: how much of a text's letters in a row are in another text (Popović 2015)."""

from collections import Counter

_LONGEST, _BETA = 6, 2


def chrf(wanted: str, found: str) -> float:
    """Return the F-score of character n-grams, 0 to 1; recall counts twice as much as precision.

    Blanks are left out; precision and recall are means over the lengths 1 to 6 that both texts
    have.
    """
    one, other = ("".join(text.split()) for text in (wanted, found))
    lengths = range(1, min(_LONGEST, len(one), len(other)) + 1)
    if not lengths:
        return 0.0
    precision = recall = 0.0
    for length in lengths:
        old, new = _grams(one, length), _grams(other, length)
        same = (old & new).total()
        precision += same / new.total() / len(lengths)
        recall += same / old.total() / len(lengths)
    below = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / below if below else 0.0


def _grams(text: str, length: int) -> Counter[str]:
    return Counter(text[at : at + length] for at in range(len(text) - length + 1))
