"""The language of a row, where there is enough of it to tell."""

from functools import lru_cache
from typing import Any

UNKNOWN = "unknown"
_LETTERS = 20  # fewer say nothing
_SURE = 0.5  # its probability, and how far it must be ahead of the next
_AHEAD = 3.0
_LOOKED_AT = 600  # characters


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, or ``unknown``.

    By py3langid's naive Bayes over byte n-grams (Lui and Baldwin 2012); its model is in the wheel.
    """
    sample = text[:_LOOKED_AT]
    if sum(map(str.isalpha, sample)) < _LETTERS:
        return UNKNOWN
    (code, first), (_, second), *_ = _identifier().rank(sample)
    return str(code) if first >= _SURE and first >= _AHEAD * second else UNKNOWN


@lru_cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_modelpath(MODEL_DIR / MODEL_FILE, norm_probs=True)
