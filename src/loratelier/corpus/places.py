"""How well a character above ASCII stands where it stands in a line of English, in nats.

Each rule looks at what is left and right of it: contractions and possessives, pairs of quotes,
dashes between words, signs beside numbers. Nought is in place; the more, the further from it.
"""

import re
from collections.abc import Callable

from loratelier.corpus.english import ENGLISH

_OUT_OF_PLACE = 7.0
_ALONE = 7.0  # for an accented letter that is no word
_TORN = 9.0  # for a sign inside a word, but for these
_INSIDE = frozenset("’‘—–…·\xa0")
_CAPITAL_WORD = re.compile("[A-Z][a-z]")
_ABOUT_LETTERS = re.compile(r"\b(?:letter|character|accent|symbol|press|type|spelt|spelled)", re.I)
_BORROWED = frozenset("éèêëïöüäñçâ")  # in words of English too
_LOWER_WORD = re.compile("(?<![^\\s([“‘«\"'—-])[a-z]+$")
_ENDS = frozenset(".,;:!?)]")
_TWINS = frozenset("асеорхуіАВЕКМНОРСТХІ")  # what a slip of the keyboard leaves in a Latin word
_LABEL = re.compile(
    r"(?:Figure|Chapter|Table|Example|Section|Appendix|Part|Step|[Pp]age|[Pp]|No|vol)\.?$"
)
_ELIDED = re.compile(r"(?<![^\W\d_])(?:[A-Za-z]{1,2}|rock|fo)$")  # O’Brien, d’Albert, y’all
_NEGATED = re.compile(
    r"(?:\b(?:do|ca|wo|is|does|did|could|would|should|has|have|had|was|were|are|ai|must|need))n$",
    re.I,
)
_SHORTENED = re.compile(r"(s|t|d|m|re|ve|ll)(?![^\W\d_])", re.IGNORECASE)


def misfit(line: str, place: int, *, foreign: bool) -> float:
    """Return what a character costs besides, for standing where it stands."""
    char = line[place]
    left, right = line[:place], line[place + 1 :]
    if char not in _INSIDE and not char.isalpha() and is_letter(left[-1:]) and is_letter(right[:1]):
        return _TORN
    rule = _RULES.get(char)
    if rule is not None:
        return rule(left, right)
    if char.isalpha() and char < "\u0250":
        return _accented(char, left, right)
    return _foreign(char, left, right) if foreign else 0.0


def is_letter(char: str) -> bool:
    """Say whether a character is a Latin letter, accented or not."""
    return char.isalpha() and char < "\u0250"


def _apostrophe(left: str, right: str) -> float:
    before, after = left[-1:], right[:1]
    short = _SHORTENED.match(right)
    if before.isdigit() and right[:1] == "s":
        return 1.0
    if is_letter(before) and short:
        return 5.0 if short[1] in "tT" and not left.endswith(("n", "N")) else 0.0
    if is_letter(before) and is_letter(after):
        return 1.0 if _ELIDED.search(left) else 6.0
    if left.rfind("‘") > left.rfind("’") and not before.isspace():
        return 0.5
    if before == "s" and not is_letter(after):
        return 1.0
    if not before.strip() and (after.isdigit() or right[:2] in ("em", "ti", "tw")):
        return 2.0
    return 3.0 if before.strip() and not after.isalnum() else _OUT_OF_PLACE


def _opening(closers: str) -> Callable[[str, str], float]:
    def rule(left: str, right: str) -> float:
        if left[-1:].isalnum() or not right[:1].strip() or right[0] in ",;:)]":
            return _OUT_OF_PLACE
        if left[-1:] in _ENDS:
            return 4.0
        return 0.0 if any(char in right for char in closers) else 2.5

    return rule


def _closing(openers: str) -> Callable[[str, str], float]:
    def rule(left: str, right: str) -> float:
        if not left[-1:].strip() or left[-1] in "([" or right[:1].isalnum():
            return _OUT_OF_PLACE
        return 0.0 if any(char in left for char in openers) else 2.5

    return rule


def _dash(left: str, right: str) -> float:
    before, after = left[-1:], right[:1]
    if before in ("", " ", "\xa0") and after in ("", " ", "\xa0"):
        return 0.0 if before and after else 2.0
    if before.isdigit() and after.isdigit():
        return 3.0
    if re.search(r"[A-Za-z]{3}[\"”’)]?$", left) and re.match(r"[“\"(]?(?:[A-Za-z]{3}|I\b)", right):
        return 1.5 if not _SHORTENED.match(right) else 5.0
    if before and after in ("", " ", "\n", "”", '"', "’"):
        return 2.5
    return 4.0 if before.strip() and after.isalpha() else _OUT_OF_PLACE


def _short_dash(left: str, right: str) -> float:
    return -0.5 if left[-1:].isdigit() and right[:1].isdigit() else _dash(left, right)


def _ellipsis(left: str, right: str) -> float:
    after = right[:1]
    if is_letter(left[-1:]) and _SHORTENED.match(right):
        return 5.0
    if not after or not after.isalnum():
        return 0.0 if left[-1:].strip() else 1.0
    return 1.5 if left[-1:] in ("", " ", "“", "‘", "[", "(") else 2.5


def _space(left: str, right: str) -> float:
    if not left[-1:].strip() or not right[:1].strip():
        return _OUT_OF_PLACE
    if re.search(r"\d\.$", left) and right[0].isupper():
        return -2.0
    if re.search(r"\d\.?$", left) or (_LABEL.search(left) and right[0].isdigit()):
        return 0.0
    return 2.0 if not (left[-1].isalnum() and right[0].isalnum()) else 3.0


