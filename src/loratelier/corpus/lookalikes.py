"""Letters that a scanner or a slip of the keyboard took from the other alphabet.

A word mostly of Cyrillic letters is set right when the dictionary knows exactly one reading; a
Latin word when every Cyrillic letter in it has one twin. Words with no reading stay as they are.
"""

import re
from itertools import product

from loratelier.corpus.words import is_known

# What each Latin letter or digit may stand for; a capital for a capital.
_CYRILLIC = {
    **dict(zip("ABCEHKMOPTXYaceopxyk", "АВСЕНКМОРТХУасеорхук", strict=True)),
    **{"3": "ЗзЭэ", "0": "Оо", "6": "б", "4": "Чч", "b": "ЬЫВь", "N": "ИЙ", "R": "Я", "W": "Ш"},
    **{"u": "и", "n": "п", "r": "г", "m": "т", "h": "н", "U": "И"},
}
_LATIN = dict(zip("АВСЕНКМОРТХУЅІЈасеорхуѕіј", "ABCEHKMOPTXYSIJaceopxysij", strict=True))
_MOST_READINGS = 64

_WORD = re.compile(r"(?<![\w'’`./\\@#$%&=<>-])[A-Za-z0-9А-яЁёЅІЈѕіј]{3,}(?![\w'’`/\\@=<>-])")
_CYRILLIC_LETTER = re.compile(r"[А-яЁё]")
_TORN = re.compile("[a-z][A-Z]")
# A word of both alphabets, or of one and digits.
MIXED = re.compile("[A-Za-z0-9][А-яЁёЅІЈѕіј]|[А-яЁёЅІЈѕіј][A-Za-z0-9]")
_OTHER = re.compile(r"[A-Za-z0-9]")


def set_right(line: str) -> str:
    """Return a line with look-alike letters in their own alphabet; one of equal length."""
    if not MIXED.search(line):
        return line
    mixed = [word for word in _WORD.findall(line) if _OTHER.search(word) and _is_mixed(word)]
    if not mixed:
        return line
    return _WORD.sub(lambda match: _word(match.group()), line)


def _is_mixed(word: str) -> bool:
    return _CYRILLIC_LETTER.search(word) is not None or any(char in _LATIN for char in word)


def _word(word: str) -> str:
    if not _is_mixed(word) or not _OTHER.search(word):
        return word
    cyrillic = len(_CYRILLIC_LETTER.findall(word))
    if cyrillic * 2 >= len(word):
        return _to_cyrillic(word)
    if cyrillic * 3 <= len(word):
        return _to_latin(word)
    return word


def _to_cyrillic(word: str) -> str:
    # 3го, 10км and 4х are clean; a digit is a letter only among capitals or inside a word.
    if word[0].isdigit() and not word[1:].isupper():
        return word
    if word[-1].isdigit():
        return word
    choices = [_choices(char) for char in word]
    if not all(choices):
        return word
    number = 1
    for choice in choices:
        number *= len(choice)
    if number > _MOST_READINGS:
        return word
    readings = dict.fromkeys("".join(letters) for letters in product(*choices))
    known = [reading for reading in readings if is_known(reading)]
    return known[0] if len(known) == 1 else word


def _choices(char: str) -> str:
    return char if _CYRILLIC_LETTER.match(char) else _CYRILLIC.get(char, "")


def _to_latin(word: str) -> str:
    # JSONом, PDFа: Russian endings of Latin words are clean.
    if any(char.isdigit() for char in word) or not word[-1].isascii():
        return word
    letters = [char if char.isascii() else _LATIN.get(char, "") for char in word]
    made = "".join(letters)
    return made if all(letters) and not _TORN.search(made) else word
