"""Whether quotes, dashes and apostrophes stand where people put them."""

import re
import unicodedata

# What a mark that a reading makes is worth in its place, out of place, and what one is worth that
# it takes away, in nats.
_MADE, _UNPAIRED, _MISPLACED, _TAKEN, _UNCLOSED, _FREED = 5.0, 1.0, -4.0, -5.0, -1.0, 2.0
# What it is worth besides that the character before was out of place itself, or that quotes pair.
_STRAY = 4.0
_LONELY = 7.0
_LONE = -5.0
# A no-break space may take the place of anything: it needs other evidence.
_SPACED = -2.0

# What stands left and right of each mark, one character and up to three.
_PLACES = {
    "’": r"[A-Za-z]\|(?:t|s|d|m|re|ve|ll|n|T|S)(?![A-Za-z])|[OD]\|[A-Z]|[oO]\|cl"
    r"|s\| |[\w.,!?…]\|(?!\w)",
    "‘": r"[\s(\[“«—]\|\w",
    "“": r"[\s(\[*_—’|>]\|[^\s,.;:)]|[\w.,!?…]\|(?![\w])",
    "”": r"[^\s(\[]\|(?!\w)",
    "„": r"[\s(\[—]\|[^\s,.;:)]",
    "«": r"[\s(\[*_—|>\"]\|[^\s,.;:)]",
    "»": r"[^\s(\[]\|(?!\w)",
    "‚": r"[\s(\[—]\|\w",
    "—": r"[ \xa0\n>»\"”,.!?]\|[ \xa0\n]|[A-Za-z]\|[A-Za-z]{2}",
    "–": r"[ \xa0\n]\|[ \xa0\n]|\d\|\d|[A-Za-z]\|[A-Za-z]{2}|[IVX]\|[IVX]",
    "…": r"[\w\s?!«“”»)\]\[(]\|(?=[\s.,?!»”)\]\[]|$)|[\s«“(\[]\|\w",
    "№": r"[\s(]\|\s?\d",
    "•": r"[\n ]\|[ \xa0]",
    "·": r"\s\|\s",
    "−": r"[\s(=]\|[\s\d]",
    "\xa0": r"[^\s\w]\|\S|\w\|[^\s\w]|\d\|\S",
}
_CLOSES = {"”": "“„", "»": "«", "’": "‘"}
_OPENS = {"“": "”", "„": "”“", "«": "»", "‘": "’"}
_APOSTROPHE = re.compile(r"[A-Za-z]’[A-Za-z]|s’ ")
_STEM = re.compile(r"[A-Za-z]*$")
_ABOUT_LETTERS = re.compile(r"\b(?:letter|character|accent|symbol|press|type|spelt|spelled)", re.I)
_PAIRING = frozenset("“”„«»‘’")
_SMALL_WORDS = frozenset("авикосу")
_PRONOUNS = frozenset({"i", "it", "he", "we"})
_ACCENTED = frozenset(map(chr, range(0xC0, 0x250)))
_LETTER = re.compile(r"[^\W\d_]")
_LETTER_BEFORE = re.compile(r"[^\W\d_](?=[\W\d_]*$)")
_COMMON = re.compile(r"\b(?:the|of|and|to|is|in|that|for|not|with|it|you|are|was|an?)\b", re.I)

_FITS = {mark: re.compile(pattern) for mark, pattern in _PLACES.items()}


def fits(text: str, place: int) -> bool:
    """Say whether the mark at a place stands as people set it: «so», not so«."""
    before = text[place - 1] if place else "\n"
    after = text[place + 1 : place + 4]
    return _FITS[text[place]].match(f"{before}|{after or chr(10)}") is not None


def gain(old: str, new: str) -> float:
    """Return what a reading makes of the marks in a text."""
    if len(old) != len(new):
        return _in_place(new) - _in_place(old)
    places = [n for n, (was, now) in enumerate(zip(old, new, strict=True)) if was != now]
    kept = "".join(was if was == now else " " for was, now in zip(old, new, strict=True))
    return sum(_worth(old, new, kept, place) for place in places)


def _in_place(text: str) -> float:
    places = (place for place, char in enumerate(text) if char in _FITS)
    return sum(_MADE if fits(text, place) else _MISPLACED for place in places)


def _worth(old: str, new: str, kept: str, place: int) -> float:
    worth = 0.0
    if new[place] in _FITS:
        worth += _made(old, new, kept, place)
    if old[place] in _FITS:
        worth += _taken(old, place)
    if "\u0400" <= new[place] <= "\u04ff" and _is_lone(new, kept, place):
        worth += _LONE
    return worth


def _is_lone(new: str, kept: str, place: int) -> bool:
    """Say whether a reading makes a single Cyrillic letter among Latin words."""
    near = (_LETTER_BEFORE.search(kept[:place]), _LETTER.search(kept, place + 1))
    found = [letter[0][0] for letter in near if letter]
    return (
        not any(map(str.isalpha, _beside(new, place)))
        and bool(found)
        and all(map(str.isascii, found))
    )


def _made(old: str, new: str, kept: str, place: int) -> float:
    if not fits(new, place) or (new[place] == "’" and _is_name(old, place)):
        return _MISPLACED
    if new[place] == "\xa0":
        return _SPACED
    openers = _CLOSES.get(new[place], "")
    stray = _stray(old, new, kept, place)
    closers = _OPENS.get(new[place], "")
    if closers and not any(char in closers for char in new[place + 1 :]):
        return _UNPAIRED + stray
    if not openers or _apostrophe(new, place):
        return _MADE + stray
    paired = any(char in openers for char in new[:place])
    return (_MADE + _STRAY if paired else _UNPAIRED) + stray


def _taken(old: str, place: int) -> float:
    if old[place] != "\xa0" and not fits(old, place):
        return _FREED
    closers = _OPENS.get(old[place], "")
    open_end = closers and not any(char in closers for char in old[place + 1 :])
    return _UNCLOSED if open_end else _TAKEN


def _is_name(old: str, place: int) -> bool:
    """Say whether an accented letter may be at home where an apostrophe would stand: Luís."""
    stem = _STEM.search(old[:place])
    letter = unicodedata.normalize("NFD", old[place])[0].isascii()
    return letter and stem is not None and len(stem[0]) < 3 and stem[0].lower() not in _PRONOUNS


def _stray(old: str, new: str, kept: str, place: int) -> float:
    """Return what it is worth that a character stands among letters of a script not its own."""
    alone = not any(map(str.isalpha, _beside(new, place)))
    if old[place] in _ACCENTED:
        if (alone and new[place] in "—–") or _apostrophe(new, place):
            return _STRAY if _is_english(kept) and not _ABOUT_LETTERS.search(kept) else 0.0
        return 0.0 if new[place] in _PAIRING else -_MADE
    left, right = _LETTER_BEFORE.search(kept[:place]), _LETTER.search(kept, place + 1)
    if not all(letter is None or letter[0].isascii() for letter in (left, right)):
        return 0.0
    if alone and old[place].isalpha():
        # «GPT и LoRA» is clean.
        return 0.0 if old[place] in _SMALL_WORDS else _LONELY
    return _STRAY


def _apostrophe(text: str, place: int) -> bool:
    return place > 0 and _APOSTROPHE.match(text, place - 1) is not None


def _beside(text: str, place: int) -> str:
    return text[max(0, place - 1) : place] + text[place + 1 : place + 2]


def _is_english(text: str) -> bool:
    letters = "".join(filter(str.isalpha, text))
    return letters.isascii() and _COMMON.search(text) is not None