def _beside_number(left: str, right: str) -> float:
    near = f"{left[-2:]} {right[:2]}"
    if is_letter(left[-1:]) or is_letter(right[:1]):
        return 5.0
    return 0.0 if any(map(str.isdigit, near)) else 4.0


def _after_letter(left: str, right: str) -> float:
    if right[:1].isalnum():
        return _OUT_OF_PLACE
    return 0.0 if left[-1:].isalnum() and not right[:1].isalnum() else 4.0


def _bullet(left: str, right: str) -> float:
    return 0.0 if not left.strip(" >\t") and right[:1].isspace() else 4.0


def _either(left: str, right: str) -> float:
    """Weigh an angle quote, which Germans and Danes set the other way round."""
    return min(_opening("»«")(left, right), _closing("«»")(left, right))


def _middle_dot(left: str, right: str) -> float:
    beside = (left[-1:], right[:1])
    return 0.0 if all(char in ("", " ", "·") for char in beside) else 3.0


def _about(left: str, right: str) -> float:
    """Weigh a sign of relation: at home in formulas, hardly between two words."""
    if re.search(r"[A-Za-z]+[.,]? $", left) and re.match(r" [A-Za-z]{2,}", right):
        return 0.0 if re.search(r"[=+<>%]", left + right) else 3.0
    return 4.0 if is_letter(left[-1:]) or is_letter(right[:1]) else 0.0


def _foreign(char: str, left: str, right: str) -> float:
    """Weigh what no English line needs: alone, or glued to a word, it is odder still."""
    beside = left[-1:] + right[:1]
    if not left.strip() and right[:2] in ("  ", " |", "\t"):  # the first column of a table
        return -5.0
    if _ABOUT_LETTERS.search(left) or _ABOUT_LETTERS.search(right):
        return -4.0
    if char in _TWINS and _is_twin(char, left, right):
        return -8.0 if is_letter(left[-1:]) and is_letter(right[:1]) else -2.0
    if any(map(is_letter, beside)):
        return 3.0 * sum(map(is_letter, beside))
    return 4.0 if char.isalpha() and not beside.strip() else 0.0


def _is_twin(char: str, left: str, right: str) -> bool:
    """Say whether a Cyrillic letter stands where its Latin twin would."""
    near = re.search("[A-Za-z]*$", left), re.match("[A-Za-z]*", right)
    beside = "".join(match[0] for match in near if match)
    if char.isupper():
        return len(beside) > 1 and beside.isupper()
    return len(beside) > 1 and beside.islower() and not _SHORTENED.match(right)


def _accented(char: str, left: str, right: str) -> float:
    before, after = left[-1:], right[:1]
    if _ABOUT_LETTERS.search(left):
        return 0.0
    if before.isdigit() or after.isdigit():
        return 4.0 if not (before + after).isdigit() else 6.0
    inside = is_letter(before) or is_letter(after)
    if char.isupper():
        odd = before.islower() or (is_letter(before) and _SHORTENED.match(right))
        if before == "I" and _SHORTENED.match(right):
            return _TORN
        if odd or (not is_letter(before) and (ENGLISH.match(right) or _CAPITAL_WORD.match(right))):
            return _OUT_OF_PLACE
        return 0.5 if inside else _ALONE
    if not inside:
        return 0.0 if char == "à" else _ALONE
    if is_letter(before) and before.islower() and after.isupper():
        return 5.0
    if not is_letter(before) and (after.isupper() or ENGLISH.match(right)):
        return 5.0
    short = _SHORTENED.match(right)
    if short and before and before.isascii():
        if short[1] in "tT":
            return 6.0 if _NEGATED.search(left) else 0.0
        if short[1] in "sS":
            return 4.0 if char != "é" and re.search("[A-Za-z]{2}$", left) else 0.0
        return 3.0 if re.search(r"\b(?:I|[Ww]e|[Tt]hey|[Yy]ou|[Hh]e|[Ss]he|it)$", left) else 0.0
    if not is_letter(before) and re.match("[a-z]{3}", right):
        return 1.5
    if not is_letter(after):
        return 0.0 if char in "éàèù" else 1.5
    return 2.5 if char not in _BORROWED and _LOWER_WORD.search(left) else 0.0


_RULES: dict[str, Callable[[str, str], float]] = {
    "’": _apostrophe,
    "“": _opening("”"),
    "„": _opening("”“"),
    "‘": _opening("’"),
    "«": _either,
    "”": _closing("“„"),
    "»": _either,
    "‹": lambda left, right: 0.0 if left[-1:].strip() in ("", "[", "(") else _OUT_OF_PLACE,
    "›": lambda left, right: 0.0 if right[:1].strip() in ("", "]", ")") else _OUT_OF_PLACE,
    "—": _dash,
    "–": _short_dash,
    "−": _beside_number,
    "…": _ellipsis,
    "\xa0": _space,
    "•": _bullet,
    "·": _middle_dot,
    "™": _after_letter,
    "®": _after_letter,
    "†": _after_letter,
    "‡": _after_letter,
    "×": lambda left, right: min(_beside_number(left, right), 2.5),
    "©": lambda left, right: 5.0 if left[-1:].isalnum() or is_letter(right[:1]) else 0.0,
    **dict.fromkeys("≈≤≥≠", _about),
    **dict.fromkeys("²³", lambda left, right: 0.0 if left[-1:].isalnum() else 4.0),
    **dict.fromkeys("€£°½¼¾±№§", _beside_number),
    **dict.fromkeys("¡¿", lambda left, right: 4.0 if left[-1:].isalnum() else 0.0),
}
